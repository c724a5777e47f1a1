"""A bounded cache that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Cache:
    """Keeps the ``capacity`` entries that were put or got last.

    Args:
        capacity: Greatest number of entries.

    Raises:
        ValueError: ``capacity`` is not positive.
    """

    def __init__(self, capacity: int) -> None:
        if capacity <= 0:
            raise ValueError(f"capacity must be a positive integer, got {capacity}")
        self._capacity = int(capacity)
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()

    @property
    def capacity(self) -> int:
        """Greatest number of entries."""
        return self._capacity

    @property
    def size(self) -> int:
        """Present number of entries."""
        return len(self._entries)

    def put(self, key: Hashable, val: Any) -> None:
        """Add or replace an entry, which becomes the one used last; the oldest goes if there is no room."""
        self._entries[key] = val
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self.pop_oldest()

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value of an entry, which becomes the one used last; ``default`` if there is none."""
        if key not in self._entries:
            return default
        self._entries.move_to_end(key)
        return self._entries[key]

    def pop_oldest(self) -> Any:
        """Take out the entry that was used longest ago and return its value.

        Raises:
            KeyError: The cache is empty.
        """
        return self._entries.popitem(last=False)[1]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
