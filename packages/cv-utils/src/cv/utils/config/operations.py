"""Operators on config values, each paid for before it is done.

All values are of exact builtin types (``VALUE_TYPES``), so that the native operators used here run no code
of anybody else; what is guarded is size.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from .budget import MAX_INT_BITS, VIEWS, Budget, LimitError

__all__ = ["DATA_TYPES", "NUMBERS", "VIEWS", "Lazy", "Operations", "UnsafeOperationError"]

NUMBERS = frozenset({int, float, bool, complex})
#: What a config may hold in the end.
DATA_TYPES = NUMBERS | {str, bytes, type(None), type(...), list, tuple, dict, set, frozenset, range, slice}
_SCALARS = NUMBERS | {str, bytes, type(None)}
_ITERABLES = frozenset({list, tuple, dict, set, frozenset, range, str, bytes}) | VIEWS
_SETS = frozenset({set, frozenset}) | VIEWS
_LIST_LIKE = frozenset({list, tuple, str, bytes})

MAX_LAZY_DEPTH = 20
MAX_FORMAT_DIGITS = 3


class UnsafeOperationError(Exception):
    """Something that is possible in Python but not offered to configs."""


class Lazy:
    """A one-shot iterator: what ``zip``, ``map``, a generator expression … give.

    ``depth`` counts iterators inside iterators: the interpreter crashes on very deep chains of them.
    """

    __slots__ = ("depth", "iterator")

    def __init__(self, iterator: Iterator[Any], *sources: Any) -> None:
        self.iterator = iterator
        self.depth: int = 1 + max((source.depth for source in sources if type(source) is Lazy), default=0)
        if self.depth > MAX_LAZY_DEPTH:
            raise LimitError(f"iterators are nested more than {MAX_LAZY_DEPTH} deep")


class Operations:
    """The operators, bound to one budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    # Iteration

    def iterate(self, value: Any) -> Iterator[Any]:
        """Iterate and pay for each element as it comes."""
        spend = self.budget.spend
        for item in raw_iterator(value):
            spend(1)
            yield item

    def collect(self, value: Any) -> list[Any]:
        """The elements of an iterable as a new list."""
        if type(value) in _ITERABLES:
            self.budget.spend(len(value))
            return list(value)
        return list(self.iterate(value))

    # Binary operators

    def binary(self, op: type[ast.operator], left: Any, right: Any) -> Any:
        kinds = type(left), type(right)
        if not (kinds[0] in DATA_TYPES or kinds[0] in VIEWS) or not (
            kinds[1] in DATA_TYPES or kinds[1] in VIEWS
        ):
            raise UnsafeOperationError(f"an operator on {describe(left)} and {describe(right)}")
        if op is ast.Mod and kinds[0] in (str, bytes):
            return self.percent_format(left, right)
        if kinds[0] in NUMBERS and kinds[1] in NUMBERS:
            self._check_growth(op, left, right)
        else:
            self._pay(op, left, right)
        return self.budget.check_int(_BINARY[op](left, right))

    def in_place(self, op: type[ast.operator], left: Any, right: Any) -> Any:
        """``left op= right``: lists, sets and dicts are changed, anything else is replaced."""
        kind = type(left)
        if kind is list and op is ast.Add:
            left.extend(self.collect(right))
            return left
        if kind is list and op is ast.Mult and type(right) in (int, bool):
            self._pay(op, left, right)
            left *= right
            return left
        if kind in (set, dict) and op in _IN_PLACE and (type(right) in _SETS or type(right) is dict):
            self.budget.spend(1 + len(left) + len(right))
            return _IN_PLACE[op](left, right)
        return self.binary(op, left, right)

    def power(self, base: Any, exponent: Any, modulus: Any = None) -> Any:
        if modulus is None:
            return self.binary(ast.Pow, base, exponent)
        if not {type(base), type(exponent), type(modulus)} <= NUMBERS:
            raise TypeError("pow() takes numbers")
        return pow(base, exponent, modulus)

    def _check_growth(self, op: type[ast.operator], left: Any, right: Any) -> None:
        """Refuse products, powers and shifts of integers that would be too large, before computing them."""
        if type(left) not in (int, bool) or type(right) not in (int, bool):
            return
        if op is ast.Mult:
            bits = left.bit_length() + right.bit_length()
        elif op is ast.Pow and right > 0:
            bits = (left.bit_length() if abs(left) > 1 else 0) * right
        elif op is ast.LShift and right > 0:
            bits = left.bit_length() + right if left else 0
        else:
            return
        if bits > MAX_INT_BITS + 1:
            raise LimitError(f"an integer has more than {MAX_INT_BITS} bits")

    def _pay(self, op: type[ast.operator], left: Any, right: Any) -> None:
        if op is ast.Mult:
            for sequence, count in ((left, right), (right, left)):
                if type(sequence) in _LIST_LIKE and type(count) in (int, bool) and count > 0:
                    length = len(sequence) * count
                    self.budget.spend(length if type(sequence) in (list, tuple) else 1 + (length >> 3))
        else:
            for operand in (left, right):
                if type(operand) in (str, bytes):
                    self.budget.spend_text(len(operand))
                elif hasattr(operand, "__len__"):
                    self.budget.spend(1 + len(operand))

    # Comparisons

    def compare(self, op: type[ast.cmpop], left: Any, right: Any) -> Any:
        if op is ast.In or op is ast.NotIn:
            return self._contains(right, left) is (op is ast.In)
        if not (op is ast.Is or op is ast.IsNot or (type(left) in _SCALARS and type(right) in _SCALARS)):
            self.budget.weigh(left)
            self.budget.weigh(right)
        return _COMPARE[op](left, right)

    def _contains(self, container: Any, item: Any) -> bool:
        kind = type(container)
        if kind is str or kind is bytes:
            self.budget.spend_text(len(container))
        elif kind is range:
            if type(item) not in (int, bool):
                self.budget.spend(len(container))  # native search is linear then
        elif kind in (dict, set, frozenset, type(_NO_ITEMS.keys())):
            self.budget.weigh(item)
        elif kind in _ITERABLES:
            self.budget.spend(1 + len(container))
            if type(item) not in _SCALARS:
                self.budget.weigh(container)
                self.budget.weigh(item)
        else:
            for candidate in self.iterate(container):
                if self.compare(ast.Is, candidate, item) or self.compare(ast.Eq, candidate, item):
                    return True
            return False
        return item in container

    # Keys

    def check_key(self, key: Any, container: Any) -> Any:
        """Pay for putting a key into a dict or set.

        Strings hash with a secret and small numbers to themselves. Other keys can be chosen to collide, so
        they pay for a search through all that is there.
        """
        kind = type(key)
        if kind is str or kind is bool or key is None or (kind is int and -(1 << 60) < key < (1 << 60)):
            return key
        self.budget.weigh(key)
        self.budget.spend(len(container) >> 4)
        return key

    # Subscripts

    def get_item(self, container: Any, index: Any) -> Any:
        kind = type(container)
        if kind is dict:
            self.budget.weigh(index)
        elif kind in _LIST_LIKE or kind is range:
            if type(index) is slice and kind is not range:
                self.budget.spend(1 + len(range(*index.indices(len(container)))))
        else:
            raise UnsafeOperationError(f"a subscript on {describe(container)}")
        return container[index]

    def set_item(self, container: Any, index: Any, value: Any) -> None:
        kind = type(container)
        if kind is dict:
            container[self.check_key(index, container)] = value
        elif kind is list:
            if type(index) is slice:
                self.budget.spend(len(container))
                value = self.collect(value)
            container[index] = value
        else:
            raise TypeError(f"{kind.__name__!r} object does not support item assignment")

    def delete_item(self, container: Any, index: Any) -> None:
        kind = type(container)
        if kind not in (dict, list):
            raise TypeError(f"{kind.__name__!r} object does not support item deletion")
        self.budget.weigh(index)
        self.budget.spend(len(container) >> 3)
        del container[index]

    # Text

    def to_text(self, value: Any, convert: Callable[[Any], str] = str) -> str:
        """``str`` or ``repr``."""
        if type(value) is Lazy:
            raise UnsafeOperationError("the text of an iterator")
        self.budget.weigh(value)
        return convert(value)

    def format(self, value: Any, spec: str = "", conversion: str | None = None) -> str:
        """One replacement field of an f-string or ``str.format``."""
        if conversion:
            value = self.to_text(value, _CONVERSIONS[conversion])
        if not spec:
            return self.to_text(value)
        if re.search(rf"\d{{{MAX_FORMAT_DIGITS + 1}}}", spec):
            raise LimitError(f"the width or precision in the format {spec!r} has too many digits")
        if type(value) not in DATA_TYPES:
            raise UnsafeOperationError(f"formatting {describe(value)}")
        self.budget.weigh(value)
        text = format(value, spec)
        self.budget.spend_text(len(text))
        return text

    def percent_format(self, template: Any, values: Any) -> str:
        """``'%d of %d' % values``, one field at a time so that its size is known."""
        if type(template) is not str:
            raise UnsafeOperationError("% formatting of bytes")
        named = values if type(values) is dict else None
        positional = list(values) if type(values) is tuple else [values]
        parts, end, used = [], 0, 0
        for match in _PERCENT.finditer(template):
            parts.append(_plain(template[end : match.start()]))
            end = match.end()
            if re.search(rf"\*|\d{{{MAX_FORMAT_DIGITS + 1}}}", match["size"]):
                raise LimitError(f"the width or precision of {match[0]!r} is not allowed here")
            if match["type"] == "%":
                parts.append(match[0] % {} if match["key"] is not None else match[0] % ())
            elif match["key"] is not None:
                if named is None:
                    raise TypeError("format requires a mapping")
                parts.append(
                    self._percent_field("%" + match[0][len(match["key"]) + 3 :], named[match["key"]])
                )
            else:
                if used >= len(positional):
                    raise TypeError("not enough arguments for format string")
                parts.append(self._percent_field(match[0], positional[used]))
                used += 1
        parts.append(_plain(template[end:]))
        if (
            used < len(positional)
            and named is None
            and not (type(values) in (list, range, bytes) and not used)
        ):
            raise TypeError("not all arguments converted during string formatting")
        return "".join(parts)

    def _percent_field(self, field: str, value: Any) -> str:
        if type(value) not in DATA_TYPES:
            raise UnsafeOperationError(f"formatting {describe(value)}")
        self.budget.weigh(value)
        text = field % (value,)
        self.budget.spend_text(len(text))
        return text


def raw_iterator(value: Any) -> Iterable[Any]:
    """Something native to iterate over. Not paid for: the one who consumes it pays."""
    if type(value) is Lazy:
        return value.iterator
    if type(value) in _ITERABLES:
        return value  # type: ignore[no-any-return]
    raise TypeError(f"{describe(value)} is not iterable")


def describe(value: Any) -> str:
    """What to call a value in an error message."""
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    if type(value) is Lazy:
        return "an iterator"
    if type(value) not in DATA_TYPES and callable(value):
        return f"{getattr(value, '__module__', None) or 'builtins'}.{getattr(value, '__qualname__', value)}"
    return f"a value of type {type(value).__name__}"


def _plain(text: str) -> str:
    """Text between two fields: a percent sign in it is a field that Python cannot read."""
    return text % () if "%" in text else text


_CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}
_NO_ITEMS: dict[Any, Any] = {}
_PERCENT = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<size>[-#0 +]*[*\d]*(?:\.[*\d]*)?)[hlL]?(?P<type>[a-zA-Z%])"
)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.MatMult: operator.matmul,
}
_IN_PLACE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.BitOr: operator.ior,
    ast.BitAnd: operator.iand,
    ast.BitXor: operator.ixor,
    ast.Sub: operator.isub,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
