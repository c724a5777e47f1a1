"""Run a function over tasks in several processes, and leave none behind.

Each process has a pipe of its own and gets a new chunk of tasks when it has sent the results of the last. So
a process that dies is noticed at once, neither side can wait for the other to read, and no task waits behind
a long one while another process is idle.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from cv.utils.errors import WorkerError

_R = TypeVar("_R")

# Seconds that a process has to end after it was told to.
_GRACE = 5.0
# Seconds without a result after which it is checked that the processes live.
_PATIENCE = 1.0


def run_in_processes(
    func: Callable[[Any], _R],
    tasks: Iterable[Any],
    nproc: int,
    chunksize: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> Iterator[tuple[int, _R]]:
    """Yield ``(index of the task, result)`` as tasks end; see ``track_parallel_progress``."""
    chunks = _chunks(tasks, chunksize)
    workers: list[_Worker] = []
    try:
        for first_chunk in itertools.islice(chunks, nproc):
            workers.append(_Worker(func, initializer, initargs))
            workers[-1].send(first_chunk)
        busy: dict[Any, _Worker] = {worker.connection: worker for worker in workers}
        while busy:
            ready = wait(list(busy), _PATIENCE)
            if not ready:
                for worker in busy.values():
                    worker.check()
            for connection in ready:
                worker = busy[connection]
                done = worker.receive()
                chunk = next(chunks, None)
                worker.send(chunk)
                if chunk is None:
                    del busy[connection]
                yield from done
        for worker in workers:
            worker.process.join()
    except BaseException:
        # An error, Ctrl-C, or a caller who stops: nobody waits for the rest.
        _end([worker.process for worker in workers])
        raise
    finally:
        for worker in workers:
            worker.connection.close()


class _RemoteError(Exception):
    """The traceback of a worker, shown as the cause of an exception."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Worker:
    """A process and the chunk it is at."""

    def __init__(
        self,
        func: Callable[[Any], Any],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        context: Any = multiprocessing.get_context()
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_work, args=(remote, func, initializer, initargs), daemon=True)
        self.process.start()
        remote.close()
        self._indices: list[int] = []

    def send(self, chunk: list[tuple[int, Any]] | None) -> None:
        """Give it a chunk; None tells it to end."""
        self._indices = [] if chunk is None else [index for index, _ in chunk]
        try:
            self.connection.send(None if chunk is None else [task for _, task in chunk])
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def receive(self) -> list[tuple[int, Any]]:
        """The results of the chunk."""
        try:
            error, trace, results = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if error is not None:
            raise error from _RemoteError(trace)
        return list(zip(self._indices, results, strict=True))

    def check(self) -> None:
        """Raise if it has died. Its pipe tells that too, unless a process of its own still holds the end."""
        if not self.process.is_alive() and not self.connection.poll():
            raise self._died()

    def _died(self) -> WorkerError:
        _wait_for_end(self.process)
        code = self.process.exitcode
        how = f"with exit code {code}"
        if code is not None and code < 0:
            how = f"of {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (out of memory?)"
        which = f"task {self._indices[0]}" if self._indices else "its last task"
        if len(self._indices) > 1:
            which = f"one of the tasks {self._indices[0]} to {self._indices[-1]}"
        return WorkerError(f"a worker process died {how} at {which}")


def _chunks(tasks: Iterable[Any], size: int) -> Iterator[list[tuple[int, Any]]]:
    """The tasks with their indices, a few at a time."""
    numbered = enumerate(tasks)
    while chunk := list(itertools.islice(numbered, size)):
        yield chunk


def _end(processes: list[Any]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        if not _wait_for_end(process):
            process.kill()
            process.join()


def _wait_for_end(process: Any) -> bool:
    """Whether the process ends within the grace. (``join`` with a timeout also waits for its children.)"""
    end = time.monotonic() + _GRACE
    while process.is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


# In the worker.


def _work(
    connection: Connection[Any, Any],
    func: Callable[[Any], Any],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    # Ctrl-C reaches every process of a terminal: it is for the parent to handle, which then sends SIGTERM.
    # A forked process may have inherited a handler for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    failed = None
    try:
        if initializer is not None:
            initializer(*initargs)
    except Exception as error:
        failed = _described(error)
    while (chunk := connection.recv()) is not None:
        connection.send_bytes(failed or _run(func, chunk))


def _end_with_parent() -> None:
    """End this process when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            wait([parent.sentinel])
            os._exit(1)


def _run(func: Callable[[Any], Any], chunk: list[Any]) -> bytes:
    """Do the tasks; ``(error, its traceback, results)``, pickled."""
    try:
        return pickle.dumps((None, "", [func(task) for task in chunk]))
    except Exception as error:
        return _described(error)


def _described(error: Exception) -> bytes:
    trace = "".join(traceback.format_exception(error))
    try:
        pickled = pickle.dumps((error, trace, None))
        if type(pickle.loads(pickled)[0]) is type(error):
            return pickled
    except Exception:  # an exception may fail in any way to be pickled, or to be read again
        pass
    return pickle.dumps((WorkerError(f"{type(error).__name__}: {error}"), trace, None))
