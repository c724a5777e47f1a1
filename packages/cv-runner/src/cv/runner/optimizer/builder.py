"""Build optimizers from config dicts."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cv.utils import Registry

OPTIMIZERS = Registry("optimizer", entry_point_group="cv.runner.optimizers")
OPTIMIZER_BUILDERS = Registry("optimizer builder")


def register_torch_optimizers() -> list[str]:
    """Register every optimizer of ``torch.optim`` under its class name; the names."""
    names = []
    for name, cls in vars(torch.optim).items():
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer:
            OPTIMIZERS.register_module(name, force=True, module=cls)
            names.append(name)
    return names


TORCH_OPTIMIZERS = register_torch_optimizers()


def build_optimizer_constructor(cfg: dict[str, Any]) -> Any:
    """The constructor that ``cfg['type']`` names in ``OPTIMIZER_BUILDERS``."""
    return OPTIMIZER_BUILDERS.build(cfg)


def build_optimizer(model: nn.Module, cfg: dict[str, Any]) -> Any:
    """Build an optimizer for a model.

    Args:
        model: its parameters are optimized.
        cfg: ``type`` is the optimizer's name, the rest its arguments; ``paramwise_cfg`` gives some
            parameters settings of their own (see :class:`DefaultOptimizerConstructor`), and
            ``constructor`` names who applies it. It is not changed.

    Returns:
        The optimizer.
    """
    optimizer_cfg = copy.deepcopy(cfg)
    constructor = build_optimizer_constructor(
        {
            "type": optimizer_cfg.pop("constructor", "DefaultOptimizerConstructor"),
            "paramwise_cfg": optimizer_cfg.pop("paramwise_cfg", None),
            "optimizer_cfg": optimizer_cfg,
        }
    )
    return constructor(model)
