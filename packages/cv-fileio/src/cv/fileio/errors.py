"""What a reader gets when a file's content is broken."""

from __future__ import annotations


class ParseError(ValueError):
    """The content of a file is not what its format asks for.

    The errors that :func:`cv.fileio.load` raises are subclasses which are also the format's own
    exception (``json.JSONDecodeError``, ``yaml.YAMLError``, ``pickle.UnpicklingError``), so code that
    catches those keeps working.

    Attributes:
        reason: What is wrong, without the place.
        filename: The file, or None for a string or a stream without a name.
        line: 1-based line number, or None where the format has no lines.
        column: 1-based column, or None.
    """

    def __init__(
        self, reason: str, filename: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        place = filename or "<string>"
        if line is not None:
            place += f", line {line}"
        if column is not None:
            place += f", column {column}"
        ValueError.__init__(self, f"{place}: {reason}")  # not super(): a second base may want other arguments
        self.reason = reason
        self.filename = filename
        self.line = line
        self.column = column

    def __reduce__(self) -> tuple[type[ParseError], tuple[str, str | None, int | None, int | None]]:
        # Exceptions are pickled to reach the parent of a worker process.
        return type(self), (self.reason, self.filename, self.line, self.column)


def decode_text(data: bytes, encoding: str, filename: str | None) -> str:
    """Decode, and on failure say in which file and line the bad byte is (for error paths as well)."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = f"in {filename or '<string>'}, line {line}"
        reason = f"{error.reason} ({place})"
        raise UnicodeDecodeError(error.encoding, error.object, error.start, error.end, reason) from None


def missing_extra(package: str, extra: str, purpose: str) -> ImportError:
    """The error for an optional dependency that is not installed."""
    return ImportError(f"{purpose} needs {package}: pip install cv-fileio[{extra}]", name=package)
