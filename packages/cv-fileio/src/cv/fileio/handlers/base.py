"""The interface of a file format."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from typing import IO, Any, ClassVar

from cv.fileio.atomic import atomic_write


class BaseFileHandler(ABC):
    """A file format: subclass it and pass an instance to :func:`cv.fileio.register_handler`.

    Attributes:
        str_like: True if the format is text, so that files of it are opened in text mode; False for a
            binary format.

    Example:
        >>> @cv.fileio.register_handler('txt')
        ... class TextHandler(cv.fileio.BaseFileHandler):
        ...     def load_from_fileobj(self, file, **kwargs):
        ...         return file.read()
        ...     def dump_to_fileobj(self, obj, file, **kwargs):
        ...         file.write(str(obj))
        ...     def dump_to_str(self, obj, **kwargs):
        ...         return str(obj)
    """

    str_like: ClassVar[bool] = True

    @abstractmethod
    def load_from_fileobj(self, file: IO[Any], **kwargs: Any) -> Any:
        """Read an object from an open file."""

    @abstractmethod
    def dump_to_fileobj(self, obj: Any, file: IO[Any], **kwargs: Any) -> None:
        """Write an object to an open file."""

    @abstractmethod
    def dump_to_str(self, obj: Any, **kwargs: Any) -> str | bytes:
        """Turn an object into a str (or bytes, if the format is binary)."""

    def load_from_path(self, filepath: str | os.PathLike[str], mode: str | None = None, **kwargs: Any) -> Any:
        """Read an object from a file on disk; ``mode`` is that of :func:`open`, by default for reading."""
        if mode is None:
            mode = "r" if self.str_like else "rb"
        encoding = None if "b" in mode else "utf-8"
        with io.open(filepath, mode, encoding=encoding) as file:  # noqa: UP020
            return self.load_from_fileobj(file, **kwargs)

    def dump_to_path(
        self, obj: Any, filepath: str | os.PathLike[str], mode: str | None = None, **kwargs: Any
    ) -> None:
        """Write an object to a file on disk, which is replaced only if all went well."""
        if mode is None:
            mode = "w" if self.str_like else "wb"
        with atomic_write(filepath, mode) as file:
            self.dump_to_fileobj(obj, file, **kwargs)


def stream_name(file: Any) -> str | None:
    """The name of the file behind a stream, for error messages."""
    name = getattr(file, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else None


def write_text(text: str, file: IO[Any]) -> None:
    """Write to a text stream, or UTF-8 to a binary one."""
    file.write(text.encode() if is_binary(file) else text)


def is_binary(file: Any) -> bool:
    """Whether a stream takes bytes; unknown kinds of stream are taken for text."""
    if isinstance(file, io.TextIOBase):
        return False
    if isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        return True
    mode = getattr(file, "mode", "")  # the wrappers of the tempfile module
    return isinstance(mode, str) and "b" in mode
