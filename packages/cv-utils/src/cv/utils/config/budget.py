"""Bounds on the work of reading a config without running it.

One unit pays for one syntax node, one element of a container or eight characters. The default is about half
a second of work and 100 MB.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MAX_DEPTH", "MAX_INT_BITS", "MAX_SOURCE_CHARS", "VIEWS", "Budget", "LimitError"]

MAX_UNITS = 1_000_000
MAX_INT_BITS = 4096
MAX_INT = 1 << MAX_INT_BITS
MAX_DEPTH = 100  # of nested values; native hash() of a tuple nested too deeply crashes the interpreter
MAX_SOURCE_CHARS = 500_000  # parsing takes about 600 bytes of memory per character


class LimitError(Exception):
    """A bound was passed. The evaluator turns it into an UntrustedCodeError with file and line."""


class Budget:
    """What may still be spent. One budget serves a config and all its bases."""

    __slots__ = ("left",)

    def __init__(self, units: int = MAX_UNITS) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        """Pay before doing the work."""
        self.left -= units
        if self.left < 0:
            raise LimitError("this config takes too much time or memory")

    def spend_text(self, length: int) -> None:
        self.spend(1 + (length >> 3))

    def weigh(self, value: Any) -> None:
        """Pay for every element of a value, at every depth, before an operation that visits them all.

        Containers that occur twice are paid twice, as ``str``, ``==`` and ``hash`` visit them twice.
        """
        stack = [(value, 0)]
        while stack:
            item, depth = stack.pop()
            kind = type(item)
            if kind in _SEQUENCES:
                self.spend(1 + len(item))
            elif kind is dict:
                self.spend(1 + 2 * len(item))
            elif kind is str or kind is bytes:
                self.spend_text(len(item))
                continue
            else:
                self.spend(1)
                if kind not in VIEWS:
                    continue
            if depth >= MAX_DEPTH:
                raise LimitError(f"values are nested more than {MAX_DEPTH} deep")
            stack.extend((child, depth + 1) for child in item)
            if kind is dict:
                stack.extend((child, depth + 1) for child in item.values())

    def check_int(self, value: Any) -> Any:
        """Refuse an integer that is too large; anything else passes."""
        if type(value) is int and not -MAX_INT < value < MAX_INT:
            raise LimitError(f"an integer has more than {MAX_INT_BITS} bits")
        return value


_NO_ITEMS: dict[Any, Any] = {}
_SEQUENCES = frozenset({list, tuple, set, frozenset})
#: The types of ``dict.keys()``, ``dict.values()`` and ``dict.items()``.
VIEWS = frozenset({type(_NO_ITEMS.keys()), type(_NO_ITEMS.values()), type(_NO_ITEMS.items())})
