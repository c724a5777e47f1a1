"""Dropout of activations and of whole residual branches."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cv.cnn.bricks.registry import DROPOUT_LAYERS
from cv.utils import build_from_cfg

__all__ = ["DropPath", "Dropout", "build_dropout", "drop_path"]


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False) -> Tensor:
    """Zero whole samples of a batch at random (Huang et al., Deep networks with stochastic depth, 2016).

    Args:
        x: ``(N, ...)``.
        drop_prob: Probability that a sample is zeroed; the others are divided by one minus it.
        training: If not set, the input is returned.
    """
    if drop_prob == 0.0 or not training:
        return x
    keep = 1 - drop_prob
    mask = x.new_empty((x.shape[0], *(1 for _ in x.shape[1:]))).bernoulli_(keep)
    return x * (mask / keep if keep > 0 else mask)


@DROPOUT_LAYERS.register_module()
class DropPath(nn.Module):
    """Drop whole samples of the residual branch it is applied to: see :func:`drop_path`.

    Args:
        drop_prob: Probability that a sample is dropped.
    """

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to ``(N, ...)``."""
        return drop_path(x, self.drop_prob, self.training)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


@DROPOUT_LAYERS.register_module()
class Dropout(nn.Dropout):
    """``nn.Dropout`` whose argument has the name that :class:`DropPath` uses.

    Args:
        drop_prob: Probability that an element is zeroed.
        inplace: Overwrite the input.
    """

    def __init__(self, drop_prob: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p=drop_prob, inplace=inplace)


def build_dropout(cfg: dict[str, Any], default_args: dict[str, Any] | None = None) -> nn.Module:
    """Build a dropout layer (``Dropout`` or ``DropPath``) from its config."""
    layer: nn.Module = build_from_cfg(cfg, DROPOUT_LAYERS, default_args)
    return layer
