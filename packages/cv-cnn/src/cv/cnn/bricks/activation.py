"""Activation layers by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activation

from cv.cnn.bricks.registry import ACTIVATION_LAYERS
from cv.utils import build_from_cfg

__all__ = ["Clamp", "build_activation_layer"]

for _name in torch_activation.__all__:
    if _name != "MultiheadAttention":  # a block with three inputs
        ACTIVATION_LAYERS.register_module(module=getattr(torch_activation, _name))


@ACTIVATION_LAYERS.register_module(name=["Clamp", "Clip"])
class Clamp(nn.Module):
    """Clamp the input to ``[min, max]``.

    Args:
        min: Lower bound.
        max: Upper bound.
    """

    def __init__(self, min: float = -1.0, max: float = 1.0) -> None:  # noqa: A002  (documented names)
        super().__init__()
        self.min = min
        self.max = max

    def forward(self, x: Tensor) -> Tensor:
        """Clamp a tensor of any shape."""
        return torch.clamp(x, min=self.min, max=self.max)

    def extra_repr(self) -> str:
        return f"min={self.min}, max={self.max}"


def build_activation_layer(cfg: dict[str, Any]) -> nn.Module:
    """Build an activation layer.

    Args:
        cfg: Config dict: ``type`` (every activation of torch by class name, ``Clamp``/``Clip``, ``HSigmoid``,
            ``HSwish``, ``Swish``) and the arguments of the layer. It is not changed.

    Returns:
        The layer.

    Raises:
        TypeError: ``cfg`` is not a dict.
        KeyError: Missing or unknown type.
    """
    layer: nn.Module = build_from_cfg(cfg, ACTIVATION_LAYERS)
    return layer
