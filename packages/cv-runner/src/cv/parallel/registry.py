"""Modules that wrap another one for parallel training.

The registry itself is in cv-cnn: loading a checkpoint must see through the wrappers that users register.
"""

from __future__ import annotations

from torch import nn

from cv.cnn.module_wrapper import MODULE_WRAPPERS, is_module_wrapper

__all__ = ["MODULE_WRAPPERS", "is_module_wrapper", "unwrap"]


def unwrap(module: nn.Module) -> nn.Module:
    """The model inside any number of wrappers."""
    while is_module_wrapper(module):
        module = module.module  # type: ignore[assignment] # every registered wrapper has it
    return module
