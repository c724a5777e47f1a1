"""Compressed files by suffix: gzip (``.gz``, RFC 1952), xz (``.xz``) and Zstandard (``.zst``, RFC 8878)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import ParseError, missing_extra

SUFFIXES = (".gz", ".xz", ".zst")


class CompressionError(ParseError):
    """A compressed file is damaged, cut off, or not of the kind its suffix says."""


def split_suffix(name: str) -> tuple[str, str]:
    """``'a.json.gz'`` gives ``('a.json', '.gz')``; without such a suffix the second part is empty."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def compress(data: bytes, suffix: str) -> bytes:
    """Compress; equal content gives equal bytes (no time stamp is stored)."""
    if suffix == ".gz":
        import gzip

        return gzip.compress(data, mtime=0)
    if suffix == ".xz":
        import lzma

        return lzma.compress(data)
    compressed: bytes = _zstandard().compress(data)
    return compressed


def decompress(data: bytes, suffix: str, filename: str | None = None) -> bytes:
    """Undo :func:`compress`.

    Raises:
        CompressionError: The data is damaged or ends too early.
        ImportError: ``.zst`` without a Zstandard library.
    """
    if not data:
        raise CompressionError(f"the file is empty, which is not valid {suffix}", filename)
    if suffix == ".gz":
        import gzip
        import zlib

        try:
            return gzip.decompress(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise CompressionError(f"not valid gzip: {error}", filename) from error
    if suffix == ".xz":
        import lzma

        return _join_frames(data, lzma.LZMADecompressor, lzma.LZMAError, suffix, filename)
    zstandard = _zstandard()
    return _join_frames(data, zstandard.decompressor, zstandard.Error, suffix, filename)


def _join_frames(
    data: bytes, new: Callable[[], Any], error_type: type[Exception], suffix: str, filename: str | None
) -> bytes:
    """A file may hold several frames, one after the other; each must be whole."""
    parts: list[bytes] = []
    while data:
        frame = new()
        try:
            parts.append(frame.decompress(data))
        except error_type as error:
            raise CompressionError(f"not valid {suffix[1:]}: {error}", filename) from error
        if not frame.eof:  # the libraries give back what there is, without a word
            raise CompressionError(f"the {suffix[1:]} data ends in the middle", filename)
        data = frame.unused_data
        if suffix == ".xz":
            data = data.lstrip(b"\0")  # padding between streams
    return b"".join(parts)


def _zstandard() -> Any:
    """One face for Python 3.14's own module and the ``zstandard`` package."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        pass
    else:
        return _Zstandard(zstd.compress, zstd.ZstdDecompressor, zstd.ZstdError)
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard", "zstd", "a .zst file") from error
    return _Zstandard(
        lambda data: zstandard.ZstdCompressor().compress(data),
        lambda: zstandard.ZstdDecompressor().decompressobj(),
        zstandard.ZstdError,
    )


class _Zstandard:
    def __init__(self, compress: Any, decompressor: Any, error: type[Exception]) -> None:
        self.compress = compress
        self.decompressor = decompressor
        self.Error = error
