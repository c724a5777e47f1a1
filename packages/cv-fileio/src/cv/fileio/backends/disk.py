"""Files on the local disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cv.fileio.atomic import atomic_write
from cv.fileio.errors import decode_text

from .base import BaseStorageBackend, StrPath, check_listing


class HardDiskBackend(BaseStorageBackend):
    """The local disk, by path or ``file://`` URI."""

    def get(self, filepath: StrPath) -> bytes:
        """Read a file as bytes."""
        return _path(filepath).read_bytes()

    def get_text(self, filepath: StrPath, encoding: str = "utf-8") -> str:
        """Read a file as text; line ends become ``\\n``."""
        text = decode_text(self.get(filepath), encoding, os.fspath(filepath))
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write bytes; missing folders are made, and an existing file is replaced in one step."""
        path = _path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(obj)

    def remove(self, filepath: StrPath) -> None:
        """Delete a file."""
        _path(filepath).unlink()

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is a file or a folder of this name."""
        return _path(filepath).exists()

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is a file of this name."""
        return _path(filepath).is_file()

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there is a folder of this name."""
        return _path(filepath).is_dir()

    def join_path(self, filepath: StrPath, *filepaths: StrPath) -> str:
        """Put path components together as the operating system does."""
        return os.path.join(filepath, *filepaths)  # noqa: PTH118 (a URI must not be normalised)

    def list_dir_or_file(
        self,
        dir_path: StrPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names in a folder, relative to it, sorted; see :class:`BaseStorageBackend`."""
        check_listing(list_dir, suffix)
        root = _path(dir_path)

        def walk(folder: Path) -> Iterator[str]:
            for path in sorted(folder.iterdir()):
                if path.name.startswith("."):
                    continue
                name = path.relative_to(root).as_posix()
                if path.is_dir():
                    if list_dir:
                        yield name
                    if recursive:
                        yield from walk(path)
                elif list_file and (not suffix or name.endswith(suffix)):
                    yield name

        return walk(root)

    @contextmanager
    def get_local_path(self, filepath: StrPath) -> Iterator[str]:
        """The path itself: nothing is copied, and nothing removed."""
        yield os.fspath(_path(filepath))


def _path(filepath: StrPath) -> Path:
    text = os.fspath(filepath)
    if text.startswith("file://"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"a file:// URI must name no other host, got {text!r}")
        return Path(url2pathname(parts.path))
    return Path(text)
