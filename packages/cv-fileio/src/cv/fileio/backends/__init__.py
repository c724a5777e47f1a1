"""One class per kind of storage. None of them imports its client library before it is made."""

from .base import BaseStorageBackend
from .ceph import CephBackend, PetrelBackend
from .disk import HardDiskBackend
from .fsspec import FsspecBackend
from .http import HTTPBackend
from .lmdb import LmdbBackend
from .memcached import MemcachedBackend

__all__ = [
    "BaseStorageBackend",
    "CephBackend",
    "FsspecBackend",
    "HTTPBackend",
    "HardDiskBackend",
    "LmdbBackend",
    "MemcachedBackend",
    "PetrelBackend",
]
