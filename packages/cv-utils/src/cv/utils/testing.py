"""Checks for tests. They return a bool, to be asserted: ``assert assert_keys_equal(...)``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv.utils import _torch

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "assert_attrs_equal",
    "assert_dict_contains_subset",
    "assert_dict_has_keys",
    "assert_is_norm_layer",
    "assert_keys_equal",
    "assert_params_all_zeros",
    "check_python_script",
]


def check_python_script(cmd: str) -> None:
    """Run a Python script in this process, so that coverage tools see it.

    Args:
        cmd: The command line: ``"./hello.py zz"`` or ``"python hello.py zz"``.

    Raises:
        BaseException: What the script raises, ``SystemExit`` included.
    """
    import runpy
    import shlex

    args = shlex.split(cmd)
    if args and args[0] == "python":
        args = args[1:]
    argv, path = sys.argv, sys.path
    sys.argv = args
    sys.path = [str(Path(args[0]).resolve().parent), *path]  # as the interpreter does for a script
    try:
        runpy.run_path(args[0], run_name="__main__")
    finally:
        sys.argv, sys.path = argv, path


def assert_dict_contains_subset(dict_obj: Mapping[Any, Any], expected_subset: Mapping[Any, Any]) -> bool:
    """Whether a dict has all keys of another with equal values (arrays: of equal shape and elements)."""
    return all(key in dict_obj and _equal(dict_obj[key], value) for key, value in expected_subset.items())


def assert_attrs_equal(obj: Any, expected_attrs: Mapping[str, Any]) -> bool:
    """Whether an object has all these attributes with equal values."""
    return all(
        hasattr(obj, name) and _equal(getattr(obj, name), value) for name, value in expected_attrs.items()
    )


def assert_dict_has_keys(obj: Mapping[str, Any], expected_keys: Iterable[str]) -> bool:
    """Whether a dict has all these keys."""
    return set(expected_keys).issubset(obj)


def assert_keys_equal(result_keys: Iterable[str], target_keys: Iterable[str]) -> bool:
    """Whether these are the same keys, in any order."""
    return set(result_keys) == set(target_keys)


def assert_is_norm_layer(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: batch, instance, group, layer or RMS norm.

    Raises:
        ImportError: torch is not installed.
    """
    nn = _torch.import_torch("assert_is_norm_layer", "torch.nn")
    bases = [
        nn.modules.batchnorm._BatchNorm,
        nn.modules.instancenorm._InstanceNorm,
        nn.GroupNorm,
        nn.LayerNorm,
    ]
    bases += [nn.RMSNorm] if hasattr(nn, "RMSNorm") else []  # since torch 2.4
    return isinstance(module, tuple(bases))


def assert_params_all_zeros(module: nn.Module) -> bool:
    """Whether all parameters of a module, and of those inside it, are zero."""
    return not any(bool(parameter.any()) for parameter in module.parameters())


def _equal(a: Any, b: Any) -> bool:
    if hasattr(a, "shape") or hasattr(b, "shape"):  # arrays and tensors compare by element
        if getattr(a, "shape", None) != getattr(b, "shape", None):
            return False
        return bool((a == b).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, Sequence):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
