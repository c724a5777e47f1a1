"""Rotated feature alignment: to each pixel adds the map's values at the points of its box.

Source: Yang et al., "R3Det: Refined Single-Stage Detector with Feature Refinement for Rotating Object", AAAI
2021, section 3.3. Boxes are read as mmcv reads them, row first: ``(y, x, w, h, angle)``.

Gradients reach the features only. They are deterministic on the CPU. On CUDA they are summed by atomics and
so vary in the last bits, unless ``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel
with a fixed order is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._checks import check_floating, check_same_device
from ._load import operator
from ._memory_format import like_input
from ._registration import register

_op = operator("rotated_feature_align")
_op_backward = operator("rotated_feature_align_backward")


def rotated_feature_align(
    features: Tensor, best_rbboxes: Tensor, spatial_scale: float = 1 / 8, points: int = 1
) -> Tensor:
    """Adds to each pixel the bilinear samples at the centre, or at centre and corners, of its box.

    A sample may lie up to one pixel outside the map and then reads the border; further out it reads 0.

    Args:
        features: (N, C, H, W) float16, bfloat16, float32 or float64.
        best_rbboxes: (N, H, W, 5), or those numbers as (N * H * W, 5), of any floating dtype: a box
            ``(y, x, w, h, angle)`` for each pixel, the angle in radians, from x towards y. A box that is not
            finite gives NaN.
        spatial_scale: Pixels of the map per unit of the boxes.
        points: 1: the centre; 5: and the four corners.

    Returns:
        (N, C, H, W) in the dtype and memory format of the features.

    Raises:
        TypeError: If a tensor is not one of a floating dtype.
        ValueError: If a shape, device or number does not fit.
    """
    if getattr(best_rbboxes, "ndim", 0) > 2 and best_rbboxes.shape[-1] == 5:
        best_rbboxes = best_rbboxes.reshape(-1, 5)
    aligned: Tensor = _call(features, best_rbboxes, spatial_scale, points)
    return aligned


def _check(features: Tensor, boxes: Tensor, spatial_scale: float, points: int) -> None:
    check_floating(features=features, best_rbboxes=boxes)
    if features.dim() != 4:
        raise ValueError(f"features must have shape (N, C, H, W), got {tuple(features.shape)}")
    n, _, height, width = features.shape
    if boxes.dim() != 2 or boxes.shape[1] != 5 or boxes.shape[0] != n * height * width:
        raise ValueError(
            f"best_rbboxes must have shape (N, H, W, 5) = ({n}, {height}, {width}, 5), or that as "
            f"({n * height * width}, 5), got {tuple(boxes.shape)}"
        )
    check_same_device(features=features, best_rbboxes=boxes)
    if points not in (1, 5):
        raise ValueError(f"points must be 1 or 5, got {points}")
    if not (spatial_scale > 0 and math.isfinite(spatial_scale)):
        raise ValueError(f"spatial_scale must be positive and finite, got {spatial_scale}")


def _fake(features: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(features, memory_format=like_input(features))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, boxes, *ctx.numbers = inputs
    ctx.save_for_backward(boxes)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (boxes,) = ctx.saved_tensors
    deterministic = torch.are_deterministic_algorithms_enabled()
    return _op_backward(grad, boxes, *ctx.numbers, deterministic), None, None, None


# Under autocast the map stays as it is: samples are computed in float32 anyway.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients)
register(_op_backward, fake=_fake)
