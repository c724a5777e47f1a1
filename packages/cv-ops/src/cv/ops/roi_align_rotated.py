"""RoIAlign of rotated boxes: pools rotated regions of a feature map into bins of equal number.

Source: Xie et al., "Oriented R-CNN for Object Detection", ICCV 2021, section 3.2. The map is read
bilinearly at a regular grid of points in each bin of the turned box, and a bin is their mean. Coordinates
are derived in ``csrc/roi_align_rotated/roi_align_rotated.h``.

Gradients reach the input only, not the boxes. They are deterministic on the CPU. On CUDA they are summed by
atomics and so vary in the last bits, unless ``torch.use_deterministic_algorithms(True)`` is set: then a
slower kernel with a fixed order is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cv.utils import deprecated_api_warning

from ._load import operator
from ._memory_format import is_channels_last
from ._registration import register
from ._roi import bins_of, check_map_and_rois, check_samples, empty_bins, empty_gradient

_op = operator("roi_align_rotated")
_op_backward = operator("roi_align_rotated_backward")


@deprecated_api_warning({"features": "input", "out_size": "output_size", "sample_num": "sampling_ratio"})
def roi_align_rotated(
    input: Tensor,  # noqa: A002 (documented name)
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    clockwise: bool = False,
) -> Tensor:
    """Pools each rotated box of ``rois`` from ``input`` into ``output_size`` bins.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64; channels-last maps are pooled fastest.
            Half types are accumulated in float32.
        rois: (K, 6) of any floating dtype: the image's index in the batch, centre x, centre y, width and
            height in image pixels, angle in radian. Keep them in float32 where the map is of a half type:
            they are not rounded to it. A box that is not finite gives NaN.
        output_size: Bins, one number or (height, width), along the box's own height and width.
        spatial_scale: Size of the map over size of the image; multiplies centre and size.
        sampling_ratio: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        aligned: True puts pixel centres at half-integer coordinates. False is the older convention: boxes are
            half a pixel off and at least one pixel large.
        clockwise: Whether a positive angle turns a box clockwise, seen with y pointing down; else
            counterclockwise.

    Returns:
        (K, C, output height, output width) in the input's dtype and memory format.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape or number is out of its range.
        RuntimeError: If a box names an image that is not in the batch (on CUDA such a box gives NaN, since
            looking would make the host wait for the device).
    """
    pooled_h, pooled_w = bins_of(output_size)
    out: Tensor = _call(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio, aligned, clockwise)
    return out


class RoIAlignRotated(nn.Module):
    """The layer form of :func:`roi_align_rotated`.

    Args:
        out_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image.
        sample_num: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        aligned: True puts pixel centres at half-integer coordinates; False for networks trained without.
        clockwise: Whether a positive angle turns a box clockwise as one sees it.
        output_size: Another name of ``out_size``, with a warning.
        sampling_ratio: Another name of ``sample_num``, with a warning.

    Raises:
        ValueError: If an argument is out of its range.
    """

    @deprecated_api_warning(
        {"output_size": "out_size", "sampling_ratio": "sample_num"}, cls_name="RoIAlignRotated"
    )
    def __init__(
        self,
        out_size: int | tuple[int, int],
        spatial_scale: float,
        sample_num: int = 0,
        aligned: bool = True,
        clockwise: bool = False,
    ) -> None:
        super().__init__()
        self.out_size = bins_of(out_size, "out_size")
        self.spatial_scale = float(spatial_scale)
        self.sample_num = int(sample_num)
        self.aligned = aligned
        self.clockwise = clockwise

    @property
    def output_size(self) -> tuple[int, int]:
        """The same as ``out_size``, as :class:`cv.ops.RoIAlign` calls it."""
        return self.out_size

    @property
    def sampling_ratio(self) -> int:
        """The same as ``sample_num``, as :class:`cv.ops.RoIAlign` calls it."""
        return self.sample_num

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pools ``rois`` from ``features``.

        Args:
            features: (N, C, H, W).
            rois: (K, 6): batch index, centre x, centre y, width, height, angle in radian.

        Returns:
            (K, C, output height, output width).
        """
        return roi_align_rotated(
            features,
            rois,
            self.out_size,
            self.spatial_scale,
            self.sample_num,
            self.aligned,
            self.clockwise,
        )

    def extra_repr(self) -> str:
        names = ("out_size", "spatial_scale", "sample_num", "aligned", "clockwise")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


# --- the operators ---------------------------------------------------------------------------------


def _check(
    x: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    *rest: bool,
) -> None:
    check_map_and_rois(x, rois, 6, spatial_scale)
    check_samples(sampling_ratio)


def _fake(x: Tensor, rois: Tensor, scale: float, pooled_h: int, pooled_w: int, *rest: Any) -> Tensor:
    return empty_bins(x, rois, pooled_h, pooled_w)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rois, *ctx.numbers = inputs
    ctx.map = (*x.shape, is_channels_last(x))
    ctx.save_for_backward(rois)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rois,) = ctx.saved_tensors
    deterministic = torch.are_deterministic_algorithms_enabled()
    grad_input = _op_backward(grad, rois, *ctx.numbers, *ctx.map, deterministic)
    return grad_input, None, None, None, None, None, None, None


def _fake_backward(grad: Tensor, rois: Tensor, *numbers: Any) -> Tensor:
    *shape, channels_last, _ = numbers[-6:]
    return empty_gradient(grad, shape, channels_last)


# Under autocast the map stays as it is: sums are in float32 anyway, and boxes are never rounded.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients)
register(_op_backward, fake=_fake_backward)
