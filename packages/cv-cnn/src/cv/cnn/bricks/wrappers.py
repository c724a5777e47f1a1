"""Convolution, pooling and linear layers that also accept inputs without elements.

Today's torch runs these layers on an empty batch, but refuses inputs that are empty in space, as a crop
outside the image leaves them. The layers here return an output of the right shape for both; it stays part of
the graph, so parameters get a gradient (zero) and distributed training does not wait for one that never
comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from cv.cnn.bricks.registry import CONV_LAYERS, UPSAMPLE_LAYERS
from cv.utils import TORCH_VERSION, to_ntuple

__all__ = [
    "TORCH_VERSION",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "MaxPool2d",
    "MaxPool3d",
    "NewEmptyTensorOp",
    "obsolete_torch_version",
]


def obsolete_torch_version(torch_version: Any, version_threshold: Any) -> bool:
    """Whether a version of torch is at or below a threshold (both as tuples, or ``"parrots"``)."""
    return bool(torch_version == "parrots" or torch_version <= version_threshold)


class NewEmptyTensorOp(Function):
    """Give an empty tensor another (empty) shape, and its gradient the old one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, new_shape: Sequence[int]) -> Tensor:
        """Return an empty tensor of the new shape."""
        ctx.shape = x.shape
        return x.new_empty(new_shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return an empty gradient of the old shape."""
        return NewEmptyTensorOp.apply(grad, ctx.shape), None  # type: ignore[no-untyped-call]


@CONV_LAYERS.register_module(name="Conv")
class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that accepts inputs without elements."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        empty = _empty_conv_output(self, x) if x.numel() == 0 else None
        return super().forward(x) if empty is None else empty


@CONV_LAYERS.register_module()
class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` that accepts inputs without elements."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, D, H, W)``."""
        empty = _empty_conv_output(self, x) if x.numel() == 0 else None
        return super().forward(x) if empty is None else empty


@CONV_LAYERS.register_module(name="deconv")
@UPSAMPLE_LAYERS.register_module(name="deconv")
class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that accepts inputs without elements."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        empty = _empty_deconv_output(self, x) if x.numel() == 0 and output_size is None else None
        return super().forward(x, output_size) if empty is None else empty


@CONV_LAYERS.register_module(name="deconv3d")
@UPSAMPLE_LAYERS.register_module(name="deconv3d")
class ConvTranspose3d(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` that accepts inputs without elements."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve ``(N, C, D, H, W)``."""
        empty = _empty_deconv_output(self, x) if x.numel() == 0 and output_size is None else None
        return super().forward(x, output_size) if empty is None else empty


class MaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d`` that accepts inputs without elements."""

    def forward(self, x: Tensor) -> Any:
        """Pool ``(N, C, H, W)``; with ``return_indices`` the result is the pair of values and indices."""
        empty = _empty_pool_output(self, x, 2) if x.numel() == 0 else None
        return super().forward(x) if empty is None else empty


class MaxPool3d(nn.MaxPool3d):
    """``nn.MaxPool3d`` that accepts inputs without elements."""

    def forward(self, x: Tensor) -> Any:
        """Pool ``(N, C, D, H, W)``; with ``return_indices`` the result is the pair of values and indices."""
        empty = _empty_pool_output(self, x, 3) if x.numel() == 0 else None
        return super().forward(x) if empty is None else empty


class Linear(nn.Linear):
    """``nn.Linear``; torch's own accepts inputs without elements, in any dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        return super().forward(x)


# In each of these, None means: leave it to torch. It knows empty batches, and says what is wrong where the
# kernel does not fit or where an output would have elements that come from no input.


def _empty_conv_output(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor | None:
    n = len(conv.kernel_size)
    sizes = x.shape[-n:]
    if 0 not in sizes:
        return None
    if conv.padding == "same":
        out = list(sizes)
    else:
        padding = (0,) * n if isinstance(conv.padding, str) else conv.padding
        out = [
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, p, d, k, s in zip(
                sizes, padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
            )
        ]
    return _empty(conv, x, (*x.shape[: -n - 1], conv.out_channels, *out))


def _empty_deconv_output(conv: nn.ConvTranspose2d | nn.ConvTranspose3d, x: Tensor) -> Tensor | None:
    n = len(conv.kernel_size)
    sizes = x.shape[-n:]
    if 0 not in sizes:
        return None
    out = [
        (size - 1) * s - 2 * int(p) + d * (k - 1) + 1 + extra
        for size, p, d, k, s, extra in zip(
            sizes,
            conv.padding,
            conv.dilation,
            conv.kernel_size,
            conv.stride,
            conv.output_padding,
            strict=True,
        )
    ]
    return _empty(conv, x, (*x.shape[: -n - 1], conv.out_channels, *out))


def _empty_pool_output(pool: nn.MaxPool2d | nn.MaxPool3d, x: Tensor, n: int) -> Any:
    sizes = x.shape[-n:]
    if 0 not in sizes:
        return None
    pair = to_ntuple(n)
    out = []
    for size, p, d, k, s in zip(
        sizes, pair(pool.padding), pair(pool.dilation), pair(pool.kernel_size), pair(pool.stride), strict=True
    ):
        steps = (size + 2 * p - d * (k - 1) - 1) / s
        count = math.ceil(steps) + 1 if pool.ceil_mode else math.floor(steps) + 1
        if pool.ceil_mode and (count - 1) * s >= size + p:  # no window starts in the far padding
            count -= 1
        out.append(count)
    values = _empty(pool, x, (*x.shape[:-n], *out))
    if values is None or not pool.return_indices:
        return values
    return values, x.new_empty(values.shape, dtype=torch.int64)


def _empty(module: nn.Module, x: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """An empty output that depends on the input and on every parameter, or None if it cannot be empty."""
    if min(shape) < 0 or math.prod(shape) != 0:
        return None
    output: Tensor = NewEmptyTensorOp.apply(x, shape)  # type: ignore[no-untyped-call]
    for parameter in module.parameters():
        output = output + parameter.sum() * 0
    return output
