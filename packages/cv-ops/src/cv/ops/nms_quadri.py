"""Non-maximum suppression of quadrilaterals ``(x1, y1, ..., x4, y4)``.

As :func:`cv.ops.nms_rotated` with the overlap of :func:`cv.ops.box_iou_quadri`: boxes are taken in the order
of their scores (ties go to the lower index, a NaN score ranks last); each is kept unless its IoU with an
already kept box of the same label is greater than the threshold. A box without area, or with a number that is
not finite, overlaps nothing. Deterministic.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from . import _nms_inputs as inputs
from ._checks import as_tensor
from ._load import operator
from ._registration import register

_op = operator("nms_quadri")


@overload
def nms_quadri(
    dets: Tensor, scores: Tensor, iou_threshold: float, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def nms_quadri(
    dets: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    iou_threshold: float,
    labels: NDArray[np.integer[Any]] | None = None,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]: ...
def nms_quadri(dets: Any, scores: Any, iou_threshold: float, labels: Any = None) -> tuple[Any, Any]:
    """Keeps the best of each cluster of overlapping quadrilaterals.

    On CUDA everything runs on the device; the host waits once, for the number of kept boxes.

    Args:
        dets: ``(N, 8)`` corners ``(x1, y1, ..., x4, y4)`` along the outline; floating point, tensor or array.
        scores: ``(N,)``, the same kind of container. Where the two dtypes differ, both are promoted.
        iou_threshold: A box goes if its IoU with a better one is greater than this; not negative.
        labels: ``(N,)`` whole numbers: boxes suppress each other only where these are equal. None: all do.

    Returns:
        ``dets``, ``(K, 9)``: the kept boxes with their scores, best first; and ``inds``, ``(K,)`` int64:
        their indices. Arrays in, arrays out. Gradients flow from ``dets`` to boxes and scores.

    Raises:
        TypeError: ``dets`` or ``scores`` is neither a tensor nor an array, or not floating point.
        ValueError: A shape, device or threshold is wrong.

    Example:
        >>> boxes = torch.tensor([[0., 0., 4., 0., 4., 2., 0., 2.], [0., 0., 4., 0., 4., 1.9, 0., 2.]])
        >>> dets, inds = nms_quadri(boxes, torch.tensor([0.8, 0.9]), 0.5)
        >>> inds.tolist()
        [1]
    """
    if isinstance(dets, Tensor) and isinstance(scores, Tensor):
        groups = None if labels is None else inputs.group_ids(labels, dets, "labels")
        return grouped_nms_quadri(dets, scores, groups, iou_threshold)
    boxes, box_scores = inputs.arrays_as_tensors(dets, scores, "dets")
    kept, inds = nms_quadri(
        boxes, box_scores, iou_threshold, None if labels is None else as_tensor(np.asarray(labels))
    )
    return kept.numpy(), inds.numpy()


def grouped_nms_quadri(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    score_threshold: float = 0,
    max_num: int = -1,
) -> tuple[Tensor, Tensor]:
    """What :func:`cv.ops.batched_nms` calls: int64 groups, and the options of :func:`cv.ops.nms`."""
    if boxes.dtype is not scores.dtype:
        boxes, scores = inputs.promoted(boxes, scores)
    dets, keep = _call(boxes, scores, groups, iou_threshold, score_threshold, max_num)
    return dets, keep


def _check(dets: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float, *rest: Any) -> None:
    inputs.check(dets, scores, 8, "dets")
    inputs.check_threshold(iou_threshold)


_call = register(
    _op,
    check=_check,
    fake=inputs.fake_of_kept,
    setup_context=inputs.save_kept,
    backward=inputs.gradient_of_kept,
)
