"""``ConfigDict``: a dict whose keys are attributes too, at every depth."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

__all__ = ["SCALARS", "ConfigDict", "near_matches"]

#: The plain types that hold nothing else.
SCALARS = frozenset({str, int, float, bool, type(None)})


class ConfigDict(dict[Any, Any]):
    """A dict with attribute access at every depth.

    Dicts that are put in, also inside lists and tuples, become ``ConfigDict``. The constructor copies the
    containers it is given; setting an item keeps the object that was set, unless it holds plain dicts.
    A key that is also the name of a dict method (``items``, ``copy`` …) is reached as ``cfg['items']``.

    Example:
        >>> cfg = ConfigDict(model=dict(backbone=dict(depth=50)))
        >>> cfg.model.backbone.depth
        50

    Raises:
        KeyError: For ``cfg['missing']``; the text suggests similar keys.
        AttributeError: For ``cfg.missing``; the text suggests similar keys.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key, value in self.items():
            if type(value) not in SCALARS:
                super().__setitem__(key, _copy_in(value))

    # Attribute access

    def __getattr__(self, name: str) -> Any:
        # Only for names that normal lookup did not find. copy and pickle probe for dunder names.
        if name in self and name[:2] != "__":
            return self[name]
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{self._suggestion(name)}",
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is an attribute of dict; set the key with cfg[{name!r}] = ...")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        del self[name]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(key for key in self if isinstance(key, str) and key.isidentifier())]

    def __missing__(self, key: Any) -> Any:
        raise KeyError(f"{key!r}{self._suggestion(key)}" if isinstance(key, str) and self else key)

    def _suggestion(self, name: object) -> str:
        if not isinstance(name, str) or _is_dunder(name):
            return ""
        matches = near_matches(name, self)
        if matches:
            return f". Did you mean {' or '.join(map(repr, matches))}?"
        keys = ", ".join(repr(key) for key in list(self)[:10])
        return f"; the keys are {keys}{', ...' if len(self) > 10 else ''}" if keys else "; it is empty"

    # What puts values in

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value if type(value) in SCALARS else _convert(value))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __or__(self, other: Any) -> ConfigDict:
        if not isinstance(other, dict):
            return NotImplemented
        result = self.copy()
        result.update(other)
        return result

    def __ror__(self, other: Any) -> ConfigDict:
        if not isinstance(other, dict):
            return NotImplemented
        result = ConfigDict(other)
        result.update(self)
        return result

    def __ior__(self, other: Any) -> ConfigDict:
        self.update(other)
        return self

    # What takes values out

    def copy(self) -> ConfigDict:
        """A shallow copy, of the same type."""
        result = type(self)()
        dict.update(result, self)
        return result

    __copy__ = copy

    def deepcopy(self) -> ConfigDict:
        """The same as ``copy.deepcopy``."""
        import copy

        return copy.deepcopy(self)

    def to_dict(self) -> dict[Any, Any]:
        """A copy made of plain dicts, at every depth."""
        return {key: _copy_out(value) for key, value in self.items()}


def near_matches(name: str, known: Iterable[object], count: int = 3) -> list[str]:
    """The strings of ``known`` that ``name`` may be a slip for, best first."""
    import difflib

    return difflib.get_close_matches(name, [key for key in known if isinstance(key, str)], count)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _convert(value: Any) -> Any:
    """Turn the plain dicts in a value into ``ConfigDict``; what has none is returned as it is."""
    if isinstance(value, dict):
        return value if isinstance(value, ConfigDict) else ConfigDict(value)
    if type(value) is list or type(value) is tuple:
        items = [item if type(item) in SCALARS else _convert(item) for item in value]
        if any(map(operator.is_not, items, value)):
            return type(value)(items)
    return value


def _copy_in(value: Any) -> Any:
    """Like ``_convert``, with new containers at every depth."""
    if isinstance(value, dict):
        return type(value)(value) if isinstance(value, ConfigDict) else ConfigDict(value)
    if type(value) is list or type(value) is tuple:
        return type(value)([item if type(item) in SCALARS else _copy_in(item) for item in value])
    return value


def _copy_out(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy_out(item) for key, item in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)([_copy_out(item) for item in value])
    return value
