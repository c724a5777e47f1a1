"""Handlers of the functions that a config may call.

A handler pays for the work before it does it: ``(caller, args, kwargs) -> value``. The native functions are
called with plain values only; what is guarded against here is size, and arguments that reach further.
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable
from typing import Any, Protocol

from .budget import LimitError
from .operations import DATA_TYPES, NUMBERS, Lazy, Operations, UnsafeOperationError, describe, raw_iterator

__all__ = [
    "BUILTIN_HANDLERS",
    "Caller",
    "Handler",
    "bind",
    "copy_deep",
    "copy_shallow",
    "fsum",
    "key_set",
    "prod",
    "pure",
    "sort",
    "update_dict",
]


class Caller(Protocol):
    """What a handler needs from the evaluator."""

    ops: Operations

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any: ...

    def globals(self) -> dict[str, Any]: ...


Handler = Callable[[Caller, list[Any], dict[str, Any]], Any]

MAX_DIGITS = 1000  # of a number written as text; also of round()


def pure(function: Callable[..., Any]) -> Handler:
    """A function of scalars and strings whose result is about as large as its arguments."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        for value in (*args, *kwargs.values()):
            caller.ops.budget.weigh(value)
        return caller.ops.budget.check_int(function(*args, **kwargs))

    return handler


