"""Importing modules by name, and questions about methods."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from cv.utils.errors import UsageError

__all__ = ["has_method", "import_modules_from_strings", "is_method_overridden"]


def import_modules_from_strings(
    imports: str | list[str] | None, allow_failed_imports: bool = False
) -> ModuleType | list[ModuleType | None] | None:
    """Import modules by their names.

    Args:
        imports: The name, or a list of names.
        allow_failed_imports: Warn and give None for a module that cannot be imported, instead of raising.

    Returns:
        The module for a str, the modules for a list, None for nothing.

    Raises:
        TypeError: ``imports`` is not a str or a list of str.
        ImportError: A module cannot be imported.

    Example:
        >>> path, sys = import_modules_from_strings(["os.path", "sys"])
    """
    if not imports:
        return None
    names = [imports] if isinstance(imports, str) else imports
    if not isinstance(names, list):
        raise TypeError(f"custom_imports must be a list but got type {type(imports)}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{name} is of type {type(name)} and cannot be imported.")
    modules = [_import(name, allow_failed_imports) for name in names]
    return modules[0] if isinstance(imports, str) else modules


def has_method(obj: object, method: str) -> bool:
    """Whether an object has a method of this name."""
    return callable(getattr(obj, method, None))


def is_method_overridden(method: str, base_class: type, derived_class: type | object) -> bool:
    """Whether a class, or the class of an object, has its own version of a method of its base class.

    Args:
        method: Name of the method.
        base_class: The base class.
        derived_class: The derived class or an object of it.

    Raises:
        UsageError: ``base_class`` is not a class.
        AttributeError: The base class has no such method.
    """
    if not isinstance(base_class, type):
        raise UsageError(f"base_class must be a class, not an instance, got {base_class!r}")
    derived = derived_class if isinstance(derived_class, type) else type(derived_class)
    # A class method is a new object at each look, bound to its class: compare the functions.
    base_method = getattr(base_class, method)
    derived_method = getattr(derived, method)
    return getattr(derived_method, "__func__", derived_method) is not getattr(
        base_method, "__func__", base_method
    )


def _import(name: str, may_fail: bool) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not may_fail:
            raise ImportError(f"Failed to import {name}: {error}") from error
        warnings.warn(f"{name} failed to import and is ignored: {error}", UserWarning, stacklevel=3)
        return None
