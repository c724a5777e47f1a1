"""The interface of a storage backend."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from cv.fileio.errors import decode_text

StrPath = str | os.PathLike[str]


class BaseStorageBackend(ABC):
    """Where files are kept: subclass it and pass the class to :meth:`FileClient.register_backend`.

    A backend must be able to :meth:`get` bytes and :meth:`get_text`. The other operations are there
    where a storage can do them; one that cannot raises ``io.UnsupportedOperation``, which says so.

    All backends raise ``FileNotFoundError`` for a name that is not there, ``PermissionError`` for one
    they may not touch and another ``OSError`` for what else goes wrong on the way.
    """

    @abstractmethod
    def get(self, filepath: StrPath) -> bytes:
        """Read a file as bytes."""

    @abstractmethod
    def get_text(self, filepath: StrPath, encoding: str = "utf-8") -> str:
        """Read a file as text."""

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write bytes to a file; an existing one is replaced."""
        self._refuse("put")

    def put_text(self, obj: str, filepath: StrPath, encoding: str = "utf-8") -> None:
        """Write text to a file; an existing one is replaced."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: StrPath) -> None:
        """Delete a file."""
        self._refuse("remove")

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is a file or a folder of this name."""
        self._refuse("exists")

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is a file of this name."""
        self._refuse("isfile")

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there is a folder of this name."""
        self._refuse("isdir")

    def join_path(self, filepath: StrPath, *filepaths: StrPath) -> str:
        """Put path components together with one ``/`` between them."""
        parts = [os.fspath(filepath), *(os.fspath(part).lstrip("/") for part in filepaths)]
        return "/".join([*(part.rstrip("/") for part in parts[:-1]), parts[-1]])

    def list_dir_or_file(
        self,
        dir_path: StrPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names in a folder, relative to it, sorted; hidden ones (``.name``) are left out.

        Args:
            dir_path: The folder.
            list_dir: Whether to list folders.
            list_file: Whether to list files.
            suffix: List only files that end so. Needs ``list_dir=False``.
            recursive: Whether to descend into folders.
        """
        self._refuse("list_dir_or_file")

    @contextmanager
    def get_local_path(self, filepath: StrPath) -> Iterator[str]:
        """A path on the local disk with the file's content, for libraries that want a path.

        For a remote storage this is a temporary copy, removed when the block ends. It keeps the suffix.
        """
        import tempfile

        name = os.fspath(filepath).rstrip("/").rpartition("/")[2].split("?")[0]
        descriptor, path = tempfile.mkstemp(suffix=Path(name).suffix, prefix="cv-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.get(filepath))
            yield path
        finally:
            with suppress(FileNotFoundError):
                Path(path).unlink()

    def _refuse(self, operation: str) -> NoReturn:
        raise io.UnsupportedOperation(f"{type(self).__name__} cannot do {operation}")


class RemoteBackend(BaseStorageBackend):
    """What backends share whose :meth:`get` gives bytes from somewhere else."""

    def get_text(self, filepath: StrPath, encoding: str = "utf-8") -> str:
        """Read a file as text; the error for bytes of another encoding names the file and line."""
        return decode_text(self.get(filepath), encoding, os.fspath(filepath))


def check_listing(list_dir: bool, suffix: str | tuple[str, ...] | None) -> None:
    """The rules all listings share."""
    if suffix is not None and list_dir:
        raise TypeError(f"list_dir must be False when suffix is given, got suffix {suffix!r}")
    if suffix is not None and not isinstance(suffix, (str, tuple)):
        raise TypeError(f"suffix must be a str or a tuple of str, got {type(suffix).__name__}")


def names_below(
    files: Iterator[str],
    list_dir: bool,
    list_file: bool,
    suffix: str | tuple[str, ...] | None,
    recursive: bool,
) -> list[str]:
    """A listing from the full relative names of all files, for storages without real folders."""
    found: set[str] = set()
    for name in files:
        *folders, base = name.split("/")
        if any(part.startswith(".") for part in (*folders, base)):
            continue
        if list_dir:
            depth = len(folders) if recursive else min(len(folders), 1)
            found.update("/".join(folders[: level + 1]) for level in range(depth))
        if list_file and base and (recursive or not folders) and (not suffix or name.endswith(suffix)):
            found.add(name)
    return sorted(found)
