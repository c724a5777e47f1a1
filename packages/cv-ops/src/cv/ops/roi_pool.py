"""RoIPool: pools regions of a feature map into bins of whole pixels, of which the greatest counts.

Source: Girshick, "Fast R-CNN", ICCV 2015, section 2.1. How a box is rounded to pixels and divided into bins
is in ``csrc/roi_pool/roi_pool.h``.

Gradients reach the input only, not the boxes: that of a bin goes to its greatest pixel, the first of equal
ones. They are deterministic on the CPU. On CUDA they are summed by atomics and so vary in the last bits,
unless ``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel with a fixed order is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._load import operator
from ._memory_format import is_channels_last
from ._registration import register
from ._roi import bins_of, check_map_and_rois, empty_bins, empty_gradient

_op = operator("roi_pool")
_op_backward = operator("roi_pool_backward")


def roi_pool(
    input: Tensor,  # noqa: A002 (documented name)
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Pools each box of ``rois`` from ``input`` into ``output_size`` bins.

    The corners of a box are scaled and rounded to pixels, half away from zero, and both belong to the
    region, so it is at least one pixel large. Bin i of n covers its pixels from ``floor(i * length / n)``
    to ``ceil((i + 1) * length / n) - 1``: neighbouring bins may share one. A bin outside the map is 0.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64. NaN in a bin gives NaN.
        rois: (K, 5) of any floating dtype: the image's index in the batch, then x1, y1, x2, y2 in image
            pixels. Keep them in float32 where the map is of a half type: they are not rounded to it. A box
            that is not finite gives NaN.
        output_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image; multiplies the boxes.

    Returns:
        (K, C, output height, output width) in the input's dtype and memory format.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape or number is out of its range.
        RuntimeError: If a box names an image that is not in the batch (on CUDA such a box gives NaN, since
            looking would make the host wait for the device).
    """
    pooled_h, pooled_w = bins_of(output_size)
    out: Tensor
    out, _ = _call(input, rois, spatial_scale, pooled_h, pooled_w)
    return out


class RoIPool(nn.Module):
    """The layer form of :func:`roi_pool`.

    Args:
        output_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image.

    Raises:
        ValueError: If ``output_size`` is not positive.
    """

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = bins_of(output_size)
        self.spatial_scale = float(spatial_scale)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:  # noqa: A002 (documented name)
        """Pools ``rois`` from ``input``.

        Args:
            input: (N, C, H, W).
            rois: (K, 5): batch index, x1, y1, x2, y2; see :func:`roi_pool`.

        Returns:
            (K, C, output height, output width).
        """
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


# --- the operators ---------------------------------------------------------------------------------


def _check(x: Tensor, rois: Tensor, spatial_scale: float, *bins: int) -> None:
    check_map_and_rois(x, rois, 5, spatial_scale)


def _fake(x: Tensor, rois: Tensor, scale: float, pooled_h: int, pooled_w: int) -> tuple[Tensor, Tensor]:
    out = empty_bins(x, rois, pooled_h, pooled_w)
    return out, torch.empty_like(out, dtype=torch.int32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, rois = inputs[:2]
    ctx.map = (*x.shape, is_channels_last(x))
    ctx.save_for_backward(rois, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    rois, argmax = ctx.saved_tensors
    deterministic = torch.are_deterministic_algorithms_enabled()
    return (
        _op_backward(grad, rois, argmax, *ctx.map, deterministic),
        None,
        None,
        None,
        None,
    )


def _fake_backward(grad: Tensor, rois: Tensor, argmax: Tensor, *numbers: Any) -> Tensor:
    *shape, channels_last, _ = numbers
    return empty_gradient(grad, shape, channels_last)


# Under autocast the map stays as it is: nothing is computed with it.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients, first_only=True)
register(_op_backward, fake=_fake_backward)
