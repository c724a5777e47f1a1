"""Merging one config into another: how a child file changes its bases, and how options change a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["merge", "nest_options"]

DELETE_KEY = "_delete_"


def merge(
    child: Mapping[Any, Any],
    base: Any,
    allow_list_keys: bool = False,
    *,
    path: str = "",
) -> Any:
    """Merge ``child`` into a copy of ``base``; neither is changed.

    A dict is merged key by key into the dict of the same name, anything else replaces what was there. A dict
    with ``_delete_=True`` replaces instead of merging; the key itself never reaches the result.

    Args:
        child: The values that win.
        base: A dict, or, where ``allow_list_keys`` is set, a list or tuple whose elements the child names by
            index (``{'0': …}``).
        allow_list_keys: Whether keys like ``'0'`` may stand for elements of lists and tuples.
        path: The dotted name of the place, for messages.

    Raises:
        KeyError: An index past the end of a list.
        TypeError: A dict that meets something which is not a dict.
    """
    if allow_list_keys and isinstance(base, (list, tuple)):
        return _merge_into_sequence(child, base, path)
    merged = {} if child.get(DELETE_KEY) else dict(base)
    for key, value in child.items():
        if key == DELETE_KEY:
            continue
        if isinstance(value, dict) and key in merged:
            merged[key] = _merge_value(value, merged[key], allow_list_keys, _join(path, key))
        else:
            merged[key] = _without_delete_key(value)
    return merged


def nest_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts: ``{'a.b': 1}`` becomes ``{'a': {'b': 1}}``.

    Raises:
        TypeError: A key that is not a str.
        KeyError: An option below another one that is not a dict (``a=1`` and ``a.b=2``).
    """
    nested: dict[str, Any] = {}
    for full_key, value in options.items():
        if not isinstance(full_key, str):
            raise TypeError(f"options must have str keys, got {full_key!r}")
        *parents, last = full_key.split(".")
        place = nested
        for parent in parents:
            child = place.get(parent)
            # A copy: the dict may be the caller's own value for that key.
            child = dict(child) if isinstance(child, dict) else child
            if child is None:
                child = {}
            elif not isinstance(child, dict):
                raise KeyError(f"option {full_key!r} lies below {parent!r}, which is set to {child!r}")
            place[parent] = child
            place = child
        place[last] = value
    return nested


def _merge_into_sequence(child: Mapping[Any, Any], base: Any, path: str) -> Any:
    merged = list(base)
    for key, value in child.items():
        if not (isinstance(key, str) and key.isdecimal()):
            raise TypeError(
                f"{path or 'the value'} is a {type(base).__name__}: its elements are set by index, "
                f"like {_join(path, '0')!r}, got {key!r}"
            )
        index = int(key)
        if index >= len(merged):
            raise KeyError(
                f"index {index} of {_join(path, key)!r} exceeds the length {len(merged)} of the list"
            )
        if isinstance(value, dict):
            merged[index] = _merge_value(value, merged[index], True, _join(path, key))
        else:
            merged[index] = value
    return type(base)(merged) if type(base) in (list, tuple) else merged


def _merge_value(value: dict[Any, Any], base: Any, allow_list_keys: bool, path: str) -> Any:
    if value.get(DELETE_KEY):
        return _without_delete_key(value)
    if isinstance(base, dict) or (allow_list_keys and isinstance(base, (list, tuple))):
        return merge(value, base, allow_list_keys, path=path)
    raise TypeError(
        f"{path} is a dict here but a {type(base).__name__} in the config it is merged into. "
        f"Set {DELETE_KEY}=True in the dict to replace the old value"
    )


def _without_delete_key(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_delete_key(item) for key, item in value.items() if key != DELETE_KEY}
    if type(value) is list or type(value) is tuple:
        return type(value)([_without_delete_key(item) for item in value])
    return value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
