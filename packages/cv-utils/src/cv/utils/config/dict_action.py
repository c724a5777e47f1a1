"""``DictAction``: ``--options key=value key2=[v1,v2]`` as a dict, for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cv.utils.errors import UsageError

__all__ = ["DictAction", "parse_value"]

_CLOSING = {"[": "]", "(": ")"}


class DictAction(argparse.Action):
    """Collect ``KEY=VALUE`` arguments in a dict; what the option is given twice adds up.

    A value is read as int, float, ``true``/``false`` (any case) or ``None`` where it is one, else as a str.
    ``V1,V2`` and ``[V1,V2]`` give lists, ``(V1,V2)`` a tuple, nested as deep as you like. Quotes, single or
    double, make a string of what they enclose, commas, brackets and digits included: ``name="a,b"``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument('--options', nargs='+', action=DictAction)
        >>> parser.parse_args(['--options', 'a.b=1', 'c=[(x,1.5),true]']).options
        {'a.b': 1, 'c': [('x', 1.5), True]}

    Raises:
        AssertionError: Brackets or quotes that do not match.
        SystemExit: An argument without ``=``, as argparse reports it.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for argument in [values] if isinstance(values, str) else values or ():
            key, equals, value = argument.partition("=")
            if not equals or not key.strip():
                raise argparse.ArgumentError(self, f"expected KEY=VALUE, got {argument!r}")
            options[key.strip()] = parse_value(value)
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> Any:
    """Read the value of one ``KEY=VALUE`` argument.

    Raises:
        AssertionError: Brackets or quotes that do not match (also a ValueError).
    """
    text = text.strip()
    parts = _split_at_commas(text)
    if len(parts) > 1:
        return _parse_items(parts)
    if text[:1] in _CLOSING and _encloses(text):
        inner = text[1:-1].strip()
        items = _parse_items(_split_at_commas(inner)) if inner else []
        return items if text[0] == "[" else tuple(items)
    return _parse_scalar(text)


def _parse_items(parts: list[str]) -> list[Any]:
    if not parts[-1].strip():  # a comma at the end, as in (1,)
        parts = parts[:-1]
    return [parse_value(part) for part in parts]


def _parse_scalar(text: str) -> Any:
    if len(text) >= 2 and text[0] in "'\"" and text.find(text[0], 1) == len(text) - 1:
        return text[1:-1]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if text == "None" else text


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas that are in no brackets and no quotes, and check that both match."""
    parts, start = [], 0
    for index, char, depth in _scan(text):
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _encloses(text: str) -> bool:
    """Whether the bracket that opens ``text`` is closed by its last character, not before."""
    first_close = next(index for index, char, depth in _scan(text) if depth == 0 and char in "])")
    return first_close == len(text) - 1


def _scan(text: str) -> list[tuple[int, str, int]]:
    """``(index, character, bracket depth after it)`` of every character outside quotes."""
    seen: list[tuple[int, str, int]] = []
    open_brackets: list[str] = []
    quote = ""
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
            continue
        # A quote counts only where a value starts: the apostrophe in don't is a letter.
        if char in "'\"" and text[:index].rstrip()[-1:] in ("", ",", "[", "("):
            quote = char
            continue
        if char in _CLOSING:
            open_brackets.append(char)
        elif char in "])" and (not open_brackets or _CLOSING[open_brackets.pop()] != char):
            raise UsageError(f"unbalanced brackets in {text!r}")
        seen.append((index, char, len(open_brackets)))
    if quote or open_brackets:
        raise UsageError(f"unbalanced {'quotes' if quote else 'brackets'} in {text!r}")
    return seen
