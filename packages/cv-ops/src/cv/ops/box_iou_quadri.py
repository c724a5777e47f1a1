"""Overlap of quadrilaterals: intersection over union, or over the first one alone.

A quadrilateral is its four corners ``(x1, y1, ..., x4, y4)`` along the outline, in either direction. It need
not be convex, but must not cross itself. Areas are exact up to rounding, identical and touching outlines
included (``csrc/common/polygon.h`` has the derivation). One without area overlaps by 0; one with a number
that is not finite gives NaN. Deterministic. On the CPU everything is computed in float64; on CUDA in the
dtype of the boxes, half types in float32.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ._checks import check_box_sets, in_one_floating_dtype, rows_of
from ._load import operator
from ._registration import register

_op = operator("box_iou_quadri")


def box_iou_quadri(
    bboxes1: Tensor, bboxes2: Tensor, mode: Literal["iou", "iof"] = "iou", aligned: bool = False
) -> Tensor:
    """Overlap of each quadrilateral of one set with each of another, or of aligned pairs.

    Args:
        bboxes1: ``(M, 8)`` corners ``(x1, y1, ..., x4, y4)`` along the outline, or any empty tensor.
        bboxes2: ``(N, 8)``, or any empty tensor. ``M == N`` with ``aligned``.
        mode: ``"iou"``: intersection over union; ``"iof"``: over the area of the box of ``bboxes1``
            (foreground).
        aligned: Pair ``bboxes1[i]`` with ``bboxes2[i]`` only.

    Returns:
        ``(M, N)``, or ``(M,)`` with ``aligned``, within [0, 1]. Integer boxes are computed in the default
        dtype. No gradient flows through it.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: An unknown ``mode``, a wrong shape or device, or sets of different length with
            ``aligned``.

    Example:
        >>> square = torch.tensor([[0., 0., 2., 0., 2., 2., 0., 2.]])
        >>> box_iou_quadri(square, torch.tensor([[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0]]))
        tensor([[0.3333]])
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    bboxes1, bboxes2 = in_one_floating_dtype(bboxes1=bboxes1, bboxes2=bboxes2)
    bboxes1, bboxes2 = rows_of(bboxes1.detach(), 8, "bboxes1"), rows_of(bboxes2.detach(), 8, "bboxes2")
    overlaps: Tensor = _call(bboxes1, bboxes2, mode == "iof", aligned)
    return overlaps


def _check(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool) -> None:
    check_box_sets(bboxes1, bboxes2, 8, aligned)


def _fake(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool) -> Tensor:
    m, n = bboxes1.shape[0], bboxes2.shape[0]
    return bboxes1.new_empty(m) if aligned else bboxes1.new_empty(m, n)


_call = register(_op, check=_check, fake=_fake, differentiable=False, autocast="float32")
