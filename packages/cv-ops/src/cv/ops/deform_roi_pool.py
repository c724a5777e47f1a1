"""Deformable RoI pooling: RoIAlign whose bins are moved, each by an offset of its own.

Source: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.2; the modulated form is from
Zhu et al., "Deformable ConvNets v2", CVPR 2019, section 3.2. Coordinates are derived in
``csrc/deform_roi_pool/deform_roi_pool.h``.

Gradients reach the input and the offsets, not the boxes. They are deterministic on the CPU. On CUDA that of
the input is summed by atomics and so varies in the last bits, unless
``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel with a fixed order is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._memory_format import is_channels_last
from ._registration import register
from ._roi import bins_of, check_map_and_rois, check_samples, empty_bins, empty_gradient

_op = operator("deform_roi_pool")
_op_backward = operator("deform_roi_pool_backward")
_op_offset_backward = operator("deform_roi_pool_offset_backward")


def deform_roi_pool(
    input: Tensor,  # noqa: A002 (documented name)
    rois: Tensor,
    offset: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Pools each box of ``rois`` from ``input`` into ``output_size`` bins, moved by ``offset``.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64; channels-last maps are pooled fastest.
            Half types are accumulated in float32.
        rois: (K, 5) of any floating dtype: the image's index in the batch, then x1, y1, x2, y2 in image
            pixels. A box that is not finite gives NaN.
        offset: (K, 2, output height, output width) of any floating dtype, x before y, in sizes of the region
            over ``gamma``; a bin is moved as a whole. None or empty: no offsets. One that is not finite moves
            its bin off the map, where all is 0.
        output_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image; multiplies the boxes.
        sampling_ratio: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        gamma: Multiplies the offsets.

    Returns:
        (K, C, output height, output width) in the input's dtype and memory format.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape or number is out of its range.
        RuntimeError: If a box names an image that is not in the batch (on CUDA such a box gives NaN, since
            looking would make the host wait for the device).
    """
    pooled_h, pooled_w = bins_of(output_size)
    if isinstance(offset, Tensor) and offset.dim() == 1 and offset.numel() == 0:
        offset = None  # users' way of saying it
    out: Tensor = _call(input, rois, offset, spatial_scale, pooled_h, pooled_w, sampling_ratio, gamma)
    return out


class DeformRoIPool(nn.Module):
    """The layer form of :func:`deform_roi_pool`, with offsets as an input.

    Args:
        output_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image.
        sampling_ratio: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        gamma: Multiplies the offsets.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        self.output_size = bins_of(output_size)
        self.spatial_scale = float(spatial_scale)
        self.sampling_ratio = int(sampling_ratio)
        self.gamma = float(gamma)

    def forward(
        self,
        input: Tensor,  # noqa: A002 (documented name)
        rois: Tensor,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Pools ``rois`` from ``input``.

        Args:
            input: (N, C, H, W).
            rois: (K, 5): batch index, x1, y1, x2, y2.
            offset: (K, 2, output height, output width), or None; see :func:`deform_roi_pool`.

        Returns:
            (K, C, output height, output width).
        """
        return deform_roi_pool(
            input, rois, offset, self.output_size, self.spatial_scale, self.sampling_ratio, self.gamma
        )

    def extra_repr(self) -> str:
        names = ("output_size", "spatial_scale", "sampling_ratio", "gamma")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class DeformRoIPoolPack(DeformRoIPool):
    """Deformable RoI pooling that computes its offsets, by linear layers on the region pooled without them.

    The last layer, ``offset_fc[-1]``, starts with zeros, so that a new layer pools without offsets.

    Args:
        output_size: Bins, one number or (height, width).
        output_channels: Channels of the input, and of the output.
        deform_fc_channels: Width of the linear layers.
        spatial_scale: Size of the map over size of the image.
        sampling_ratio: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        gamma: Multiplies the offsets.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        output_channels: int,
        deform_fc_channels: int = 1024,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, gamma)
        if output_channels < 1 or deform_fc_channels < 1:
            raise ValueError(
                "output_channels and deform_fc_channels must be positive, "
                f"got {output_channels} and {deform_fc_channels}"
            )
        self.output_channels = output_channels
        self.deform_fc_channels = deform_fc_channels
        bins = self.output_size[0] * self.output_size[1]
        self.offset_fc = nn.Sequential(
            nn.Linear(bins * output_channels, deform_fc_channels),
            nn.ReLU(inplace=True),
            nn.Linear(deform_fc_channels, deform_fc_channels),
            nn.ReLU(inplace=True),
            _zero_linear(deform_fc_channels, bins * 2),
        )

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Pools ``rois`` from ``input``.

        Args:
            input: (N, output_channels, H, W).
            rois: (K, 5): batch index, x1, y1, x2, y2.

        Returns:
            (K, output_channels, output height, output width).
        """
        return super().forward(input, rois, self._offset(self._pool_unmoved(input, rois)))

    def _pool_unmoved(self, x: Tensor, rois: Tensor) -> Tensor:
        check_map_and_rois(x, rois, 5, self.spatial_scale)
        if x.shape[1] != self.output_channels:
            raise ValueError(f"input must have {self.output_channels} channels, got {x.shape[1]}")
        return super().forward(x, rois).flatten(1)

    def _offset(self, pooled: Tensor) -> Tensor:
        offset: Tensor = self.offset_fc(pooled).view(-1, 2, *self.output_size)
        return offset


