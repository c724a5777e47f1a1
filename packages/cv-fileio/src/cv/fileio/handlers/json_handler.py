"""JSON (RFC 8259), with the numpy scalars and arrays, sets and ranges that datasets are full of."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from cv.fileio.errors import ParseError, decode_text

from .base import BaseFileHandler, stream_name, write_text


class JsonParseError(ParseError, json.JSONDecodeError):
    """Malformed JSON; also a ``json.JSONDecodeError``."""

    def __init__(
        self, reason: str, filename: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        ParseError.__init__(self, reason, filename, line, column)
        self.msg, self.doc, self.pos = reason, "", 0
        self.lineno, self.colno = line or 1, column or 1

    __reduce__ = ParseError.__reduce__


class JsonHandler(BaseFileHandler):
    """Reads with ``orjson`` where that extra is installed, else with the standard library."""

    def load_from_fileobj(self, file: IO[Any], **kwargs: Any) -> Any:
        """Read from a text or binary stream; ``kwargs`` are those of :func:`json.loads`."""
        return parse_json(file.read(), filename=stream_name(file), **kwargs)

    def load_from_path(self, filepath: str | os.PathLike[str], mode: str | None = None, **kwargs: Any) -> Any:
        """Read a file; as bytes, which saves orjson a copy of the text."""
        return super().load_from_path(filepath, mode or "rb", **kwargs)

    def dump_to_fileobj(self, obj: Any, file: IO[Any], **kwargs: Any) -> None:
        """Write to a text or binary stream; ``kwargs`` are those of :func:`json.dumps`."""
        # json.dump would write through Python code in small pieces: several times as slow.
        write_text(self.dump_to_str(obj, **kwargs), file)

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:
        """Turn an object into JSON text; ``kwargs`` are those of :func:`json.dumps`."""
        kwargs.setdefault("default", to_json)
        return json.dumps(obj, **kwargs)


def to_json(obj: Any) -> Any:
    """Plain lists and numbers for what JSON has no word for: sets, ranges, numpy scalars and arrays.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(obj, (set, frozenset, range)):
        return list(obj)
    numpy = sys.modules.get("numpy")  # who has numpy objects has imported numpy
    if numpy is not None and isinstance(obj, (numpy.ndarray, numpy.generic)):
        return obj.tolist()
    raise TypeError(f"{type(obj).__module__}.{type(obj).__qualname__} has no JSON form, got {obj!r:.200}")


def parse_json(data: str | bytes, *, filename: str | None = None, **kwargs: Any) -> Any:
    """Parse JSON text; ``kwargs`` are those of :func:`json.loads`.

    Raises:
        JsonParseError: The text is malformed; the error names the file, line and column.
        UnicodeDecodeError: ``data`` is bytes and not UTF-8 (or UTF-16/32 with a byte order mark).
    """
    orjson_loads = None if kwargs else _orjson_loads()
    if orjson_loads is not None and not _has_long_integers(data):
        try:
            with _collector_paused():
                return orjson_loads(data)
        except ValueError:
            pass  # the standard library says where the error is, or accepts it (NaN, Infinity)
    if isinstance(data, (bytes, bytearray, memoryview)):
        data = bytes(data)
        encoding = json.detect_encoding(data)
        data = decode_text(data, encoding, filename)
    if not data.strip():
        raise JsonParseError("the file is empty, which is not valid JSON", filename, 1, 1)
    try:
        with _collector_paused():
            return json.loads(data, **kwargs)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} near {_excerpt(data, error.pos)}"
        raise JsonParseError(reason, filename, error.lineno, error.colno) from error


_DIGITS = bytes(ord("0") if chr(code).isdigit() and code < 128 else ord(" ") for code in range(256))


def _has_long_integers(data: str | bytes) -> bool:
    """Whether a number may not fit 64 bits: orjson would quietly make a float of it.

    A run of 19 digits or more is looked for with two passes of C code (0.2 s a gigabyte), over blocks,
    so that no copy of a large file is made. Long digit strings inside text are false alarms; they only
    cost the faster parser.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    block = 1 << 20
    for start in range(0, len(data), block):
        if b"0" * 19 in data[start : start + block + 18].translate(_DIGITS):
            return True
    return False


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Parsing makes very many containers and no cycle: the collector would walk them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _orjson_loads() -> Callable[[str | bytes], Any] | None:
    try:
        import orjson
    except ImportError:
        return None
    loads: Callable[[str | bytes], Any] = orjson.loads
    return loads


def _excerpt(text: str, position: int) -> str:
    return repr(text[max(0, position - 20) : position + 20])
