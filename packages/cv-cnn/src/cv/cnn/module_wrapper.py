"""Modules that wrap another one for parallel training."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cv.utils import Registry

__all__ = ["MODULE_WRAPPERS", "is_module_wrapper", "unwrap"]

MODULE_WRAPPERS = Registry("module wrapper")
MODULE_WRAPPERS.register_module(module=DataParallel)
MODULE_WRAPPERS.register_module(module=DistributedDataParallel)


def is_module_wrapper(module: nn.Module) -> bool:
    """Whether a module only wraps another, its attribute ``module``: its class is in ``MODULE_WRAPPERS``.

    Child registries, where other code bases register theirs, count too.
    """
    registries = (MODULE_WRAPPERS, *MODULE_WRAPPERS.children.values())
    return any(isinstance(module, tuple(registry.module_dict.values())) for registry in registries)


def unwrap(module: nn.Module) -> nn.Module:
    """The model inside any number of wrappers."""
    while is_module_wrapper(module):
        module = module.module  # type: ignore[assignment] # every registered wrapper has it
    return module
