"""Files as values on memcached servers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cv.fileio.errors import missing_extra

from .base import RemoteBackend, StrPath

_MAX_KEY = 250


class MemcachedBackend(RemoteBackend):
    """Keys are the file names, values the contents; several servers share the keys between them.

    A name that memcached does not take as a key (longer than 250 bytes, or with spaces or control
    characters) is replaced by ``sha256:`` and its digest, the same in every process. The connection is
    made at first use, once in each process and thread.

    Args:
        server_list_cfg: The servers: ``'host:port'``, a list of those, or a text file with one a line
            (``#`` begins a comment). A ``/path`` with the suffix ``.sock`` is a UNIX socket.
        client_cfg: Options for pymemcache's ``HashClient`` (``timeout``, ``connect_timeout``,
            ``max_pool_size`` …): a dict, or a json or yaml file.
        sys_path: A folder to add to the import path before the client library is imported.

    Raises:
        ImportError: ``pymemcache`` is not installed.
        FileNotFoundError: A key is not there.
        ConnectionError: A server cannot be reached, or the connection was lost.
        TimeoutError: A server did not answer in time.
    """

    def __init__(
        self,
        server_list_cfg: StrPath | Sequence[str],
        client_cfg: StrPath | Mapping[str, Any] | None = None,
        sys_path: str | None = None,
    ) -> None:
        if sys_path is not None:
            import sys

            sys.path.append(sys_path)
        _pymemcache()
        self.servers = _servers(server_list_cfg)
        self._options = {"timeout": 10.0, "connect_timeout": 5.0, "use_pooling": True, **_options(client_cfg)}
        self._client: tuple[int, Any] | None = None

    def get(self, filepath: StrPath) -> bytes:
        """Read the value of a key."""
        with self._connection() as client:
            value = client.get(_key(filepath))
        if value is None:
            raise FileNotFoundError(f"no key {os.fspath(filepath)!r} on {', '.join(self.servers)}")
        return bytes(value)

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write a value. A server refuses those above its item size (1 MB by default)."""
        with self._connection() as client:
            stored = client.set(_key(filepath), bytes(obj), noreply=False)
        if not stored:
            raise OSError(f"{', '.join(self.servers)} did not store {os.fspath(filepath)!r}")

    def remove(self, filepath: StrPath) -> None:
        """Delete a key."""
        with self._connection() as client:
            deleted = client.delete(_key(filepath), noreply=False)
        if not deleted:
            raise FileNotFoundError(f"no key {os.fspath(filepath)!r} on {', '.join(self.servers)}")

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is such a key."""
        with self._connection() as client:
            return client.get(_key(filepath)) is not None

    def isfile(self, filepath: StrPath) -> bool:
        """The same as :meth:`exists`: memcached knows no folders."""
        return self.exists(filepath)

    def close(self) -> None:
        """Close the connections; they are made again when needed."""
        if self._client and self._client[0] == os.getpid():
            self._client[1].close()
        self._client = None

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        hash_module, errors = _pymemcache()
        if self._client is None or self._client[0] != os.getpid():  # a fork must not share the socket
            servers = [_address(server) for server in self.servers]
            self._client = (os.getpid(), hash_module.HashClient(servers, **self._options))
        where = ", ".join(self.servers)
        try:
            yield self._client[1]
        except TimeoutError as error:
            raise TimeoutError(f"memcached at {where} did not answer in time") from error
        except errors.MemcacheUnexpectedCloseError as error:
            raise ConnectionError(f"memcached at {where} closed the connection") from error
        except errors.MemcacheServerError as error:
            raise OSError(f"memcached at {where} refused: {_text(error)}") from error
        except (OSError, errors.MemcacheError) as error:
            raise ConnectionError(f"memcached at {where}: {_text(error)}") from error


def _key(filepath: StrPath) -> str:
    name = os.fspath(filepath)
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= _MAX_KEY and all(33 <= byte < 127 for byte in data) and data:
        return name
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _servers(config: StrPath | Sequence[str]) -> list[str]:
    if isinstance(config, (str, os.PathLike)):
        path = Path(config)
        if path.is_file():
            lines = path.read_text("utf-8").splitlines()
            servers = [line.split("#")[0].strip() for line in lines]
        elif isinstance(config, str) and (":" in config or config.endswith(".sock")):
            servers = [config]
        else:
            raise FileNotFoundError(f"server_list_cfg is neither a file nor 'host:port', got {path}")
    else:
        servers = list(config)
    servers = [server for server in servers if server]
    if not servers:
        raise ValueError(f"server_list_cfg must name at least one server, got {config!r}")
    for server in servers:
        _address(server)
    return servers


def _address(server: str) -> str | tuple[str, int]:
    if server.startswith("/"):
        return server
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"a memcached server must be 'host:port' or a socket path, got {server!r}")
    return host.strip("[]"), int(port)


def _options(config: StrPath | Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return dict(config)
    from cv.fileio.io import load

    options = load(config)
    if not isinstance(options, dict):
        raise TypeError(f"client_cfg must hold a mapping, got {type(options).__name__} in {config}")
    return options


def _text(error: BaseException) -> str:
    detail = error.args[0] if error.args else type(error).__name__
    return detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(error)


def _pymemcache() -> tuple[Any, Any]:
    try:
        import pymemcache.client.hash
        import pymemcache.exceptions
    except ImportError as error:
        raise missing_extra("pymemcache", "memcached", "the memcached backend") from error
    return pymemcache.client.hash, pymemcache.exceptions
