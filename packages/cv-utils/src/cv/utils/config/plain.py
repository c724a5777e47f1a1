"""The quick way for the plain part of a ``.py`` config, without Python's parser.

Nearly every config is assignments of literals, ``dict(...)``, earlier names, ``a_string + b``, ``0.02 / 8``.
Such a text is cut into tokens by one regular expression and its values are built while they are read: three
times as fast as parsing it to a syntax tree and walking that. Whatever is not exactly of this form, errors
included, is left to ``evaluator``, which reads the file from its start. So there is one meaning and one set
of messages: this module gives either what the evaluator would give, or nothing.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any

from .budget import Budget, LimitError
from .config_dict import SCALARS

__all__ = ["read_plain"]

_STATEMENT = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*) *= *(?=[^\n= #])", re.MULTILINE)
# Strings have neither prefix nor escape nor a character that Python's tokenizer treats specially. Two tokens
# side by side (1_000, 0x1f, f'x', 'a' 'b') are no value, and neither is the single character at the end.
_TOKEN = re.compile(
    r"[ \n]*([A-Za-z_][A-Za-z0-9_]*(?:\(| *=(?!=))?"
    r"|'(?:'(?!')|[^'\\\n\r\0]+')"
    r'|"(?:"(?!")|[^"\\\n\r\0]+")'
    r"|-?\.?[0-9][0-9.eE+-]*|\*\*|\#[^\n]*|[^ \n])"
)
_CONSTANTS = {"None": None, "True": True, "False": False}
_KEYWORDS = frozenset(keyword.kwlist)
_NUMBER_STARTS = frozenset("0123456789-.")
_OPERATORS = frozenset({"+", "*", "/"})
_NUMBERS = frozenset({int, float})
_MAX_NUMBER = 1 << 53
_MAX_DIGITS = 100
_MAX_DEPTH = 40  # the evaluator bounds the depth of values; far below that its bound need not be looked at
_END = ""


class _NotPlainError(Exception):
    """The text has something that is not plain."""


def read_plain(text: str, variables: dict[str, Any], budget: Budget) -> tuple[dict[str, Any], bool] | None:
    """Read a whole config.

    Args:
        text: The text of the file.
        variables: Variables that are set before its first line; not changed.
        budget: Pays for the tokens, and for joined strings.

    Returns:
        The variables afterwards, and whether parts of a value may be parts of another one too. None if the
        text is not plain.
    """
    head, *pieces = _STATEMENT.split(text)
    if any(token[0] != "#" for token in _TOKEN.findall(head)):
        return None
    values = dict(variables)
    reader = _Reader(values, budget)
    left = budget.left
    try:
        for name, body in zip(pieces[::2], pieces[1::2], strict=True):
            if name in _KEYWORDS or name == "dict":
                raise _NotPlainError
            values[name] = reader.read(body)
    # KeyError: no such name. ValueError: no number. StopIteration, IndexError: the text ends inside a value.
    except (
        _NotPlainError,
        KeyError,
        ValueError,
        ZeroDivisionError,
        StopIteration,
        IndexError,
        LimitError,
        RecursionError,
    ):
        budget.left = left
        return None
    return values, reader.shares


class _Reader:
    """Reads one value after the other."""

    def __init__(self, values: dict[str, Any], budget: Budget) -> None:
        self.values = values
        self.budget = budget
        self.shares = False
        self._next: Callable[[], str] = str
        self._one_line = True

    def read(self, body: str) -> Any:
        """The value of what stands behind a ``name =``."""
        tokens = _TOKEN.findall(body)
        self.budget.spend(len(tokens))
        if "#" in body:
            tokens = [token for token in tokens if token[0] != "#"]
        tokens.append(_END)
        self._next = iter(tokens).__next__
        self._one_line = "\n" not in body.strip("\n")
        value, follows = self._item(self._next(), _MAX_DEPTH)
        if follows != _END:
            raise _NotPlainError
        return value

    def _item(self, token: str, depth: int) -> tuple[Any, str]:
        """A value that begins with ``token``, and the token behind it."""
        first = token[0]
        if (first == "'" or first == '"') and len(token) > 1:
            value: Any = token[1:-1]
        elif token in _CONSTANTS:
            value = _CONSTANTS[token]
        elif first in _NUMBER_STARTS and len(token) <= _MAX_DIGITS:
            value = _number(token)
        elif token == "dict(":
            value = self._call(depth - 1)
        elif first == "[":
            value = self._elements("]", depth - 1)[0]
        elif first == "(":
            elements, ends_with_comma = self._elements(")", depth - 1)
            value = elements[0] if len(elements) == 1 and not ends_with_comma else tuple(elements)
        elif first == "{":
            value = self._display(depth - 1)
        else:
            value = self.values[token]
            if type(value) not in SCALARS:
                self.shares = True
        token = self._next()
        if token not in _OPERATORS:
            return value, token
        if depth == _MAX_DEPTH and not self._one_line:  # outside of brackets a line may not begin with it
            raise _NotPlainError
        return self._joined(value, depth) if token == "+" else self._scaled(value, token)

    def _joined(self, value: Any, depth: int) -> tuple[Any, str]:
        """The sum of ``value`` and what follows a plus, and the token behind it."""
        if type(value) is not str or depth < 0:
            raise _NotPlainError
        other, token = self._item(self._next(), depth - 1)
        if type(other) is not str:
            raise _NotPlainError
        self.budget.spend_text(len(value) + len(other))
        return value + other, token

    def _scaled(self, value: Any, token: str) -> tuple[Any, str]:
        """``value`` multiplied and divided by the numbers that follow, and the token behind them."""
        while token == "*" or token == "/":
            token_of_factor = self._next()
            if token_of_factor[0] not in _NUMBER_STARTS:  # a name, and be it inf
                raise _NotPlainError
            factor = _number(token_of_factor)
            if type(value) not in _NUMBERS or not abs(value) < _MAX_NUMBER or not abs(factor) < _MAX_NUMBER:
                raise _NotPlainError
            value = value * factor if token == "*" else value / factor
            token = self._next()
        if token == "+":
            raise _NotPlainError
        return value, token

    def _call(self, depth: int) -> dict[str, Any]:
        """The rest of ``dict(...)``."""
        if depth < 0:
            raise _NotPlainError
        result: dict[str, Any] = {}
        token = self._next()
        while token != ")":
            if token == "**":
                extra, token = self._item(self._next(), depth)
                if type(extra) is not dict or not all(type(key) is str for key in extra):
                    raise _NotPlainError
                if result.keys() & extra.keys():
                    raise _NotPlainError
                self.budget.spend(2 * len(extra))
                result.update(extra)
            else:
                name = token[:-1].rstrip(" ")
                if token[-1] != "=" or name in result or name in _KEYWORDS or not name:
                    raise _NotPlainError
                result[name], token = self._item(self._next(), depth)
            if token == ",":
                token = self._next()
            elif token != ")":
                raise _NotPlainError
        return result

    def _elements(self, end: str, depth: int) -> tuple[list[Any], bool]:
        """The rest of a list or tuple, and whether a comma stands before its end."""
        if depth < 0:
            raise _NotPlainError
        result: list[Any] = []
        token = self._next()
        comma = end == ")"  # the empty tuple has no need of one
        while token != end:
            value, token = self._item(token, depth)
            result.append(value)
            comma = token == ","
            if comma:
                token = self._next()
            elif token != end:
                raise _NotPlainError
        return result, comma

    def _display(self, depth: int) -> dict[Any, Any]:
        """The rest of ``{key: value}``."""
        if depth < 0:
            raise _NotPlainError
        result: dict[Any, Any] = {}
        token = self._next()
        while token != "}":
            key, token = self._item(token, depth)
            if type(key) is not str or token != ":":  # numbers can be chosen to collide; the evaluator looks
                raise _NotPlainError
            result[key], token = self._item(self._next(), depth)
            if token == ",":
                token = self._next()
            elif token != "}":
                raise _NotPlainError
        return result


def _number(token: str) -> int | float:
    digits = token.removeprefix("-")
    if not digits.isdecimal():
        return float(token)
    if digits[0] == "0" != digits:  # 007 is an error in Python
        raise _NotPlainError
    return int(token)
