"""Overlap of rotated boxes: intersection over union, or over the first box alone.

A box is ``(x, y, w, h, angle)``: centre, width, height, and the angle in radians by which the width is
turned from the x axis, clockwise in an image (y points down) unless ``clockwise=False``. The overlap is
exact up to rounding for any two boxes, identical and touching ones included: the outline of the one,
clamped to the other, encloses the shared area (``csrc/common/rotated_boxes.h`` has the derivation). A box
with a side that is not positive overlaps by 0; one with a number that is not finite gives NaN.
Deterministic. On the CPU everything is computed in float64; on CUDA in the dtype of the boxes, half types
in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ._checks import check_box_sets, check_tensors, rows_of
from ._load import operator
from ._registration import register

_op = operator("box_iou_rotated")


def box_iou_rotated(
    bboxes1: Tensor,
    bboxes2: Tensor,
    mode: Literal["iou", "iof"] = "iou",
    aligned: bool = False,
    clockwise: bool = True,
) -> Tensor:
    """Overlap of each rotated box of one set with each of another, or of aligned pairs.

    Args:
        bboxes1: ``(M, 5)`` boxes ``(x, y, w, h, angle)``, or any empty tensor.
        bboxes2: ``(N, 5)``, or any empty tensor. ``M == N`` with ``aligned``.
        mode: ``"iou"``: intersection over union; ``"iof"``: over the area of the box of ``bboxes1``
            (foreground).
        aligned: Pair ``bboxes1[i]`` with ``bboxes2[i]`` only.
        clockwise: Whether a positive angle turns clockwise in an image, from x towards y. False: the other
            way.

    Returns:
        ``(M, N)``, or ``(M,)`` with ``aligned``, within [0, 1]. Integer boxes are computed in the default
        dtype. No gradient flows through it.

    Raises:
        ValueError: An unknown ``mode``, a wrong shape or device, or sets of different length with
            ``aligned``.

    Example:
        >>> square = torch.tensor([[0., 0., 2., 2., 0.]])
        >>> box_iou_rotated(square, torch.tensor([[0., 0., 2., 2., 0.7853981633974483]]))
        tensor([[0.7071]])
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    if type(bboxes1) is not Tensor or type(bboxes2) is not Tensor:  # saves asking plain tensors
        check_tensors(bboxes1=bboxes1, bboxes2=bboxes2)
    if bboxes1.dtype is not bboxes2.dtype or not bboxes1.is_floating_point():
        dtype = torch.promote_types(bboxes1.dtype, bboxes2.dtype)
        dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
        bboxes1, bboxes2 = bboxes1.to(dtype), bboxes2.to(dtype)
    if bboxes1.dim() != 2 or bboxes2.dim() != 2:
        bboxes1, bboxes2 = rows_of(bboxes1, 5, "bboxes1"), rows_of(bboxes2, 5, "bboxes2")
    if bboxes1.requires_grad or bboxes2.requires_grad:
        bboxes1, bboxes2 = bboxes1.detach(), bboxes2.detach()
    if not clockwise:
        bboxes1, bboxes2 = turned_round(bboxes1), turned_round(bboxes2)
    overlaps: Tensor = _call(bboxes1, bboxes2, mode == "iof", aligned)
    return overlaps


def turned_round(boxes: Tensor) -> Tensor:
    """The boxes with their angle counted in the other direction."""
    return torch.cat([boxes[:, :4], -boxes[:, 4:]], dim=1)


def _check(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool) -> None:
    check_box_sets(bboxes1, bboxes2, 5, aligned)


def _fake(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool) -> Tensor:
    m, n = bboxes1.shape[0], bboxes2.shape[0]
    return bboxes1.new_empty(m) if aligned else bboxes1.new_empty(m, n)


_call = register(_op, check=_check, fake=_fake, differentiable=False, autocast="float32")
