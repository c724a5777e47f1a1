"""Swish."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.registry import ACTIVATION_LAYERS

__all__ = ["Swish"]


@ACTIVATION_LAYERS.register_module()
class Swish(nn.Module):
    """Swish, ``x * sigmoid(x)`` (Ramachandran et al., Searching for activation functions, 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to a tensor of any shape."""
        return F.silu(x)
