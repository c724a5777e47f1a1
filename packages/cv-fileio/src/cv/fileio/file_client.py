"""Read and write files in different storages through one class."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

from .backends import (
    BaseStorageBackend,
    CephBackend,
    FsspecBackend,
    HardDiskBackend,
    HTTPBackend,
    LmdbBackend,
    MemcachedBackend,
    PetrelBackend,
)
from .backends.base import StrPath

Backend = TypeVar("Backend", bound=type[BaseStorageBackend])


class FileClient:
    """A client of one storage backend, chosen by name or by the scheme of a URI.

    Args:
        backend: Name of the backend: ``'disk'``, ``'http'``, ``'lmdb'``, ``'memcached'``, ``'ceph'``,
            ``'petrel'``, ``'fsspec'`` or a registered one.
        prefix: A URI scheme such as ``'https'`` or ``'s3'``. If given, it chooses the backend.
        **kwargs: Arguments of the backend's class.

    Attributes:
        backend: Name of the backend.
        client: The backend object.

    Raises:
        ValueError: The name or prefix is unknown; the error lists the known ones.
        ImportError: The backend needs a package that is not installed; the error names the extra.

    Example:
        >>> FileClient('lmdb', db_path='train.lmdb').get('0001.jpg')
        >>> FileClient(prefix='https').get_text('https://example.org/classes.txt')
    """

    _backends: ClassVar[dict[str, type[BaseStorageBackend]]] = {
        "disk": HardDiskBackend,
        "http": HTTPBackend,
        "lmdb": LmdbBackend,
        "memcached": MemcachedBackend,
        "ceph": CephBackend,
        "petrel": PetrelBackend,
        "fsspec": FsspecBackend,
    }
    # Other schemes are fsspec's, if it knows them.
    _prefixes: ClassVar[dict[str, str]] = {"file": "disk", "http": "http", "https": "http"}

    backend: str
    client: BaseStorageBackend

    def __init__(self, backend: str = "disk", *, prefix: str | None = None, **kwargs: Any) -> None:
        if prefix is not None:
            backend = self._backend_of_prefix(prefix)
            if backend == "fsspec":
                kwargs.setdefault("protocol", prefix)
        if backend not in self._backends:
            raise ValueError(f"backend must be one of {', '.join(self._backends)}, got {backend!r}")
        self.backend = backend
        self.client = self._backends[backend](**kwargs)

    @classmethod
    def register_backend(
        cls,
        name: str,
        backend: type[BaseStorageBackend] | None = None,
        force: bool = False,
        *,
        prefixes: str | Sequence[str] | None = None,
    ) -> Callable[[Backend], Backend]:
        """Add a backend; to be called, or used as a decorator when ``backend`` is left out.

        Args:
            name: The name to choose it by.
            backend: A subclass of :class:`BaseStorageBackend`.
            force: Whether a backend or prefix of this name is replaced.
            prefixes: URI schemes that choose it.

        Raises:
            TypeError: ``name`` is not a str, or ``backend`` is not such a class.
            KeyError: The name or a prefix is taken and ``force`` is False.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}")
        schemes = [prefixes] if isinstance(prefixes, str) else list(prefixes or ())

        def register(kind: Backend) -> Backend:
            if not isinstance(kind, type):
                raise TypeError(f"backend must be a class, got {type(kind).__name__}")
            if not issubclass(kind, BaseStorageBackend):
                raise TypeError(f"backend must be a subclass of BaseStorageBackend, got {kind.__name__}")
            if not force and name in cls._backends:
                raise KeyError(
                    f"backend {name!r} is registered already ({cls._backends[name].__name__}); "
                    "force=True replaces it"
                )
            for scheme in schemes:
                if not force and scheme in cls._prefixes:
                    raise KeyError(f"prefix {scheme!r} belongs to backend {cls._prefixes[scheme]!r} already")
            cls._backends[name] = kind
            cls._prefixes.update(dict.fromkeys(schemes, name))
            return kind

        if backend is not None:
            register(backend)
        return register

    @staticmethod
    def parse_uri_prefix(uri: StrPath) -> str | None:
        """The scheme of a URI in lower case (``'s3'`` of ``'s3://a/b'``), or None for a plain path."""
        match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", os.fspath(uri))  # a Path keeps only one slash
        if match is None or (isinstance(uri, str) and "://" not in uri):
            return None
        return match[1].lower()

    @classmethod
    def infer_client(
        cls, file_client_args: Mapping[str, Any] | None = None, uri: StrPath | None = None
    ) -> FileClient:
        """A client from arguments, or else from the scheme of a URI; plain paths are on disk.

        Raises:
            ValueError: Neither is given, or the backend or scheme is unknown.
        """
        if file_client_args is not None:
            return cls(**file_client_args)
        if uri is None:
            raise ValueError("file_client_args or uri must be given, got None for both")
        prefix = cls.parse_uri_prefix(uri)
        return cls(prefix=prefix) if prefix is not None else cls()

    @classmethod
    def _backend_of_prefix(cls, prefix: str) -> str:
        if prefix in cls._prefixes:
            return cls._prefixes[prefix]
        from .backends.fsspec import knows_protocol

        if not knows_protocol(prefix):
            raise ValueError(
                f"prefix must be one of {', '.join(cls._prefixes)} or, with the extra "
                f"cv-fileio[fsspec], a protocol that fsspec knows; got {prefix!r}"
            )
        return "fsspec"

    def get(self, filepath: StrPath) -> bytes:
        """Read a file as bytes."""
        return self.client.get(filepath)

    def get_text(self, filepath: StrPath, encoding: str | None = None) -> str:
        """Read a file as text, UTF-8 unless ``encoding`` says otherwise."""
        # Backends of users may take the path only.
        return self.client.get_text(filepath, encoding) if encoding else self.client.get_text(filepath)

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write bytes to a file; an existing one is replaced."""
        self.client.put(obj, filepath)

    def put_text(self, obj: str, filepath: StrPath, encoding: str = "utf-8") -> None:
        """Write text to a file; an existing one is replaced."""
        self.client.put_text(obj, filepath, encoding)

    def remove(self, filepath: StrPath) -> None:
        """Delete a file."""
        self.client.remove(filepath)

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is a file or a folder of this name."""
        return self.client.exists(filepath)

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is a file of this name."""
        return self.client.isfile(filepath)

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there is a folder of this name."""
        return self.client.isdir(filepath)

    def join_path(self, filepath: StrPath, *filepaths: StrPath) -> str:
        """Put path components together as the storage writes them."""
        return self.client.join_path(filepath, *filepaths)

    def list_dir_or_file(
        self,
        dir_path: StrPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names in a folder, relative to it, sorted; see :class:`BaseStorageBackend`."""
        return self.client.list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)

    def get_local_path(self, filepath: StrPath) -> AbstractContextManager[str]:
        """A path on the local disk with the file's content, valid inside the ``with`` block.

        Example:
            >>> with client.get_local_path('https://example.org/clip.mp4') as path:
            ...     video = cv.video.VideoReader(path)
        """
        return self.client.get_local_path(filepath)
