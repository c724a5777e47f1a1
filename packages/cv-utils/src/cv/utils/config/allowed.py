"""The allow-list: which functions, methods and modules a config that is not executed may use.

Everything is looked up by the *object* that an expression gave, never by how it was spelled: functions by
identity, methods by the exact type of what they are called on, module members by the module.
"""

from __future__ import annotations

import copy
import math
import os
import os.path
from types import ModuleType
from typing import Any

from .handlers import BUILTIN_HANDLERS, Handler, copy_deep, copy_shallow, fsum, prod, pure
from .methods import CLASS_METHODS, METHODS

__all__ = ["BUILTINS", "CLASS_METHODS", "FUNCTIONS", "METHODS", "MODULES", "MODULE_MEMBERS"]

#: Names that a config finds without importing anything.
BUILTINS: dict[str, Any] = {function.__name__: function for function in BUILTIN_HANDLERS}

_MATH_EXCLUDED = {"comb", "factorial", "lcm", "perm", "sumprod"}  # their results grow without bound
_PATH_FUNCTIONS = (
    "abspath", "basename", "commonprefix", "dirname", "expanduser", "isabs", "join", "normcase", "normpath",
    "relpath", "split", "splitdrive", "splitext",
)  # fmt: skip
_PATH_CONSTANTS = ("altsep", "curdir", "extsep", "pardir", "sep")


#: Modules that a config may import, by name.
MODULES: dict[str, ModuleType] = {"math": math, "os": os, "os.path": os.path, "copy": copy}

#: What they offer: ``id(module)`` to name to object.
MODULE_MEMBERS: dict[int, dict[str, Any]] = {
    id(math): {
        name: member
        for name, member in vars(math).items()
        if not name.startswith("_") and name not in _MATH_EXCLUDED
    },
    id(os): {"path": os.path, **{name: getattr(os, name) for name in _PATH_CONSTANTS}},
    id(os.path): {name: getattr(os.path, name) for name in (*_PATH_FUNCTIONS, *_PATH_CONSTANTS)},
    id(copy): {"copy": copy.copy, "deepcopy": copy.deepcopy},
}

#: Everything that may be called: ``id(function)`` to its handler.
FUNCTIONS: dict[int, Handler] = {
    **{id(function): handler for function, handler in BUILTIN_HANDLERS.items()},
    **{
        id(member): pure(member)
        for members in MODULE_MEMBERS.values()
        for member in members.values()
        if callable(member)
    },
    id(math.prod): prod,
    id(math.fsum): fsum,
    id(copy.copy): copy_shallow,
    id(copy.deepcopy): copy_deep,
}
