"""Non-maximum suppression of rotated boxes ``(x, y, w, h, angle)``.

As :func:`cv.ops.nms` with the overlap of :func:`cv.ops.box_iou_rotated`: boxes are taken in the order of
their scores (ties go to the lower index, a NaN score ranks last); each is kept unless its IoU with an
already kept box of the same label is greater than the threshold. A box without area, or with a number that
is not finite, overlaps nothing. Deterministic.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import _nms_inputs as inputs
from ._checks import as_tensor
from ._load import operator
from ._registration import register

_op = operator("nms_rotated")


@overload
def nms_rotated(
    dets: Tensor, scores: Tensor, iou_threshold: float, labels: Tensor | None = None, clockwise: bool = True
) -> tuple[Tensor, Tensor]: ...
@overload
def nms_rotated(
    dets: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    iou_threshold: float,
    labels: NDArray[np.integer[Any]] | None = None,
    clockwise: bool = True,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]: ...
def nms_rotated(
    dets: Any, scores: Any, iou_threshold: float, labels: Any = None, clockwise: bool = True
) -> tuple[Any, Any]:
    """Keeps the best of each cluster of overlapping rotated boxes.

    On CUDA everything runs on the device; the host waits once, for the number of kept boxes.

    Args:
        dets: ``(N, 5)`` boxes ``(x, y, w, h, angle)``: centre, sides, radians; floating point, tensor or
            array.
        scores: ``(N,)``, the same kind of container. Where the two dtypes differ, both are promoted.
        iou_threshold: A box goes if its IoU with a better one is greater than this; not negative.
        labels: ``(N,)`` whole numbers: boxes suppress each other only where these are equal. None: all do.
        clockwise: Whether a positive angle turns clockwise in an image, from x towards y. False: the other
            way.

    Returns:
        ``dets``, ``(K, 6)``: the kept boxes with their scores, best first; and ``inds``, ``(K,)`` int64:
        their indices. Arrays in, arrays out. Gradients flow from ``dets`` to boxes and scores.

    Raises:
        TypeError: ``dets`` or ``scores`` is neither a tensor nor an array, or not floating point.
        ValueError: A shape, device or threshold is wrong.

    Example:
        >>> boxes = torch.tensor([[0., 0., 4., 2., 0.], [0., 0., 2., 4., 1.57], [9., 9., 4., 2., 0.]])
        >>> dets, inds = nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
        >>> inds.tolist()
        [0, 2]
    """
    if isinstance(dets, Tensor) and isinstance(scores, Tensor):
        return grouped_nms_rotated(
            dets,
            scores,
            None if labels is None else inputs.group_ids(labels, dets, "labels"),
            iou_threshold,
            clockwise,
        )
    boxes, box_scores = inputs.arrays_as_tensors(dets, scores, "dets")
    groups = None if labels is None else as_tensor(np.asarray(labels))
    kept, inds = nms_rotated(boxes, box_scores, iou_threshold, groups, clockwise)
    return kept.numpy(), inds.numpy()


def grouped_nms_rotated(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    clockwise: bool = True,
    score_threshold: float = 0,
    max_num: int = -1,
) -> tuple[Tensor, Tensor]:
    """What :func:`cv.ops.batched_nms` calls: int64 groups, and the options of :func:`cv.ops.nms`."""
    if boxes.dtype is not scores.dtype:
        boxes, scores = inputs.promoted(boxes, scores)
    if not clockwise:
        inputs.check(boxes, scores, 5, "dets")
    turn = boxes if clockwise else _angle_negated(boxes)
    dets, keep = _call(turn, scores, groups, iou_threshold, score_threshold, max_num)
    return dets if clockwise else _angle_negated(dets), keep


def _angle_negated(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :4], -boxes[:, 4:5], boxes[:, 5:]], dim=1)


def _check(dets: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float, *rest: Any) -> None:
    inputs.check(dets, scores, 5, "dets")
    inputs.check_threshold(iou_threshold)


_call = register(
    _op,
    check=_check,
    fake=inputs.fake_of_kept,
    setup_context=inputs.save_kept,
    backward=inputs.gradient_of_kept,
)
