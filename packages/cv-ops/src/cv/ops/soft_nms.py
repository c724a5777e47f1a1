"""Soft-NMS: overlapping boxes stay, with lower scores.

Bodla, Singh, Chellappa, Davis: Soft-NMS, improving object detection with one line of code (ICCV 2017). Again
and again the box with the largest score is taken, and the scores of the boxes that overlap it are multiplied
by a factor: ``1 - iou`` (linear) or 0 (naive) where the IoU is at least the threshold, ``exp(-iou² / sigma)``
for every box (gaussian). A box whose score falls below ``min_score`` is out. Widths and heights are
``x2 - x1 + offset``; a box that is empty, inverted, NaN or infinite overlaps nothing; ties go to the lower
index; a NaN score is out. Deterministic.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cv.utils import deprecated_api_warning

from . import _nms_inputs as inputs
from ._load import operator
from ._registration import register

_op = operator("soft_nms")

Method = Literal["linear", "gaussian", "naive"]
_METHODS = {"naive": 0, "linear": 1, "gaussian": 2}  # the order of csrc/soft_nms/soft_nms.h


@overload
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: Method = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]: ...
@overload
def soft_nms(
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: Method = "linear",
    offset: int = 0,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]: ...
@deprecated_api_warning({"iou_thr": "iou_threshold"})
def soft_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: Method = "linear",
    offset: int = 0,
) -> tuple[Any, Any]:
    """Lowers the scores of boxes that overlap better ones.

    Args:
        boxes: ``(N, 4)`` corners ``(x1, y1, x2, y2)``, floating point; tensor or array.
        scores: ``(N,)``, the same kind of container. Where the two dtypes differ, both are promoted.
        iou_threshold: Linear and naive: the IoU from which on a score is lowered; not negative.
        sigma: Gaussian: the width of the bell, positive.
        min_score: A box with a smaller score, before or after lowering, is left out.
        method: ``"linear"``, ``"gaussian"`` or ``"naive"`` (which is plain NMS).
        offset: 0 or 1: sides are ``x2 - x1 + offset`` (1 for inclusive pixel coordinates).

    Returns:
        ``dets``, ``(K, 5)``: the boxes with their lowered scores, best first; and ``inds``, ``(K,)`` int64:
        their indices in ``boxes``. Arrays in, arrays out. No gradient flows through it.

    Raises:
        TypeError: ``boxes`` or ``scores`` is neither a tensor nor an array, or not floating point.
        ValueError: A shape, device, threshold, ``sigma``, ``method`` or ``offset`` is wrong.

    Example:
        >>> boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 8.], [20., 20., 30., 30.]])
        >>> dets, inds = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]))
        >>> inds.tolist(), dets[:, 4].tolist()
        ([0, 2, 1], [0.9, 0.7, 0.16])
    """
    if isinstance(boxes, Tensor) and isinstance(scores, Tensor):
        return grouped_soft_nms(boxes, scores, None, iou_threshold, sigma, min_score, method, offset)
    box_tensor, score_tensor = inputs.arrays_as_tensors(boxes, scores)
    dets, inds = soft_nms(box_tensor, score_tensor, iou_threshold, sigma, min_score, method, offset)
    return dets.numpy(), inds.numpy()


def grouped_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: Method = "linear",
    offset: int = 0,
    max_num: int = -1,
) -> tuple[Tensor, Tensor]:
    """What :func:`cv.ops.batched_nms` calls: int64 groups, and at most ``max_num`` boxes if positive."""
    if boxes.dtype is not scores.dtype:
        boxes, scores = inputs.promoted(boxes, scores)
    if method not in _METHODS:
        raise ValueError(f"method must be one of {sorted(_METHODS)}, got {method!r}")
    code = _METHODS[method]
    if boxes.requires_grad or scores.requires_grad:
        boxes, scores = boxes.detach(), scores.detach()
    dets, keep = _call(boxes, scores, groups, iou_threshold, sigma, min_score, code, offset)
    return (dets[:max_num], keep[:max_num]) if max_num > 0 else (dets, keep)


def _check(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> None:
    inputs.check(boxes, scores)
    inputs.check_threshold(iou_threshold)
    inputs.check_offset(offset)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")


_call = register(_op, check=_check, fake=inputs.fake_of_kept, differentiable=False)
