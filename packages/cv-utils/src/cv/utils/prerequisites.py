"""Decorators for functions that need a package or a program which may be missing."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

__all__ = ["MissingPrerequisiteError", "check_prerequisites", "requires_executable", "requires_package"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class MissingPrerequisiteError(RuntimeError, ImportError):
    """Something that a function needs is not installed."""


def check_prerequisites(
    prerequisites: str | Sequence[str],
    checker: Callable[[str], bool],
    msg_tmpl: str = (
        'Prerequisites "{}" are required in method "{}" but not found, please install them first.'
    ),
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator that checks, before each call, that everything is there.

    Args:
        prerequisites: What is needed.
        checker: Tells whether one of them is there.
        msg_tmpl: The message, with ``{}`` for what is missing and ``{}`` for the function.

    Returns:
        The decorator. The function it gives back prints the message and raises
        :class:`MissingPrerequisiteError` (a ``RuntimeError``, and an ``ImportError``) if anything is missing.
    """
    needed = [prerequisites] if isinstance(prerequisites, str) else list(prerequisites)

    def decorate(func: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(func)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            missing = [item for item in needed if not checker(item)]
            if missing:
                message = msg_tmpl.format(", ".join(missing), func.__name__)
                print(message)  # noqa: T201  (documented)
                raise MissingPrerequisiteError(message)
            return func(*args, **kwargs)

        return call

    return decorate


def requires_package(prerequisites: str | Sequence[str]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator that checks, before each call, that Python packages can be imported.

    Args:
        prerequisites: The package, or several.

    Example:
        >>> @requires_package(["json", "no_such_package"])
        ... def read(): ...
        >>> read()
        Traceback (most recent call last):
        MissingPrerequisiteError: Prerequisites "no_such_package" are required in method "read" but not ...
    """
    return check_prerequisites(prerequisites, checker=_can_import)


def requires_executable(
    prerequisites: str | Sequence[str],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator that checks, before each call, that programs are on the ``PATH``.

    Args:
        prerequisites: The program (``"ffmpeg"``), or several.
    """
    return check_prerequisites(prerequisites, checker=_is_on_path)


def _can_import(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _is_on_path(program: str) -> bool:
    import shutil

    return shutil.which(program) is not None
