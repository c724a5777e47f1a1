"""Overlap and non-maximum suppression of boxes in space that stand upright, as a bird sees them.

A box in space is ``(x, y, z, dx, dy, dz, heading)``: its centre, its sides, and the angle in radians by
which it is turned around z, from x towards y. A box in bird's eye view (BEV) is ``(x1, y1, x2, y2, ry)``: a
rectangle by two corners before it is turned around its centre by ``ry``, likewise. Everything is made of
:func:`cv.ops.box_iou_rotated`, :func:`cv.ops.nms_rotated` and :func:`cv.ops.nms`, with their rules: a box
with a side that is not positive overlaps nothing; one with a number that is not finite gives NaN, and
suppresses nothing. Ties of scores go to the lower index, a NaN score ranks last. Half types are computed in
float32. Deterministic, on the CPU as on CUDA. No gradient flows; :func:`cv.ops.diff_iou_rotated_3d` has one,
for pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _nms_inputs as inputs
from ._checks import check_same_device, check_tensors, in_one_floating_dtype, rows_of
from .box_iou_rotated import box_iou_rotated
from .nms import nms
from .nms_rotated import nms_rotated


def boxes_overlap_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """The area that each box of one set shares with each of another, seen from above.

    Args:
        boxes_a: ``(M, 7)`` boxes ``(x, y, z, dx, dy, dz, heading)``, or any empty tensor.
        boxes_b: ``(N, 7)``, or any empty tensor.

    Returns:
        ``(M, N)`` areas, in the dtype of the boxes.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.

    Example:
        >>> square = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 0.0]])
        >>> boxes_overlap_bev(square, square + torch.tensor([1.0, 0, 9, 0, 0, 0, 0]))
        tensor([[2.]])
    """
    a, b, dtype = _pair(boxes_a, boxes_b, 7)
    return _shared_area(a, b).to(dtype)


def boxes_iou_bev(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of each BEV box of one set with each of another.

    Args:
        boxes_a: ``(M, 5)`` boxes ``(x1, y1, x2, y2, ry)``, or any empty tensor.
        boxes_b: ``(N, 5)``, or any empty tensor.

    Returns:
        ``(M, N)`` within [0, 1], in the dtype of the boxes.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.
    """
    a, b, dtype = _pair(boxes_a, boxes_b, 5)
    return box_iou_rotated(_rotated_of_bev(a), _rotated_of_bev(b)).to(dtype)


def boxes_iou3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of the volumes of each box of one set and each of another.

    Args:
        boxes_a: ``(M, 7)`` boxes ``(x, y, z, dx, dy, dz, heading)``, or any empty tensor.
        boxes_b: ``(N, 7)``, or any empty tensor.

    Returns:
        ``(M, N)`` within [0, 1], in the dtype of the boxes.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.

    Example:
        >>> cube = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0]])
        >>> boxes_iou3d(cube, cube + torch.tensor([0.0, 0, 1, 0, 0, 0, 0]))
        tensor([[0.3333]])
    """
    a, b, dtype = _pair(boxes_a, boxes_b, 7)
    half_a, half_b = a[:, 5, None] / 2, b[:, 5] / 2
    top = torch.minimum(a[:, 2, None] + half_a, b[:, 2] + half_b)
    bottom = torch.maximum(a[:, 2, None] - half_a, b[:, 2] - half_b)
    shared = _shared_area(a, b) * (top - bottom).clamp(min=0)
    volume_a, volume_b = (t[:, 3:6].clamp(min=0).prod(1) for t in (a, b))
    shared = torch.minimum(shared, torch.minimum(volume_a[:, None], volume_b))  # rounding
    union = volume_a[:, None] + volume_b - shared
    return (shared / union.clamp(min=torch.finfo(union.dtype).tiny)).to(dtype)


def nms_bev(
    boxes: Tensor,
    scores: Tensor,
    thresh: float,
    pre_max_size: int | None = None,
    post_max_size: int | None = None,
) -> Tensor:
    """Indices of the best of each cluster of overlapping BEV boxes, best first.

    Args:
        boxes: ``(N, 5)`` boxes ``(x1, y1, x2, y2, ry)``.
        scores: ``(N,)``.
        thresh: A box goes if its IoU with a better one is greater than this; not negative.
        pre_max_size: Only so many boxes, the best, are looked at. None: all.
        post_max_size: At most so many indices are returned. None: all.

    Returns:
        ``(K,)`` int64 indices in ``boxes``.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape, device or number is out of its range.
    """
    boxes, scores = _checked(boxes, scores, thresh, 5, "thresh")
    for name, size in (("pre_max_size", pre_max_size), ("post_max_size", post_max_size)):
        if size is not None and size < 0:
            raise ValueError(f"{name} must not be negative, got {size}")
    if pre_max_size is None:
        return nms_rotated(_rotated_of_bev(boxes), scores, thresh)[1][:post_max_size]
    best = torch.where(scores.isnan(), -torch.inf, scores).argsort(descending=True, stable=True)[
        :pre_max_size
    ]
    return best[nms_rotated(_rotated_of_bev(boxes[best]), scores[best], thresh)[1]][:post_max_size]


def nms_normal_bev(boxes: Tensor, scores: Tensor, thresh: float) -> Tensor:
    """As :func:`nms_bev` with boxes that are not turned: ``ry`` is not looked at.

    Args:
        boxes: ``(N, 5)`` boxes ``(x1, y1, x2, y2, ry)``.
        scores: ``(N,)``.
        thresh: A box goes if its IoU with a better one is greater than this; not negative.

    Returns:
        ``(K,)`` int64 indices in ``boxes``, best first.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape, device or number is out of its range.
    """
    boxes, scores = _checked(boxes, scores, thresh, 5, "thresh")
    return nms(boxes[:, :4], scores, thresh)[1]


def nms3d(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the best of each cluster of boxes that overlap as seen from above, best first.

    Args:
        boxes: ``(N, 7)`` boxes ``(x, y, z, dx, dy, dz, heading)``. ``z`` and ``dz`` are not looked at.
        scores: ``(N,)``.
        iou_threshold: A box goes if its IoU in bird's eye view with a better one is greater than this; not
            negative.

    Returns:
        ``(K,)`` int64 indices in ``boxes``.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape, device or number is out of its range.
    """
    boxes, scores = _checked(boxes, scores, iou_threshold, 7, "iou_threshold")
    return nms_rotated(_rotated(boxes), scores, iou_threshold)[1]


