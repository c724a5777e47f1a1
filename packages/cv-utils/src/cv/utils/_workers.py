"""Run a function over tasks in several processes, and leave none behind."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from cv.utils.errors import WorkerError

_R = TypeVar("_R")

# Chunks that are under way or wait in front of the processes, for each process: enough to keep it busy.
_CHUNKS_AHEAD = 4
# Seconds that a process has to end after it was told to.
_GRACE = 5.0


def run_in_processes(
    func: Callable[[Any], _R],
    tasks: Iterable[Any],
    nproc: int,
    chunksize: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> Iterator[tuple[int, _R]]:
    """Yield ``(index of the task, result)`` as tasks end; see ``track_parallel_progress``."""
    context: Any = _RecordingContext(multiprocessing.get_context())
    executor = ProcessPoolExecutor(nproc, context, _start_worker, (initializer, initargs))
    numbered = enumerate(tasks)
    pending: dict[Future[list[_R]], list[int]] = {}
    try:
        while True:
            while len(pending) < nproc * _CHUNKS_AHEAD and (
                chunk := list(itertools.islice(numbered, chunksize))
            ):
                future = executor.submit(_run_chunk, func, [task for _, task in chunk])
                pending[future] = [index for index, _ in chunk]
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield from zip(pending.pop(future), future.result(), strict=True)
        executor.shutdown()
    except BaseException:
        # An error, Ctrl-C, or a caller who stops: nobody waits for the rest.
        context.end_processes()
        executor.shutdown(cancel_futures=True)
        raise


class _RecordingContext:
    """A multiprocessing context that remembers the processes made through it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._processes: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        process = self._context.Process(*args, **kwargs)
        self._processes.append(process)
        return process

    def end_processes(self) -> None:
        started = [process for process in self._processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(_GRACE)
            if process.is_alive():
                process.kill()
                process.join()


def _start_worker(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of a terminal: it is for the parent to handle, which then sends SIGTERM.
    # A forked process may have inherited a handler for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    """End this process when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)


def _run_chunk(func: Callable[[Any], _R], chunk: list[Any]) -> list[_R]:
    try:
        return [func(task) for task in chunk]
    except Exception as error:
        if _survives_pickling(error):
            raise
        text = "".join(traceback.format_exception(error))
        raise WorkerError(f"{type(error).__name__}: {error}\n\n{text}") from None


def _survives_pickling(error: Exception) -> bool:
    """Whether the exception can be sent: one that fails to be read again would break the whole pool."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
