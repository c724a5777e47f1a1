"""Load and dump files; read and write through storage backends."""

from .atomic import atomic_write

__all__ = ["atomic_write"]
