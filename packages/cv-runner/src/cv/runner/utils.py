"""Seeds, host names, time stamps, and objects from dicts."""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from getpass import getuser
from types import ModuleType
from typing import Any

import numpy as np
import torch

from cv.utils.dist import get_dist_info


def get_host_info() -> str:
    """``user@host`` of this process; empty parts where the system does not tell."""
    try:
        return f"{getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container without an entry for the user id
        return f"{os.getuid() if hasattr(os, 'getuid') else ''}@{socket.gethostname()}"


def get_time_str() -> str:
    """Now, as ``YYYYmmdd_HHMMSS`` in local time."""
    return time.strftime("%Y%m%d_%H%M%S", time.localtime())


def obj_from_dict(
    info: dict[str, Any],
    parent: ModuleType | None = None,
    default_args: dict[str, Any] | None = None,
) -> Any:
    """Build an object from a dict that names its class.

    Args:
        info: ``type`` is a class or its name; the rest are the arguments. It is not changed.
        parent: the module to look names up in; without it, a dotted path in an imported module.
        default_args: arguments used where ``info`` has none.

    Returns:
        The object.

    Raises:
        AssertionError: ``info`` is no dict with a ``type``, or ``default_args`` is no dict.
        TypeError: ``type`` is neither a str nor a class.
    """
    _check_info(info)
    if default_args is not None and not isinstance(default_args, dict):
        raise AssertionError(f"default_args must be a dict or None, got {type(default_args).__name__}")
    args = {**(default_args or {}), **info}
    kind = args.pop("type")
    if isinstance(kind, str):
        kind = getattr(parent, kind) if parent is not None else _imported(kind)
    elif not isinstance(kind, type):
        raise TypeError(f"type must be a str or a class, got {type(kind).__name__}")
    return kind(**args)


def _check_info(info: object) -> None:
    if not isinstance(info, dict) or "type" not in info:
        raise AssertionError(f"info must be a dict with the key 'type', got {info!r}")


def _imported(path: str) -> Any:
    """What a name stands for: a built-in, or something in a module that is imported already."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules[module or "builtins"], name)


def set_random_seed(seed: int, deterministic: bool = False, use_rank_shift: bool = False) -> None:
    """Seed the generators of Python, numpy, torch and all CUDA devices, and ``PYTHONHASHSEED``.

    Args:
        seed: the seed.
        deterministic: let cuDNN use deterministic algorithms only, and not search for the fastest.
        use_rank_shift: add the rank, so that every process of a distributed job draws other numbers.
    """
    if use_rank_shift:
        seed += get_dist_info()[0]
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - users' transforms draw from the global generator
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
