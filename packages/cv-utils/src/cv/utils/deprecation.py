"""The one helper for arguments that were renamed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from cv.utils.errors import CvDeprecationWarning, UsageError

__all__ = ["deprecated_api_warning"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def deprecated_api_warning(
    name_dict: Mapping[str, str], cls_name: str | None = None
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator that accepts old argument names, with a warning, and passes them on by the new ones.

    Args:
        name_dict: New names by old ones.
        cls_name: Name of the class, if it is a method that is decorated; for the message.

    Returns:
        The decorator. The function it gives back raises :class:`UsageError` (an ``AssertionError``) if an
        argument is given by both names.

    Example:
        >>> @deprecated_api_warning({"num": "count"})
        ... def take(count):
        ...     return count
        >>> take(num=3)  # warns: "num" is deprecated in `take`, please use "count" instead
        3
    """

    def decorate(func: Callable[_P, _R]) -> Callable[_P, _R]:
        name = func.__name__ if cls_name is None else f"{cls_name}.{func.__name__}"

        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> _R:
            if kwargs and any(old in kwargs for old in name_dict):  # a form that torch.compile can trace
                kwargs = _rename(func, name, name_dict, args, kwargs)
            return func(*args, **kwargs)

        return call

    return decorate


def _rename(
    func: Callable[..., Any],
    name: str,
    name_dict: Mapping[str, str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    import inspect  # slow to import, seldom needed

    given = {*list(inspect.signature(func).parameters)[: len(args)], *kwargs}
    renamed = dict(kwargs)
    for old, new in name_dict.items():
        if old not in renamed:
            continue
        if new in given:
            raise UsageError(f"{name}: {old!r} is the deprecated name of {new!r}, but both were given")
        warnings.warn(
            f'"{old}" is deprecated in `{name}`, please use "{new}" instead',
            CvDeprecationWarning,
            stacklevel=3,
        )
        renamed[new] = renamed.pop(old)
        given.add(new)
    return renamed