def _len(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> int:
    return len(*args, **kwargs)


def _collecting(kind: Callable[..., Any]) -> Handler:
    """``list`` and ``tuple``."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return kind(*(caller.ops.collect(value) for value in args), **kwargs)

    return handler


def _hashing(kind: Callable[..., Any]) -> Handler:
    """``set`` and ``frozenset``."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return kind(*(key_set(caller.ops, value) for value in args), **kwargs)

    return handler


def key_set(ops: Operations, values: Any) -> set[Any]:
    result: set[Any] = set()
    for value in ops.iterate(values):
        result.add(ops.check_key(value, result))
    return result


def _dict(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> dict[Any, Any]:
    if len(args) > 1:
        raise TypeError(f"dict expected at most 1 argument, got {len(args)}")
    result: dict[Any, Any] = {}
    if args:
        update_dict(caller.ops, result, args[0])
    result.update(kwargs)
    return result


def update_dict(ops: Operations, target: dict[Any, Any], source: Any) -> None:
    if type(source) is dict:
        ops.budget.spend(1 + 2 * len(source))
        target.update(source)
        return
    for pair in ops.iterate(source):
        key, value = ops.collect(pair)
        target[ops.check_key(key, target)] = value


def _sum(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    ops = caller.ops
    values, start = bind(args, kwargs, "iterable", start=0)
    if isinstance(start, (str, bytes)):
        raise TypeError("sum() can't sum strings")
    items = ops.collect(values)
    if type(start) in NUMBERS and all(type(item) in NUMBERS for item in items):
        return ops.budget.check_int(sum(items, start))
    for item in items:
        start = ops.binary(ast.Add, start, item)
    return start


def prod(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    (values,) = args
    start = kwargs.pop("start", 1)
    if kwargs:
        raise TypeError("prod() takes an iterable and start")
    for item in caller.ops.collect(values):
        start = caller.ops.binary(ast.Mult, start, item)
    return start


def _extreme(function: Callable[..., Any]) -> Handler:
    """``min`` and ``max``."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        args = [caller.ops.collect(args[0])] if len(args) == 1 else args
        caller.ops.budget.weigh(args)
        return function(*args, **_with_key(caller, kwargs))

    return handler


def _sorted(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    (values,) = args
    items = caller.ops.collect(values)
    sort(caller, [items], kwargs)
    return items


def sort(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> None:
    (items,) = args
    for _ in range(len(items).bit_length()):
        caller.ops.budget.weigh(items)
    items.sort(**_with_key(caller, kwargs))


def _with_key(caller: Caller, kwargs: dict[str, Any]) -> dict[str, Any]:
    key = kwargs.get("key")
    if key is None:
        return kwargs

    def call_key(item: Any) -> Any:
        value = caller.call(key, [item], {})
        caller.ops.budget.weigh(value)
        return value

    return {**kwargs, "key": call_key}


def _any(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> bool:
    (values,) = args
    return any(caller.ops.iterate(values), **kwargs)


def _all(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> bool:
    (values,) = args
    return all(caller.ops.iterate(values), **kwargs)


def fsum(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> float:
    (values,) = args
    return math.fsum(caller.ops.collect(values), **kwargs)


def _lazy(function: Callable[..., Any]) -> Handler:
    """``zip``, ``enumerate``, ``reversed``: iterators over other iterables."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Lazy:
        sources = [value.iterator if type(value) is Lazy else value for value in args]
        return Lazy(iter(function(*sources, **kwargs)), *args)

    return handler


def _map(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Lazy:
    function, *iterables = args
    if not iterables or kwargs:
        raise TypeError("map() must have at least two arguments.")
    sources = [iter(raw_iterator(value)) for value in iterables]
    return Lazy((caller.call(function, list(items), {}) for items in zip(*sources, strict=False)), *iterables)


def _filter(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Lazy:
    function, iterable = args
    if kwargs:
        raise TypeError("filter() takes no keyword arguments")
    raw_iterator(iterable)
    items = caller.ops.iterate(iterable)
    return Lazy(
        (item for item in items if (item if function is None else caller.call(function, [item], {}))),
        iterable,
    )


def _integer(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> int:
    if args and type(args[0]) in (str, bytes) and len(args[0]) > MAX_DIGITS:
        raise LimitError(f"an integer is written with more than {MAX_DIGITS} digits")
    return pure(int)(caller, args, kwargs)  # type: ignore[no-any-return]


def _round(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    number, ndigits = bind(args, kwargs, "number", ndigits=None)
    if type(ndigits) is int and abs(ndigits) > MAX_DIGITS:
        raise LimitError(f"round() to more than {MAX_DIGITS} digits")
    return round(number, ndigits)


def _power(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    base, exponent, modulus = bind(args, kwargs, "base", "exp", mod=None)
    return caller.ops.power(base, exponent, modulus)


def _text(convert: Callable[..., str]) -> Handler:
    """``str``, ``repr``, ``ascii`` of one value: ``str(bytes, encoding)`` would import codecs by name."""

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
        if convert is str and not args and not kwargs:
            return ""
        if len(args) != 1 or kwargs:
            raise UnsafeOperationError(f"{convert.__name__}() with anything but one argument")
        return caller.ops.to_text(args[0], convert)

    return handler


def _format(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
    value, spec = bind(args, kwargs, "value", format_spec="")
    return caller.ops.format(value, spec)


def copy_deep(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    (value,) = args
    if kwargs or (type(value) not in DATA_TYPES):
        raise UnsafeOperationError(f"copy.deepcopy of {describe(value)}")
    caller.ops.budget.weigh(value)
    return copy.deepcopy(value)


def copy_shallow(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    (value,) = args
    if kwargs or (type(value) not in DATA_TYPES):
        raise UnsafeOperationError(f"copy.copy of {describe(value)}")
    if hasattr(value, "__len__"):
        caller.ops.budget.spend(1 + 2 * len(value))
    return copy.copy(value)


def _globals(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The config's own variables: how ``pretty_text`` writes keys that are no Python names."""
    if args or kwargs:
        raise TypeError("globals() takes no arguments")
    return caller.globals()


def bind(args: list[Any], kwargs: dict[str, Any], *required: str, **optional: Any) -> list[Any]:
    """Arguments by position or name, as a Python function would take them."""
    names = [*required, *optional]
    if len(args) > len(names):
        raise TypeError(f"expected at most {len(names)} arguments, got {len(args)}")
    bound = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names or name in bound:
            raise TypeError(f"unexpected keyword argument {name!r}")
        bound[name] = value
    missing = [name for name in required if name not in bound]
    if missing:
        raise TypeError(f"missing argument {missing[0]!r}")
    return [bound.get(name, optional.get(name)) for name in names]


BUILTIN_HANDLERS: dict[Any, Handler] = {
    **{
        function: pure(function)
        for function in (abs, bin, bool, chr, complex, divmod, float, hex, isinstance, oct, ord, range, slice)
    },
    len: _len,
    dict: _dict,
    list: _collecting(list),
    tuple: _collecting(tuple),
    set: _hashing(set),
    frozenset: _hashing(frozenset),
    int: _integer,
    str: _text(str),
    repr: _text(repr),
    ascii: _text(ascii),
    format: _format,
    sum: _sum,
    min: _extreme(min),
    max: _extreme(max),
    sorted: _sorted,
    any: _any,
    all: _all,
    zip: _lazy(zip),
    enumerate: _lazy(enumerate),
    reversed: _lazy(reversed),
    map: _map,
    filter: _filter,
    round: _round,
    pow: _power,
    globals: _globals,
}
