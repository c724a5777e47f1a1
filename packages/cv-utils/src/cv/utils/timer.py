"""Timers for stretches of code."""

from __future__ import annotations

from time import perf_counter

__all__ = ["Timer", "TimerError", "check_time"]


class TimerError(Exception):
    """A timer was asked for a time while it was not running."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class Timer:
    """Measures wall-clock time in seconds.

    As a context manager it prints how long the block took.

    Args:
        start: Whether to start at once.
        print_tmpl: What to print at the end of the block, with ``{}`` for the seconds. Default: the seconds
            with three decimals.

    Example:
        >>> import time
        >>> with Timer(print_tmpl="it takes {:.1f} seconds"):
        ...     time.sleep(0.5)
        it takes 0.5 seconds
        >>> timer = Timer()
        >>> time.sleep(0.5)
        >>> f"{timer.since_start():.1f}"
        '0.5'
    """

    def __init__(self, start: bool = True, print_tmpl: str | None = None) -> None:
        self._is_running = False
        self.print_tmpl = print_tmpl if print_tmpl else "{:.3f}"
        if start:
            self.start()

    @property
    def is_running(self) -> bool:
        """Whether the timer has been started."""
        return self._is_running

    def __enter__(self) -> Timer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        print(self.print_tmpl.format(self.since_last_check()))  # noqa: T201  (documented)
        self._is_running = False

    def start(self) -> None:
        """Start the timer; one that is running already only begins a new stretch between checks."""
        now = perf_counter()
        if not self._is_running:
            self._t_start = now
            self._is_running = True
        self._t_last = now

    def since_start(self) -> float:
        """Seconds since the start. This counts as a check.

        Raises:
            TimerError: The timer is not running.
        """
        self._check()
        return self._t_last - self._t_start

    def since_last_check(self) -> float:
        """Seconds since the last check: the last call of this method or of :meth:`since_start`.

        Raises:
            TimerError: The timer is not running.
        """
        previous = self._check()
        return self._t_last - previous

    def _check(self) -> float:
        """Note the time; the time of the previous check."""
        if not self._is_running:
            raise TimerError("timer is not running")
        previous, self._t_last = self._t_last, perf_counter()
        return previous


_timers: dict[str, Timer] = {}


def check_time(timer_id: str) -> float:
    """Seconds since the last call with the same name, for one line in the middle of a loop.

    Args:
        timer_id: Name of the timer; it starts at the first call.

    Returns:
        The seconds; 0 at the first call.

    Example:
        >>> import time
        >>> for i in range(3):
        ...     time.sleep(0.1)
        ...     print(f"{check_time('task1'):.1f}")
        0.0
        0.1
        0.1
    """
    if timer_id not in _timers:
        _timers[timer_id] = Timer()
        return 0
    return _timers[timer_id].since_last_check()
