"""Loggers that print to the console and, on the main process, into a file.

Only the loggers asked for by name are touched: the root logger and its handlers stay as they are.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cv.utils.dist import get_rank
from cv.utils.path import mkdir_or_exist

__all__ = ["get_logger", "print_log"]

LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"

# Names of the loggers that get_logger has set up. A logger below one of them ("a.b" below "a") is complete
# already: its records reach the handlers of the upper one.
logger_initialized: dict[str, bool] = {}


def get_logger(
    name: str,
    log_file: str | os.PathLike[str] | None = None,
    log_level: int | str = logging.INFO,
    file_mode: str = "w",
) -> logging.Logger:
    """Get a logger by name and, the first time, give it its handlers.

    The first call adds a handler for stderr and, if ``log_file`` is given and this is rank 0, one for the
    file, in this order. Later calls with the same name, or with a name below it (``"mmdet.core"`` below
    ``"mmdet"``), return the logger as it is. Lines look like
    ``2026-11-22 13:00:00,000 - name - INFO - message``.

    Records still propagate, so handlers on the root logger see them. Where such a handler prints to the
    same console already, this logger's own console handler keeps quiet: no line appears twice.

    Args:
        name: Name of the logger.
        log_file: File to write to as well; its folder is made if need be.
        log_level: Level on rank 0. All other ranks log errors only.
        file_mode: ``"w"`` or ``"a"``: how ``log_file`` is opened.

    Returns:
        The logger.
    """
    logger = logging.getLogger(name)
    if any(name == known or name.startswith(f"{known}.") for known in logger_initialized):
        return logger

    rank = get_rank()
    handlers: list[logging.Handler] = [ConsoleHandler()]
    if log_file is not None and rank == 0:
        mkdir_or_exist(Path(log_file).parent)
        handlers.append(logging.FileHandler(log_file, file_mode, encoding="utf-8"))
    formatter = logging.Formatter(LOG_FORMAT)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.setLevel(log_level)
        logger.addHandler(handler)
    logger.setLevel(log_level if rank == 0 else logging.ERROR)
    logger_initialized[name] = True
    return logger


def print_log(msg: Any, logger: logging.Logger | str | None = None, level: int = logging.INFO) -> None:
    """Print a message or log it.

    Args:
        msg: The message.
        logger: None prints it, ``"silent"`` drops it, a logger or the name of one (see :func:`get_logger`)
            logs it.
        level: Level for a logger.

    Raises:
        TypeError: ``logger`` is something else.
    """
    if logger is None:
        print(msg)  # noqa: T201  (documented)
    elif isinstance(logger, logging.Logger):
        logger.log(level, msg)
    elif logger == "silent":
        pass
    elif isinstance(logger, str):
        get_logger(logger).log(level, msg)
    else:
        raise TypeError(
            f'logger should be either a logging.Logger object, str, "silent" or None, but got {type(logger)}'
        )


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:  # cannot be subscripted before Python 3.11
    _StreamHandler = logging.StreamHandler


class ConsoleHandler(_StreamHandler):
    """Writes to the stderr of the moment, unless a handler further up prints the record there already."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._follows_stderr = True

    def setStream(self, stream: TextIO) -> TextIO | None:  # noqa: N802
        self._follows_stderr = False
        return super().setStream(stream)

    def emit(self, record: logging.LogRecord) -> None:
        # A test runner or notebook that replaces sys.stderr closes the old one.
        if self._follows_stderr and self.stream is not sys.stderr:
            self.stream = sys.stderr
        if not any(self._prints_here(handler, record) for handler in self._handlers_above(record.name)):
            super().emit(record)

    def _handlers_above(self, name: str) -> Iterator[logging.Handler]:
        """The handlers that a record of this logger reaches after this one."""
        logger: logging.Logger | None = logging.getLogger(name)
        passed_self = False
        while logger is not None:
            if passed_self:
                yield from logger.handlers
            passed_self = passed_self or self in logger.handlers
            logger = logger.parent if logger.propagate else None

    def _prints_here(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
            return False
        if record.levelno < handler.level:
            return False
        same = handler.stream is self.stream
        return same or (_is_terminal(handler.stream) and _is_terminal(self.stream))


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # not a real file, or closed
        return False
