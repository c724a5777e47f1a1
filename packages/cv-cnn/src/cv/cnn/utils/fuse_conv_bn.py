"""Fold batch norms into the convolutions before them, for inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from cv.cnn.bricks.conv_module import ConvModule
from cv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d

__all__ = ["fuse_conv_bn"]


def fuse_conv_bn(module: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution into it, and put ``nn.Identity`` in its place.

    In evaluation mode a batch norm is the affine map ``y = (x - mean) · γ / √(var + ε) + β`` per channel,
    which the convolution's weight and bias can do as well.

    A norm counts as following a convolution if it is the next child of the same parent and has as many
    channels; in a :class:`ConvModule` its ``order`` counts. Left alone are norms without running statistics,
    transposed convolutions, and convolutions whose weight is computed (weight standardisation, spectral norm
    and other parametrisations). A convolution that several parents share is copied first.

    Args:
        module: The module; it is changed in place.

    Returns:
        The module.
    """
    previous: tuple[str, nn.Module] | None = None
    for name, child in module.named_children():
        if previous is not None and _can_fuse(module, previous[1], child):
            module._modules[previous[0]] = _fuse(previous[1], child)
            module._modules[name] = nn.Identity()
            previous = None
            continue
        previous = (name, child)
        fuse_conv_bn(child)
    return module


def _can_fuse(parent: nn.Module, conv: nn.Module, norm: nn.Module) -> bool:
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return False
    if not isinstance(conv, _ConvNd) or isinstance(conv, (_ConvTransposeNd, ConvWS2d, ConvAWS2d)):
        return False
    if "weight" not in conv._parameters or conv.out_channels != norm.num_features:
        return False
    if isinstance(parent, ConvModule):
        parts = [part for part in parent.order if part != "act" or parent.with_activation]
        return parts.index("norm") == parts.index("conv") + 1
    return True


def _fuse(conv: Any, norm: Any) -> nn.Module:
    fused: Any = copy.deepcopy(conv)
    with torch.no_grad():
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            factor = factor * norm.weight
        shift = -norm.running_mean * factor
        if conv.bias is not None:
            shift = shift + conv.bias * factor
        if norm.bias is not None:
            shift = shift + norm.bias
        weight = conv.weight * factor.view(-1, *(1 for _ in conv.weight.shape[1:]))
    fused.weight = nn.Parameter(weight.to(conv.weight.dtype))
    fused.bias = nn.Parameter(shift.to(conv.weight.dtype))
    return fused  # type: ignore[no-any-return]
