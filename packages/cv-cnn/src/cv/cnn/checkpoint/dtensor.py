"""Tensors of which every rank holds a share (``DTensor``), told apart without importing their module."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

__all__ = ["is_sharded_tensor", "mesh_of", "shard_like"]


def is_sharded_tensor(value: object) -> bool:
    """Whether a value is a ``DTensor``."""
    module = sys.modules.get("torch.distributed.tensor")  # whoever has one has imported it
    kind = getattr(module, "DTensor", None)
    return kind is not None and isinstance(value, kind)


def mesh_of(module: nn.Module) -> Any:
    """The ``DeviceMesh`` that a module's parameters are sharded over; None where they are not."""
    for parameter in module.parameters():
        if is_sharded_tensor(parameter):
            return parameter.device_mesh  # type: ignore[attr-defined] # a DTensor
    return None


def shard_like(value: torch.Tensor, like: Any) -> torch.Tensor:
    """This rank's share of a tensor that all ranks hold, sharded as ``like`` is. Nothing is exchanged."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