class ModulatedDeformRoIPoolPack(DeformRoIPoolPack):
    """Deformable RoI pooling that also computes a weight between 0 and 1 for each bin (v2).

    The last linear layer of ``mask_fc`` starts with zeros too: a new layer halves what it pools.

    Args:
        output_size: Bins, one number or (height, width).
        output_channels: Channels of the input, and of the output.
        deform_fc_channels: Width of the linear layers.
        spatial_scale: Size of the map over size of the image.
        sampling_ratio: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        gamma: Multiplies the offsets.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        output_channels: int,
        deform_fc_channels: int = 1024,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__(
            output_size, output_channels, deform_fc_channels, spatial_scale, sampling_ratio, gamma
        )
        bins = self.output_size[0] * self.output_size[1]
        self.mask_fc = nn.Sequential(
            nn.Linear(bins * output_channels, deform_fc_channels),
            nn.ReLU(inplace=True),
            _zero_linear(deform_fc_channels, bins),
            nn.Sigmoid(),
        )

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Pools ``rois`` from ``input``.

        Args:
            input: (N, output_channels, H, W).
            rois: (K, 5): batch index, x1, y1, x2, y2.

        Returns:
            (K, output_channels, output height, output width).
        """
        pooled = self._pool_unmoved(input, rois)
        moved = DeformRoIPool.forward(self, input, rois, self._offset(pooled))
        mask: Tensor = self.mask_fc(pooled).view(-1, 1, *self.output_size)
        return moved * mask


def _zero_linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check(
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    spatial_scale: float,
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    gamma: float,
) -> None:
    check_map_and_rois(x, rois, 5, spatial_scale)
    check_samples(sampling_ratio)
    if not -math.inf < gamma < math.inf:  # torch.compile cannot trace isfinite of a symbolic number
        raise ValueError(f"gamma must be finite, got {gamma}")
    if offset is None:
        return
    check_floating(offset=offset)
    wanted = (rois.shape[0], 2, pooled_h, pooled_w)
    if tuple(offset.shape) != wanted:
        raise ValueError(
            f"offset must have shape (K, 2, height, width) = {wanted}, got {tuple(offset.shape)}"
        )
    if offset.device != rois.device:
        raise ValueError(f"offset must be on the device of input ({rois.device}), got {offset.device}")


# --- the operators ---------------------------------------------------------------------------------


def _fake(
    x: Tensor, rois: Tensor, offset: Tensor | None, scale: float, pooled_h: int, pooled_w: int, *rest: Any
) -> Tensor:
    return empty_bins(x, rois, pooled_h, pooled_w)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rois, offset, *ctx.numbers = inputs
    ctx.map = (*x.shape, is_channels_last(x))
    ctx.save_for_backward(rois, offset, x if offset is not None and ctx.needs_input_grad[2] else None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rois, offset, x = ctx.saved_tensors
    grad_input = grad_offset = None
    if ctx.needs_input_grad[0]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        grad_input = _op_backward(grad, rois, offset, *ctx.numbers, *ctx.map, deterministic)
    if x is not None:
        grad_offset = _op_offset_backward(grad, x, rois, offset, *ctx.numbers)
    return grad_input, None, grad_offset, None, None, None, None, None


def _fake_backward(grad: Tensor, rois: Tensor, offset: Tensor | None, *numbers: Any) -> Tensor:
    *shape, channels_last, _ = numbers[-6:]
    return empty_gradient(grad, shape, channels_last)


def _fake_offset_backward(grad: Tensor, x: Tensor, rois: Tensor, offset: Tensor, *numbers: Any) -> Tensor:
    return torch.empty_like(offset, memory_format=torch.contiguous_format)


# Under autocast the map stays as it is: sums are in float32 anyway, and boxes are never rounded.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients)
register(_op_backward, fake=_fake_backward)
register(_op_offset_backward, fake=_fake_offset_backward)