def nms3d_normal(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """As :func:`nms3d` with boxes that are not turned: the heading is not looked at either.

    Args:
        boxes: ``(N, 7)`` boxes ``(x, y, z, dx, dy, dz, heading)``.
        scores: ``(N,)``.
        iou_threshold: A box goes if its IoU in bird's eye view with a better one is greater than this; not
            negative.

    Returns:
        ``(K,)`` int64 indices in ``boxes``, best first.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape, device or number is out of its range.
    """
    boxes, scores = _checked(boxes, scores, iou_threshold, 7, "iou_threshold")
    centre, half = boxes[:, :2], boxes[:, 3:5] / 2
    return nms(torch.cat([centre - half, centre + half], 1), scores, iou_threshold)[1]


def _pair(boxes_a: Tensor, boxes_b: Tensor, columns: int) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both sets in the dtype to compute in, and the dtype of the result."""
    boxes_a, boxes_b = in_one_floating_dtype(boxes_a=boxes_a, boxes_b=boxes_b)
    check_same_device(boxes_a=boxes_a, boxes_b=boxes_b)
    a, b = rows_of(boxes_a.detach(), columns, "boxes_a"), rows_of(boxes_b.detach(), columns, "boxes_b")
    return _wide(a), _wide(b), boxes_a.dtype


def _checked(
    boxes: Tensor, scores: Tensor, threshold: float, columns: int, name: str
) -> tuple[Tensor, Tensor]:
    check_tensors(boxes=boxes, scores=scores)
    boxes, scores = rows_of(boxes.detach(), columns, "boxes"), scores.detach()
    inputs.check(boxes, scores, columns)
    inputs.check_threshold(threshold, name)
    return _wide(boxes), scores


def _wide(t: Tensor) -> Tensor:
    """Corners and centres made of each other must not be rounded to half types."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def _rotated(boxes: Tensor) -> Tensor:
    """(N, 5) centre, sides, angle of boxes in space."""
    return boxes[:, [0, 1, 3, 4, 6]]


def _rotated_of_bev(boxes: Tensor) -> Tensor:
    """The same of BEV boxes."""
    low, high = boxes[:, :2], boxes[:, 2:4]
    return torch.cat([(low + high) / 2, high - low, boxes[:, 4:]], 1)


def _shared_area(a: Tensor, b: Tensor) -> Tensor:
    return box_iou_rotated(_rotated(a), _rotated(b), "iof") * a[:, 3:5].clamp(min=0).prod(1)[:, None]
