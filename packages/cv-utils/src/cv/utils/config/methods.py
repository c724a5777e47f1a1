"""Handlers of the methods that a config may call: the object is their first argument."""

from __future__ import annotations

import string
from typing import Any

from .handlers import Caller, Handler, bind, key_set, sort, update_dict
from .operations import UnsafeOperationError

__all__ = ["CLASS_METHODS", "METHODS"]


def _method(kind: type, name: str, cost: int = 1) -> Handler:
    """A native method whose work and result are at most about ``cost`` times object and arguments."""
    function = getattr(kind, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        budget = caller.ops.budget
        for _ in range(cost):
            for value in (*args, *kwargs.values()):
                budget.weigh(value)
        return function(*args, **kwargs)

    return handler


def _quick_method(kind: type, name: str) -> Handler:
    """A native method that takes the same time however large the object is."""
    function = getattr(kind, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    return handler


def _shallow_method(kind: type, name: str) -> Handler:
    """A native method that goes once over the object, without looking into its elements."""
    function = getattr(kind, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        caller.ops.budget.spend(1 + 2 * len(args[0]))
        return function(*args, **kwargs)

    return handler


def _keyed_method(kind: type, name: str) -> Handler:
    """A native method that looks up, or adds, its first argument as a key."""
    function = getattr(kind, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if len(args) > 1:
            caller.ops.check_key(args[1], args[0])
        return function(*args, **kwargs)

    return handler


def _str_join(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
    separator, values = args
    items = caller.ops.collect(values)
    length = sum(len(item) for item in items if type(item) is str)
    caller.ops.budget.spend_text(length + len(separator) * len(items))
    return str.join(separator, items, **kwargs)


def _str_replace(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
    text, old, new = args[:3]
    if type(old) is str and type(new) is str:
        caller.ops.budget.spend_text(len(text) * 2 + text.count(old) * len(new))
    return str.replace(*args, **kwargs)


def _str_pad(name: str) -> Handler:
    """``ljust``, ``rjust``, ``center``, ``zfill``."""
    function = getattr(str, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        caller.ops.budget.spend_text(len(args[0]))
        if len(args) > 1 and type(args[1]) is int and args[1] > 0:
            caller.ops.budget.spend_text(args[1])
        return function(*args, **kwargs)

    return handler


def _str_expandtabs(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
    text, tabsize = bind(args, kwargs, "text", tabsize=8)
    if type(tabsize) is int and tabsize > 0:
        caller.ops.budget.spend_text(len(text) + text.count("\t") * tabsize)
    return str.expandtabs(text, tabsize)


def _str_format(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> str:
    """``str.format`` without its attribute and item lookups, which reach into the interpreter."""
    template, *positional = args
    caller.ops.budget.spend_text(len(template))
    parts: list[str] = []
    automatic, manual = 0, False
    for literal, field, spec, conversion in string.Formatter().parse(template):
        parts.append(literal)
        if field is None:
            continue
        if not (field == "" or field.isidentifier() or field.isdecimal()) or "{" in (spec or ""):
            raise UnsafeOperationError(f"the format field {{{field}{':' + spec if spec else ''}}}")
        if field.isidentifier():
            value = kwargs[field]
        elif field:
            manual = True
            value = positional[int(field)]
        else:
            automatic += 1
            value = positional[automatic - 1]
        if automatic and manual:
            raise ValueError("cannot switch between manual field specification and automatic field numbering")
        parts.append(caller.ops.format(value, spec or "", conversion))
    return "".join(parts)


def _list_extend(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> None:
    target, values = args
    list.extend(target, caller.ops.collect(values), **kwargs)


def _list_insert(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> None:
    caller.ops.budget.spend(len(args[0]) >> 3)
    list.insert(*args, **kwargs)


def _list_pop(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
    caller.ops.budget.spend(len(args[0]) >> 3 if len(args) > 1 else 0)
    return list.pop(*args, **kwargs)


def _dict_update(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> None:
    target, *sources = args
    if len(sources) > 1:
        raise TypeError(f"update expected at most 1 argument, got {len(sources)}")
    for source in sources:
        update_dict(caller.ops, target, source)
    target.update(kwargs)


def _set_operation(kind: type, name: str) -> Handler:
    """``union``, ``update``, ``issubset`` …: any number of iterables, made sets first."""
    function = getattr(kind, name)

    def handler(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target, *others = args
        caller.ops.budget.spend(1 + len(target))
        return function(target, *(key_set(caller.ops, other) for other in others), **kwargs)

    return handler


_STR_METHODS = (
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rindex",
    "rpartition", "rstrip", "startswith", "strip", "swapcase", "title", "upper",
)  # fmt: skip
_STR_SPLITS = ("split", "rsplit", "splitlines")
_SET_QUERIES = (
    "difference",
    "intersection",
    "isdisjoint",
    "issubset",
    "issuperset",
    "symmetric_difference",
    "union",
)
_SET_UPDATES = ("difference_update", "intersection_update", "symmetric_difference_update", "update")

#: What may be called on a value: exact type to method name to handler.
METHODS: dict[type, dict[str, Handler]] = {
    str: {
        **{name: _method(str, name) for name in _STR_METHODS},
        **{name: _method(str, name, cost=8) for name in _STR_SPLITS},
        **{name: _str_pad(name) for name in ("center", "ljust", "rjust", "zfill")},
        "expandtabs": _str_expandtabs,
        "format": _str_format,
        "join": _str_join,
        "replace": _str_replace,
    },
    list: {
        "append": _quick_method(list, "append"),
        "clear": _quick_method(list, "clear"),
        "copy": _shallow_method(list, "copy"),
        "count": _method(list, "count"),
        "extend": _list_extend,
        "index": _method(list, "index"),
        "insert": _list_insert,
        "pop": _list_pop,
        "remove": _method(list, "remove"),
        "reverse": _shallow_method(list, "reverse"),
        "sort": sort,
    },
    tuple: {"count": _method(tuple, "count"), "index": _method(tuple, "index")},
    dict: {
        "clear": _quick_method(dict, "clear"),
        "copy": _shallow_method(dict, "copy"),
        "get": _keyed_method(dict, "get"),
        "items": _quick_method(dict, "items"),
        "keys": _quick_method(dict, "keys"),
        "pop": _keyed_method(dict, "pop"),
        "popitem": _quick_method(dict, "popitem"),
        "setdefault": _keyed_method(dict, "setdefault"),
        "update": _dict_update,
        "values": _quick_method(dict, "values"),
    },
    set: {
        "add": _keyed_method(set, "add"),
        "clear": _quick_method(set, "clear"),
        "copy": _shallow_method(set, "copy"),
        "discard": _keyed_method(set, "discard"),
        "remove": _keyed_method(set, "remove"),
        **{name: _set_operation(set, name) for name in (*_SET_QUERIES, *_SET_UPDATES)},
    },
    frozenset: {
        "copy": _shallow_method(frozenset, "copy"),
        **{name: _set_operation(frozenset, name) for name in _SET_QUERIES},
    },
    int: {"bit_length": _quick_method(int, "bit_length")},
    float: {"is_integer": _quick_method(float, "is_integer")},
}


def _dict_fromkeys(caller: Caller, args: list[Any], kwargs: dict[str, Any]) -> dict[Any, Any]:
    keys, value = bind(args, kwargs, "iterable", value=None)
    result: dict[Any, Any] = {}
    for key in caller.ops.iterate(keys):
        result[caller.ops.check_key(key, result)] = value
    return result


#: Class methods: ``id(class)`` to method name to handler.
CLASS_METHODS: dict[int, dict[str, Handler]] = {id(dict): {"fromkeys": _dict_fromkeys}}
