"""Time per iteration."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Logs how long iterations take (``time``) and how much of that waiting for data is (``data_time``).

    Both in seconds of wall-clock time. A GPU works on behind the loop's back; nothing here makes the loop
    wait for it.
    """

    _start: float | None = None

    def before_epoch(self, runner: BaseRunner) -> None:
        """Start the clock."""
        self._start = perf_counter()

    def before_iter(self, runner: BaseRunner) -> None:
        """The data is there."""
        if self._start is not None:
            runner.log_buffer.add("data_time", perf_counter() - self._start)

    def after_iter(self, runner: BaseRunner) -> None:
        """The iteration is over."""
        if self._start is not None:
            now = perf_counter()
            runner.log_buffer.add("time", now - self._start)
            self._start = now
