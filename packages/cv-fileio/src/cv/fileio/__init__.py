"""Load and dump files; read and write through storage backends."""

from .atomic import atomic_write
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
from .compression import CompressionError
from .errors import ParseError
from .file_client import FileClient
from .handlers import BaseFileHandler, JsonHandler, PickleHandler, YamlHandler
from .io import dump, load, loads, register_handler
from .parse import dict_from_file, list_from_file

__all__ = [
    # formats
    "load",
    "dump",
    "loads",
    "register_handler",
    "BaseFileHandler",
    "JsonHandler",
    "PickleHandler",
    "YamlHandler",
    "ParseError",
    "CompressionError",
    # text
    "list_from_file",
    "dict_from_file",
    # storage
    "FileClient",
    "BaseStorageBackend",
    "CephBackend",
    "FsspecBackend",
    "HTTPBackend",
    "HardDiskBackend",
    "LmdbBackend",
    "MemcachedBackend",
    "PetrelBackend",
    # writing
    "atomic_write",
]
