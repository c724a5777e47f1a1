"""Text files as lists and dicts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .errors import decode_text
from .file_client import FileClient


def list_from_file(
    filename: str | os.PathLike[str],
    prefix: str = "",
    offset: int = 0,
    max_num: int = 0,
    encoding: str = "utf-8",
    *,
    file_client_args: Mapping[str, Any] | None = None,
) -> list[str]:
    """Read the lines of a text file.

    Args:
        filename: Path or URI.
        prefix: Put before each line.
        offset: How many lines to skip at the start.
        max_num: How many lines to read at most; zero and less mean all.
        encoding: Text encoding.
        file_client_args: Arguments of the :class:`FileClient` to read through. By default the scheme of
            a URI decides, and plain paths are on disk.

    Returns:
        The lines without their ends (``\\n``, ``\\r\\n`` or ``\\r``).

    Raises:
        ValueError: ``offset`` is negative.
        UnicodeDecodeError: The file has another encoding; the error names the file and line.
        OSError: The file cannot be read.
    """
    with _open_text(filename, encoding, file_client_args) as file:
        lines = _lines(file, offset, max_num)
        if prefix:
            return [prefix + line.rstrip("\n\r") for line in lines]
        return [line.rstrip("\n\r") for line in lines]


def dict_from_file(
    filename: str | os.PathLike[str],
    key_type: Callable[[str], Any] = str,
    *,
    offset: int = 0,
    max_num: int = 0,
    encoding: str = "utf-8",
    file_client_args: Mapping[str, Any] | None = None,
) -> dict[Any, str | list[str]]:
    """Read a text file whose lines are a key and its values, with white space between.

    Empty lines are skipped. Of lines with an equal key the last one counts.

    Args:
        filename: Path or URI.
        key_type: Applied to each key, such as ``int``.
        offset: How many lines to skip at the start.
        max_num: How many lines to read at most; zero and less mean all.
        encoding: Text encoding.
        file_client_args: As for :func:`list_from_file`.

    Returns:
        For each key the value, or the list of values where there are several.

    Raises:
        ValueError: ``offset`` is negative, a line has a key only, or ``key_type`` refuses a key; the
            error names the file and line.
        UnicodeDecodeError: The file has another encoding; the error names the file and line.
        OSError: The file cannot be read.
    """
    mapping: dict[Any, str | list[str]] = {}
    with _open_text(filename, encoding, file_client_args) as file:
        for number, line in enumerate(_lines(file, offset, max_num), start=offset + 1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) == 1:
                raise ValueError(f"{filename}, line {number}: a key and a value are needed, got {line!r}")
            try:
                key = key_type(columns[0])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{filename}, line {number}: bad key {columns[0]!r}: {error}") from error
            mapping[key] = columns[1] if len(columns) == 2 else columns[1:]
    return mapping


def _lines(file: IO[str], offset: int, max_num: int) -> Iterator[str]:
    if offset < 0:
        raise ValueError(f"offset must not be negative, got {offset}")
    return islice(file, offset, offset + max_num if max_num > 0 else None)


@contextmanager
def _open_text(
    filename: str | os.PathLike[str], encoding: str, file_client_args: Mapping[str, Any] | None
) -> Iterator[IO[str]]:
    """Open for reading line by line, with line ends made ``\\n`` wherever the file comes from."""
    if file_client_args is not None or FileClient.parse_uri_prefix(filename):
        client = FileClient.infer_client(file_client_args, filename)
        yield io.StringIO(client.get_text(filename, None if encoding == "utf-8" else encoding), newline=None)
        return
    path = Path(filename)
    try:
        with path.open(encoding=encoding) as file:
            yield file
    except UnicodeDecodeError as error:
        decode_text(path.read_bytes(), error.encoding, os.fspath(filename))  # says where
        raise
