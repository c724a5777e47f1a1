"""Writing a config as Python source that reads back as the same config.

Layout: what fits in a line stays on one line; a container that does not is opened, one element a line, with a
trailing comma; long runs of numbers and short strings are filled into lines.
"""

from __future__ import annotations

import enum
import functools
import keyword
import math
import numbers
import os
import unicodedata
from collections.abc import Mapping
from typing import Any

from .references import REFERENCE

__all__ = ["format_config"]

WIDTH = 100
INDENT = 4
_LEAVES = frozenset({str, int, float, bool, type(None), bytes, complex, type(...), range})
#: Names that the text itself uses: a key of that name must not be assigned before they are used.
_USED_NAMES = frozenset({"complex", "dict", "float", "frozenset", "globals", "range", "set"})


def format_config(config: Mapping[Any, Any], strict: bool = False) -> str:
    """Format a config as the text of a ``.py`` config file.

    Args:
        config: The config.
        strict: Raise for values that a config file cannot hold; otherwise their ``repr`` is written as a
            string, so that the text is valid whatever the config holds.

    Raises:
        TypeError: ``strict`` is set and a value is not plain data.
    """
    formatter = _Formatter(strict)
    lines, others = [], {}
    for key, value in config.items():
        if _is_name(key) and key not in _USED_NAMES and not key.startswith("__"):
            lines.append(f"{key} = {formatter.format(value, 0, len(key) + 3, str(key))}\n")
        else:
            others[key] = value
    if others:  # keys that are no Python names
        lines.append(f"globals().update({formatter.format(others, 0, 17, '')})\n")
    return "".join(lines)


class _Formatter:
    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def format(self, value: Any, indent: int, used: int, path: str) -> str:
        """The text of a value that starts at column ``used`` in a line indented by ``indent``."""
        inline = self._inline(value, WIDTH - used - 1, path)
        if inline is not None:
            return inline
        opening, closing, items = self._parts(value, path)
        inner = indent + INDENT
        margin = " " * inner
        if all(type(item) in _LEAVES for _, item, _ in items) and not any(prefix for prefix, _, _ in items):
            body = _fill([self._leaf(item, path) for _, item, _ in items], inner)
        else:
            body = "".join(
                f"{margin}{prefix}{self.format(item, inner, inner + len(prefix), place)},\n"
                for prefix, item, place in items
            )
        return f"{opening}\n{body}{' ' * indent}{closing}"

    def _inline(self, value: Any, room: int, path: str) -> str | None:
        """The text on one line, or None for a container that needs more than ``room`` columns."""
        if type(value) in _LEAVES or not _is_container(value):
            return self._leaf(value, path)
        if (
            len(value) * (5 if isinstance(value, dict) else 3) - 2 > room
        ):  # "a=1, " and "1, " are the shortest
            return None
        opening, closing, items = self._parts(value, path)
        texts = []
        left = room - len(opening) - len(closing)
        for prefix, item, place in items:
            text = self._inline(item, left - len(prefix), place)
            if text is None:
                return None
            left -= len(prefix) + len(text) + 2
            if left < -2:
                return None
            texts.append(prefix + text)
        body = ", ".join(texts)
        if isinstance(value, tuple) and len(items) == 1:
            body += ","
        return f"{opening}{body}{closing}"

    def _parts(self, value: Any, path: str) -> tuple[str, str, list[tuple[str, Any, str]]]:
        """Opening, closing, and ``(prefix, item, path)`` of each element of a container."""
        if isinstance(value, (dict, Mapping)):
            if all(_is_name(key) for key in value):
                return "dict(", ")", [(f"{key}=", item, f"{path}.{key}") for key, item in value.items()]
            parts = []
            for key, item in value.items():
                key_text = self._inline(key, WIDTH * 1000, path)
                parts.append((f"{key_text}: ", item, f"{path}[{key!r}]"))
            return "{", "}", parts
        items = [("", item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, list):
            return "[", "]", items
        if isinstance(value, tuple):
            return "(", ")", items
        items.sort(key=lambda part: str(self._inline(part[1], WIDTH * 1000, path)))
        if isinstance(value, frozenset):
            return ("frozenset({", "})", items) if items else ("frozenset(", ")", items)
        return ("{", "}", items) if items else ("set(", ")", items)

    def _leaf(self, value: Any, path: str) -> str:
        kind = type(value)
        if kind is str:
            return _quote(value)
        if kind is float or kind is complex:
            return _float(value) if kind is float else _complex(value)
        if kind in _LEAVES:
            return "..." if value is ... else repr(value)
        return self._unusual_leaf(value, path)

    def _unusual_leaf(self, value: Any, path: str) -> str:
        """Subclasses of the plain types, NumPy scalars and paths as what they stand for."""
        if isinstance(value, enum.Enum) and isinstance(value.value, (str, int, float)):
            return self._leaf(value.value, path)
        if isinstance(value, (str, os.PathLike)):
            text = os.fspath(value) if isinstance(value, os.PathLike) else str.__str__(value)
            return _quote(text) if isinstance(text, str) else repr(text)
        if isinstance(value, numbers.Integral):
            return repr(int(value))
        if isinstance(value, numbers.Real):
            return _float(float(value))
        if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
            return repr(bool(value))
        if self.strict:
            raise TypeError(
                f"{path or 'a key'} is a {type(value).__module__}.{type(value).__qualname__}, "
                f"which a config file cannot hold: {value!r:.200}"
            )
        return _quote(repr(value))


def _is_container(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, set, frozenset, Mapping))  # Mapping takes longest to tell


@functools.lru_cache(maxsize=4096)  # configs repeat their keys, and each is asked about at every level above
def _is_name(key: object) -> bool:
    if not isinstance(key, str) or not key.isidentifier() or keyword.iskeyword(key):
        return False
    return key.isascii() or unicodedata.normalize("NFKC", key) == key  # Python normalises names


def _quote(text: str) -> str:
    quoted = repr(text)
    # '{{ fileDirname }}' would be replaced when the text is read; '{' '{ fileDirname }}' is the same string.
    if "{{" in quoted:
        quote = quoted[0]
        quoted = REFERENCE.sub(lambda match: f"{{{quote} {quote}{match[0][1:]}", quoted)
    return quoted


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else f"float({str(value)!r})"


def _complex(value: complex) -> str:
    return f"complex({_float(value.real)}, {_float(value.imag)})"


def _fill(texts: list[str], indent: int) -> str:
    """Texts, each followed by a comma, in as few lines as they need."""
    margin = " " * indent
    lines, line = [], ""
    for text in texts:
        if line and indent + len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = ""
        line += f"{' ' if line else ''}{text},"
    if line:
        lines.append(line)
    return "".join(f"{margin}{line}\n" for line in lines)
