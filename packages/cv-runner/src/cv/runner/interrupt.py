"""Leave a training run in order when it is asked to stop: Ctrl-C, or SIGTERM before a pre-emption."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import distributed as dist

from cv.utils.dist import get_dist_info

#: With several ranks, how many iterations pass between two looks at whether one was asked to stop.
CHECK_INTERVAL = 10


class TrainingInterrupted(SystemExit):
    """Raised by ``run`` after it was asked to stop and has saved; ends the program if nobody catches it."""


class StopRequest:
    """Notes SIGTERM and SIGINT instead of dying from them; ranks agree on when to stop."""

    def __init__(self, logger: logging.Logger) -> None:
        self.signal: signal.Signals | None = None
        #: Whether :meth:`agreed` has to be asked at all: a signal has come, or may have come to another rank.
        self.to_ask = False
        self._logger = logger
        self._group: dist.ProcessGroup | None = None
        self._looks = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block; a second one acts as usual.

        Only the main thread may set handlers: elsewhere nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if get_dist_info()[1] > 1:
            # Flags go over CPU tensors: asking a GPU would make it wait.
            self._group = dist.new_group(backend="gloo")
            self.to_ask = True
        former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                if handler is not None:
                    signal.signal(number, handler)
            self._group = None
            self.to_ask = self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # asked twice: now
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.to_ask = True
        self._logger.warning(
            "%s: finishing the iteration, then saving. Once more to stop at once.", self.signal.name
        )

    def agreed(self, *, now: bool = False) -> bool:
        """Whether all ranks should stop here.

        Args:
            now: ask the other ranks even if the interval has not passed; all must do so together.
        """
        if self._group is None:
            return self.signal is not None
        self._looks += 1
        if not now and self._looks % CHECK_INTERVAL:
            return False
        flag = torch.tensor([0 if self.signal is None else int(self.signal)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        if flag.item() and self.signal is None:
            self.signal = signal.Signals(int(flag.item()))
        return bool(flag.item())
