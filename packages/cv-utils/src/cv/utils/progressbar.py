"""Progress bars, and loops that show one.

Where the caller passes a file, every update is written to it in the documented form, with a carriage return
before it. On standard output it depends on where that leads: a terminal gets the same, at most twenty times
a second; a log file gets a line now and then, without control characters.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Sized
from time import perf_counter
from typing import Any, Literal, TextIO, TypeVar

from cv.utils.errors import UsageError
from cv.utils.timer import Timer

__all__ = ["ProgressBar", "track_iter_progress", "track_parallel_progress", "track_progress"]

_T = TypeVar("_T")
_R = TypeVar("_R")

# Least seconds between two updates on standard output.
_TERMINAL_INTERVAL = 0.05
_LOG_INTERVAL = 10.0


class ProgressBar:
    """A bar that shows how many tasks are done, how fast, and how long the rest will take.

    Args:
        task_num: Number of tasks; 0 if it is not known.
        bar_width: Greatest number of characters between the brackets; a narrow terminal gets fewer.
        start: Whether to show the bar, and start the clock, at once.
        file: Where to write. Default: standard output, as described at the top of this module.

    Example:
        >>> bar = ProgressBar(10)
        >>> for _ in range(10):
        ...     bar.update()
    """

    def __init__(
        self, task_num: int = 0, bar_width: int = 50, start: bool = True, file: TextIO | None = None
    ) -> None:
        self.task_num = task_num
        self.bar_width = bar_width
        self.completed = 0
        self.file = sys.stdout if file is None else file
        self.timer = Timer(start=False)
        self._style: Literal["exact", "terminal", "log"] = "exact"
        if file is None:
            self._style = "terminal" if _can_go_back(self.file) else "log"
        self._shown = 0  # tasks that were done at the last update that was written
        self._shown_at = float("-inf")
        self._shown_width = 0
        if start:
            self.start()

    @property
    def terminal_width(self) -> int:
        """Columns of the terminal: the environment's ``COLUMNS``, or what the terminal says, or 80."""
        import shutil

        return shutil.get_terminal_size().columns

    def start(self) -> None:
        """Show the bar with nothing done and start the clock."""
        if self.task_num > 0:
            self._write(f"[{' ' * self.bar_width}] 0/{self.task_num}, elapsed: 0s, ETA:")
        else:
            self._write("completed: 0, elapsed: 0s")
        self.timer.start()

    def update(self, num_tasks: int = 1) -> None:
        """Count tasks as done and show it.

        Args:
            num_tasks: How many have been done since the last update.

        Raises:
            UsageError: ``num_tasks`` is not positive.
        """
        if num_tasks <= 0:
            raise UsageError(f"num_tasks must be positive, got {num_tasks}")
        if not self.timer.is_running:
            self.start()
        self.completed += num_tasks
        if self._style != "exact" and self.completed != self.task_num:
            interval = _TERMINAL_INTERVAL if self._style == "terminal" else _LOG_INTERVAL
            if perf_counter() - self._shown_at < interval:
                return
        self._show()

    def finish(self) -> None:
        """Show the final state if it is not there yet, and end the line."""
        if self._style != "exact" and self._shown != self.completed:
            self._show()
        if self._style != "log":
            self.file.write("\n")
            self.file.flush()

    def _show(self) -> None:
        self._shown = self.completed
        elapsed = self.timer.since_start()
        speed = self.completed / elapsed if elapsed > 0 else float("inf")
        if self.task_num <= 0:
            self._write(f"completed: {self.completed}, elapsed: {int(elapsed + 0.5)}s, {speed:.1f} tasks/s")
            return
        part = min(self.completed / self.task_num, 1.0)
        eta = int(elapsed * (1 - part) / part + 0.5)
        counts = f"{self.completed}/{self.task_num}, {speed:.1f} task/s"
        text = f" {counts}, elapsed: {int(elapsed + 0.5)}s, ETA: {eta:5}s"
        columns = self.terminal_width
        # The brackets and the carriage return take three columns.
        width = max(2, min(self.bar_width, columns - len(text) - 3, int(columns * 0.6)))
        marks = int(width * part)
        self._write(f"[{'>' * marks}{' ' * (width - marks)}]{text}", again=True)

    def _write(self, text: str, again: bool = False) -> None:
        """Write a state in the form that suits the file; ``again``: over the state before."""
        if self._style == "log":
            text += "\n"
        elif self._style == "terminal":
            width, self._shown_width = self._shown_width, len(text)
            text = f"\r{text:{width}}" if width else text
        elif again:
            text = f"\r{text}"
        self.file.write(text)
        self.file.flush()
        self._shown_at = perf_counter()


