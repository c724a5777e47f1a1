"""Rotation-invariant RoIAlign of rotated boxes, for maps of rotation-equivariant networks.

Source: Han et al., "ReDet: A Rotation-equivariant Detector for Aerial Object Detection", CVPR 2021, section
3.3. The map has each feature at ``num_orientations`` orientations. A box is pooled as
:func:`cv.ops.roi_align_rotated` does without ``aligned``; then the orientations of each feature are moved on
by the angle of the box, in steps of 2 pi / ``num_orientations``, and what lies between two of them is mixed.

With ``angle * num_orientations / (2 pi) = ind + l``, 0 <= l < 1, orientation ``o`` becomes
``(1 - l) * pooled[o - ind] + l * pooled[o - ind + 1]``. The neighbour is on the other side than the direction
of the turn suggests; networks have been trained with it so, and the known answer of the published operator
is reproduced.

Gradients reach the input only, and are deterministic where those of ``roi_align_rotated`` are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating, check_same_device
from ._load import operator
from ._memory_format import like_input
from ._registration import register
from ._roi import bins_of, check_samples
from .roi_align_rotated import roi_align_rotated

_op = operator("mix_orientations")


def riroi_align_rotated(
    input: Tensor,  # noqa: A002 (documented name)
    rois: Tensor,
    out_size: int | tuple[int, int],
    spatial_scale: float,
    num_samples: int = 0,
    num_orientations: int = 8,
    clockwise: bool = False,
) -> Tensor:
    """Pools each rotated box of ``rois`` from ``input`` in space and in orientation.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64. Channel ``c * num_orientations + o`` is
            feature ``c`` at orientation ``o``.
        rois: (K, 6) of any floating dtype: the image's index in the batch, centre x, centre y, width and
            height in image pixels, angle in radian. They are at least one pixel of the map large. A box that
            is not finite gives NaN.
        out_size: Bins, one number or (height, width), along the box's own height and width.
        spatial_scale: Size of the map over size of the image; multiplies centre and size.
        num_samples: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        num_orientations: Orientations of each feature; divides the number of channels.
        clockwise: Whether a positive angle turns a box clockwise, seen with y pointing down; else
            counterclockwise.

    Returns:
        (K, C, output height, output width) in the input's dtype and memory format.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape or number is out of its range.
        RuntimeError: If a box names an image that is not in the batch (on CUDA such a box gives NaN).
    """
    bins = bins_of(out_size, "out_size")
    check_samples(num_samples, "num_samples")
    pooled = roi_align_rotated(input, rois, bins, spatial_scale, num_samples, False, clockwise)
    out: Tensor = _call(pooled, rois, num_orientations, clockwise, False)
    return out


class RiRoIAlignRotated(nn.Module):
    """The layer form of :func:`riroi_align_rotated`.

    Args:
        out_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image.
        num_samples: Samples along each axis of a bin, at most 4096; 0 takes one per pixel, rounded up.
        num_orientations: Orientations of each feature; divides the number of channels.
        clockwise: Whether a positive angle turns a box clockwise as one sees it.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        out_size: int | tuple[int, int],
        spatial_scale: float,
        num_samples: int = 0,
        num_orientations: int = 8,
        clockwise: bool = False,
    ) -> None:
        super().__init__()
        self.out_size = bins_of(out_size, "out_size")
        self.spatial_scale = float(spatial_scale)
        self.num_samples = int(num_samples)
        self.num_orientations = int(num_orientations)
        self.clockwise = clockwise
        check_samples(self.num_samples, "num_samples")
        _check_orientations(self.num_orientations)

    @property
    def output_size(self) -> tuple[int, int]:
        """The same as ``out_size``, as :class:`cv.ops.RoIAlign` calls it."""
        return self.out_size

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pools ``rois`` from ``features``.

        Args:
            features: (N, C, H, W).
            rois: (K, 6): batch index, centre x, centre y, width, height, angle in radian.

        Returns:
            (K, C, output height, output width).
        """
        return riroi_align_rotated(
            features,
            rois,
            self.out_size,
            self.spatial_scale,
            self.num_samples,
            self.num_orientations,
            self.clockwise,
        )

    def extra_repr(self) -> str:
        names = ("out_size", "spatial_scale", "num_samples", "num_orientations", "clockwise")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


# --- the operator ----------------------------------------------------------------------------------


def _check_orientations(num_orientations: int) -> None:
    if num_orientations < 1:
        raise ValueError(f"num_orientations must be positive, got {num_orientations}")


def _check(x: Tensor, rois: Tensor, num_orientations: int, *rest: bool) -> None:
    check_floating(input=x, rois=rois)
    check_same_device(input=x, rois=rois)
    _check_orientations(num_orientations)
    if x.dim() != 4:
        raise ValueError(f"input must have shape (K, C, H, W), got {tuple(x.shape)}")
    if rois.dim() != 2 or rois.shape[0] != x.shape[0] or rois.shape[1] != 6:
        raise ValueError(f"rois must have shape ({x.shape[0]}, 6), got {tuple(rois.shape)}")
    if x.shape[1] % num_orientations:
        raise ValueError(
            f"input must have a multiple of num_orientations={num_orientations} channels, got {x.shape[1]}"
        )


def _fake(x: Tensor, rois: Tensor, *rest: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=like_input(x))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, rois, *ctx.numbers, ctx.transposed = inputs
    ctx.save_for_backward(rois)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rois,) = ctx.saved_tensors
    return _call(grad, rois, *ctx.numbers, not ctx.transposed), None, None, None, None


_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)
