"""Any file system that ``fsspec`` knows: ``s3://``, ``gs://``, ``az://``, ``hf://``, ``zip://`` …"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from cv.fileio.errors import missing_extra

from .base import RemoteBackend, StrPath, check_listing


class FsspecBackend(RemoteBackend):
    """One backend for every protocol of fsspec (each may need a package of its own, as its error says).

    Args:
        protocol: The protocol, such as ``'s3'``; None takes it from each path.
        **storage_options: Passed to the file system (credentials, endpoint …).

    Raises:
        ImportError: ``fsspec``, or the package that a protocol needs, is not installed.
        ValueError: fsspec does not know the protocol.
    """

    def __init__(self, protocol: str | None = None, **storage_options: Any) -> None:
        _fsspec()
        self.protocol = protocol
        self.storage_options = storage_options
        if protocol is not None:
            self._file_system(f"{protocol}://")

    def get(self, filepath: StrPath) -> bytes:
        """Read a file as bytes."""
        path = _uri(filepath)
        return bytes(self._file_system(path).cat_file(path))

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write a file."""
        path = _uri(filepath)
        self._file_system(path).pipe_file(path, bytes(obj))

    def remove(self, filepath: StrPath) -> None:
        """Delete a file."""
        path = _uri(filepath)
        self._file_system(path).rm_file(path)

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is a file or a folder of this name."""
        path = _uri(filepath)
        return bool(self._file_system(path).exists(path))

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is a file of this name."""
        path = _uri(filepath)
        return bool(self._file_system(path).isfile(path))

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there is a folder of this name."""
        path = _uri(filepath)
        return bool(self._file_system(path).isdir(path))

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
        path = _uri(dir_path)
        system = self._file_system(path)
        root = str(system._strip_protocol(path)).rstrip("/") + "/"
        depth = None if recursive else 1
        found = system.find(path, maxdepth=depth, withdirs=True, detail=True)
        for name in sorted(found):
            relative = name[len(root) :].rstrip("/")
            if not relative or any(part.startswith(".") for part in relative.split("/")):
                continue
            if found[name]["type"] == "directory":
                if list_dir:
                    yield relative
            elif list_file and (not suffix or relative.endswith(suffix)):
                yield relative

    def _file_system(self, path: str) -> Any:
        fsspec = _fsspec()
        protocol = self.protocol or fsspec.utils.get_protocol(path)
        return fsspec.filesystem(protocol, **self.storage_options)  # fsspec keeps one for equal options


def knows_protocol(protocol: str) -> bool:
    """Whether fsspec is installed and has a file system of this name."""
    try:
        return protocol in _fsspec().available_protocols()
    except ImportError:
        return False


def _uri(filepath: StrPath) -> str:
    """``Path`` makes ``s3:/bucket`` of ``s3://bucket``: undo that."""
    path = os.fspath(filepath)
    return path if isinstance(filepath, str) else re.sub(r"^(\w[\w+.-]+):/(?!/)", r"\1://", path)


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise missing_extra("fsspec", "fsspec", "the fsspec backend") from error
    return fsspec