def track_progress(
    func: Callable[..., _R],
    tasks: Iterable[Any] | tuple[Iterable[Any], int],
    bar_width: int = 50,
    file: TextIO | None = None,
    **kwargs: Any,
) -> list[_R]:
    """Do tasks one after the other under a progress bar.

    Args:
        func: Called with each task.
        tasks: The tasks, or ``(tasks, number of them)``; a generator without a number gets a bar without
            an end.
        bar_width: See :class:`ProgressBar`.
        file: See :class:`ProgressBar`.
        **kwargs: Further arguments for ``func``.

    Returns:
        What ``func`` returned for each task, in order.

    Raises:
        TypeError: ``tasks`` is not iterable.
    """
    with contextlib.closing(track_iter_progress(tasks, bar_width, file)) as tracked:
        return [func(task, **kwargs) for task in tracked]


def track_iter_progress(
    tasks: Iterable[_T] | tuple[Iterable[_T], int], bar_width: int = 50, file: TextIO | None = None
) -> Generator[_T, None, None]:
    """Iterate over tasks under a progress bar.

    Args:
        tasks: The tasks, or ``(tasks, number of them)``; a generator without a number gets a bar without
            an end.
        bar_width: See :class:`ProgressBar`.
        file: See :class:`ProgressBar`.

    Yields:
        The tasks.

    Raises:
        TypeError: ``tasks`` is not iterable.
    """
    items, total = _count(tasks)

    def iterate() -> Generator[_T, None, None]:
        bar = ProgressBar(total, bar_width, file=file)
        try:
            for item in items:
                yield item
                bar.update()
        finally:
            bar.finish()

    return iterate()


def track_parallel_progress(
    func: Callable[[Any], _R],
    tasks: Iterable[Any] | tuple[Iterable[Any], int],
    nproc: int,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] | None = None,
    bar_width: int = 50,
    chunksize: int = 1,
    skip_first: bool = False,
    keep_order: bool = True,
    file: TextIO | None = None,
) -> list[_R]:
    """Do tasks in several processes under a progress bar.

    The processes are started by the start method of ``multiprocessing`` that is in force. If a task raises,
    if a process dies, or at Ctrl-C, all of them are ended before the exception reaches the caller.

    Args:
        func: Called with each task. Where processes are not forked it is pickled, so a lambda will not do.
        tasks: The tasks, or ``(tasks, number of them)``. They are taken as they are needed, so a generator
            may be long; without a number it gets a bar without an end.
        nproc: Number of processes.
        initializer: Called once in each process.
        initargs: Its arguments.
        bar_width: See :class:`ProgressBar`.
        chunksize: How many tasks are sent to a process at a time; more are faster if each is short.
        skip_first: Leave the first ``nproc * chunksize`` tasks, which wait for the processes to start, out
            of the count and the clock.
        keep_order: Whether results come in the order of the tasks rather than in that of their end.
        file: See :class:`ProgressBar`.

    Returns:
        What ``func`` returned for each task.

    Raises:
        TypeError: ``tasks`` is not iterable or ``initargs`` not a tuple.
        ValueError: ``nproc`` or ``chunksize`` is less than 1.
        WorkerError: A process died, of a signal or lack of memory, or ``func`` raised something that cannot
            be sent to this process.
        Exception: What ``func`` raised; its cause shows the traceback of the process.
    """
    from cv.utils._workers import run_in_processes

    if initargs is not None and not isinstance(initargs, tuple):
        raise TypeError(f'"initargs" must be a tuple, got {type(initargs)}')
    if nproc < 1 or chunksize < 1:
        raise ValueError(f"nproc and chunksize must be at least 1, got {nproc} and {chunksize}")
    items, total = _count(tasks)
    skipped = nproc * chunksize if skip_first else 0
    if 0 < total <= skipped:
        skipped = 0

    bar = ProgressBar(max(total - skipped, 0), bar_width, start=not skipped, file=file)
    results: dict[int, _R] = {}
    try:
        for index, result in run_in_processes(func, items, nproc, chunksize, initializer, initargs or ()):
            results[index] = result
            if len(results) > skipped:
                bar.update()
            elif len(results) == skipped:
                bar.start()
    finally:
        bar.finish()
    return [results[index] for index in sorted(results)] if keep_order else list(results.values())


def _can_go_back(stream: TextIO) -> bool:
    """Whether a carriage return goes back to the begin of the line: on terminals and in notebooks."""
    isatty = getattr(stream, "isatty", None)  # a stand-in for sys.stdout may lack it
    in_notebook = type(stream).__module__.partition(".")[0] == "ipykernel"
    return in_notebook or (isatty is not None and bool(isatty()))


def _count(tasks: Iterable[_T] | tuple[Iterable[_T], int]) -> tuple[Iterable[_T], int]:
    """The tasks and their number, 0 if that is not known."""
    if isinstance(tasks, tuple) and len(tasks) == 2:
        items, total = tasks
        if isinstance(items, Iterable) and isinstance(total, int):
            return items, total
    if not isinstance(tasks, Iterable):
        raise TypeError(f'"tasks" must be an iterable object or a (iterator, int) tuple, got {type(tasks)}')
    return tasks, len(tasks) if isinstance(tasks, Sized) else 0  # type: ignore[return-value]
