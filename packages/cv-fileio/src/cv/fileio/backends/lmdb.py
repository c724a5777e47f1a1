"""Files as values of an LMDB database, one file or folder that holds a whole dataset."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv.fileio.errors import missing_extra

from .base import RemoteBackend, StrPath, check_listing, names_below


class LmdbBackend(RemoteBackend):
    """Keys are the file names in UTF-8, values the contents.

    The database is opened at first use and once in each process, however many clients read it (LMDB
    forbids opening it twice). So a client may be made before DataLoader workers are started, and may be
    pickled.

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
        self._opened: _Environment | None = None

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
        """Let go of the database, which is closed with its last client; it is opened again when needed."""
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
            if self._opened is None or self._opened.pid != os.getpid():
                self._opened = None  # else it would stay open
                self._opened = _open(self.db_path, self._options)
            with self._opened.handle.begin(write=write) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise OSError(f"{self.db_path} is full: pass a larger map_size") from error
        except lmdb.Error as error:
            raise OSError(f"{self.db_path}: {error}") from error


class _Environment:
    """An open database of this process."""

    def __init__(self, handle: Any, readonly: bool) -> None:
        self.handle = handle
        self.readonly = readonly
        self.pid = os.getpid()


_environments: weakref.WeakValueDictionary[str, _Environment] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _open(db_path: str, options: dict[str, Any]) -> _Environment:
    """The database of this path, shared by all clients in this process."""
    path = os.path.realpath(db_path)
    with _lock:
        environment = _environments.get(path)
        if environment is not None and environment.pid != os.getpid():
            # A handle from before a fork must not be used. Closing it here leaves the parent's alone.
            environment.handle.close()
            environment = None
        if environment is None:
            environment = _Environment(_lmdb().open(db_path, **options), options["readonly"])
            _environments[path] = environment
        if environment.readonly and not options["readonly"]:
            raise PermissionError(f"{db_path} is open in this process with readonly=True; close that first")
        return environment


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
