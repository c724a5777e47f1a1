"""Decorators which mmcv 1.x used to mark functions for another framework's compiler: they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["jit", "skip_no_elena"]

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def jit(
    func: None = None,
    check_input: Any = None,
    full_shape: bool = True,
    derivate: bool = False,
    coderize: bool = False,
    optimize: bool = False,
) -> Callable[[_F], _F]: ...
@overload
def jit(
    func: _F,
    check_input: Any = None,
    full_shape: bool = True,
    derivate: bool = False,
    coderize: bool = False,
    optimize: bool = False,
) -> _F: ...
def jit(
    func: Any = None,
    check_input: Any = None,
    full_shape: bool = True,
    derivate: bool = False,
    coderize: bool = False,
    optimize: bool = False,
) -> Any:
    """Give a function back as it is, used bare (``@jit``) or with options (``@jit(derivate=True)``).

    The options have no effect; use ``torch.compile`` to compile.
    """
    return (lambda function: function) if func is None else func


def skip_no_elena(func: _F) -> _F:
    """Give a test function back as it is."""
    return func
