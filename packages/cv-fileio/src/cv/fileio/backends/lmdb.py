"""Files as values of an LMDB database, one file or folder that holds a whole dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv.fileio.errors import missing_extra

from .base import RemoteBackend, StrPath, check_listing, names_below


class LmdbBackend(RemoteBackend):
    """Keys are the file names in UTF-8, values the contents.

    The database is opened at first use and once in each process, so a client may be made before
    DataLoader workers are started, and may be pickled.

    Args:
        db_path: The database: a folder (with ``data.mdb`` in it), or a file with ``subdir=False``.
        readonly: Whether writing is refused.
        lock: Whether to take LMDB's lock; not needed for reading what nobody writes. Always on when
            ``readonly`` is False.
        readahead: Whether the system reads ahead; off is better for random access.
        **kwargs: Passed to ``lmdb.open``, such as ``map_size`` (for writing: the most the database
            may grow to, in bytes).

    Raises:
        ImportError: ``lmdb`` is not installed.
        FileNotFoundError: ``db_path`` does not exist (when reading), or a key is not in it.
    """

    def __init__(
        self,
        db_path: StrPath,
        readonly: bool = True,
        lock: bool = False,
        readahead: bool = False,
        **kwargs: Any,
    ) -> None:
        _lmdb()
        self.db_path = os.fspath(db_path)
        if readonly and not Path(self.db_path).exists():
            raise FileNotFoundError(f"db_path does not exist: {self.db_path}")
        kwargs.setdefault("subdir", not Path(self.db_path).is_file())
        self._options = dict(kwargs, readonly=readonly, lock=lock or not readonly, readahead=readahead)
        self._opened: tuple[int, Any] | None = None

    def get(self, filepath: StrPath) -> bytes:
        """Read the value of a key."""
        with self._transaction() as transaction:
            value = transaction.get(_key(filepath))
        if value is None:
            raise FileNotFoundError(f"no key {os.fspath(filepath)!r} in {self.db_path}")
        return bytes(value)

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write a value; needs ``readonly=False``."""
        with self._transaction(write=True) as transaction:
            transaction.put(_key(filepath), bytes(obj))

    def remove(self, filepath: StrPath) -> None:
        """Delete a key; needs ``readonly=False``."""
        with self._transaction(write=True) as transaction:
            if not transaction.delete(_key(filepath)):
                raise FileNotFoundError(f"no key {os.fspath(filepath)!r} in {self.db_path}")

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is such a key, or keys below it as a folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is such a key."""
        with self._transaction() as transaction:
            return transaction.get(_key(filepath)) is not None

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there are keys that begin with this name and a slash."""
        return next(self._keys(_folder(filepath)), None) is not None

    def list_dir_or_file(
        self,
        dir_path: StrPath = "",
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names below a folder (``''`` for all), taking ``/`` in keys as the separator."""
        check_listing(list_dir, suffix)
        return iter(names_below(self._keys(_folder(dir_path)), list_dir, list_file, suffix, recursive))

    def close(self) -> None:
        """Close the database; it is opened again when needed."""
        if self._opened and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _keys(self, prefix: str) -> Iterator[str]:
        start = prefix.encode()
        with self._transaction() as transaction, transaction.cursor() as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(start):
                    return
                yield key.decode("utf-8", "surrogateescape")[len(prefix) :]

    @contextmanager
    def _transaction(self, write: bool = False) -> Iterator[Any]:
        lmdb = _lmdb()
        if write and self._options["readonly"]:
            raise PermissionError(f"{self.db_path} was opened with readonly=True")
        try:
            # LMDB forbids using a parent's handle after a fork.
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), lmdb.open(self.db_path, **self._options))
            with self._opened[1].begin(write=write) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise OSError(f"{self.db_path} is full: pass a larger map_size") from error
        except lmdb.Error as error:
            raise OSError(f"{self.db_path}: {error}") from error


def _key(filepath: StrPath) -> bytes:
    return os.fspath(filepath).encode("utf-8", "surrogateescape")


def _folder(path: StrPath) -> str:
    text = os.fspath(path).rstrip("/")
    return f"{text}/" if text else ""


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise missing_extra("lmdb", "lmdb", "the lmdb backend") from error
    return lmdb
