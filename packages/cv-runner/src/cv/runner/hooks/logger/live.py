"""One line at the bottom of a terminal that shows how far training is."""

from __future__ import annotations

import datetime
import logging
import shutil
import sys
import time
from typing import TYPE_CHECKING, TextIO

from cv.runner.hooks.hook import Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

#: Seconds between two drawings.
REFRESH = 0.2


class LiveLine:
    """A progress bar on a terminal. On anything else, and where ``enabled`` is False, it does nothing.

    Log lines of ``logger`` are printed above it.
    """

    def __init__(
        self, logger: logging.Logger, stream: TextIO | None = None, *, enabled: bool | None = None
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        if enabled is None:
            enabled = bool(getattr(self._stream, "isatty", lambda: False)())
        self.enabled = enabled
        self._next = 0.0
        self._shown = False
        self._handlers: list[logging.Handler] = []
        if enabled:
            current: logging.Logger | None = logger
            while current is not None:
                self._handlers += [h for h in current.handlers if isinstance(h, logging.StreamHandler)]
                current = current.parent if current.propagate else None
            for handler in self._handlers:
                handler.addFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True

    def due(self) -> bool:
        """Whether it is time to draw again."""
        return self.enabled and time.monotonic() >= self._next

    def draw(self, done: int, total: int | None, text: str) -> None:
        """Show ``done`` of ``total`` as a bar, and a text behind it, cut to the terminal's width."""
        self._next = time.monotonic() + REFRESH
        width = shutil.get_terminal_size().columns
        line = f"{done}/{total or '?'} {text}"
        room = min(width - len(line) - 4, 30)
        if total and room >= 5:
            filled = min(done * room // total, room)
            line = f"[{'=' * filled}{' ' * (room - filled)}] {line}"
        self._stream.write(f"\r\x1b[2K{line[: width - 1]}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away, until the next drawing."""
        if self._shown:
            self._shown = False
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def close(self) -> None:
        """Take the line away for good."""
        self.clear()
        for handler in self._handlers:
            handler.removeFilter(self._make_room)
        self._handlers = []
        self.enabled = False


class LiveLineHook(Hook):
    """Draws a live line while training; a hook of its own, so that without a terminal nothing is called."""

    def __init__(self, line: LiveLine, runner: BaseRunner, *, by_epoch: bool) -> None:
        self.line = line
        self.by_epoch = by_epoch
        self.start_iter = runner.iter
        self.began = time.monotonic()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Draw, if it is time."""
        if self.line.due():
            self.line.draw(runner.iter + 1, runner.max_iters, self.text(runner))

    def text(self, runner: BaseRunner) -> str:
        """Epoch, pace, what is left and the latest loss."""
        done = max(runner.iter + 1 - self.start_iter, 1)
        pace = done / max(time.monotonic() - self.began, 1e-9)
        parts = [f"{pace:.1f} it/s"]
        if runner.max_iters is not None:
            left = datetime.timedelta(seconds=int((runner.max_iters - runner.iter - 1) / pace))
            parts.append(f"eta {left}")
        if self.by_epoch and runner.max_epochs is not None:
            parts.insert(0, f"epoch {runner.epoch + 1}/{runner.max_epochs}")
        losses = runner.log_buffer.val_history.get("loss")
        if losses:
            parts.append(f"loss {losses[-1]:.4f}")
        return " ".join(parts)


def show_live_line(runner: BaseRunner, *, by_epoch: bool, enabled: bool | None) -> None:
    """Show a live line until the run ends, behind all other hooks.

    Args:
        runner: the runner.
        by_epoch: it is epoch-based.
        enabled: see :class:`LiveLine`.
    """
    line = LiveLine(runner.logger, enabled=enabled)
    if line.enabled:
        hook = LiveLineHook(line, runner, by_epoch=by_epoch)
        runner.register_hook(hook, "LOWEST")

        def close() -> None:
            line.close()
            if hook in runner.hooks:
                runner.hooks.remove(hook)

        runner.at_exit(close)
