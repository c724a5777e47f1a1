"""Non-maximum suppression that remembers which box went because of which."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cv.utils import deprecated_api_warning

from . import _nms_inputs as inputs
from ._checks import as_tensor
from ._load import operator
from ._registration import register, without_gradient

_nms = without_gradient(operator("nms"))
_op = operator("nms_match")


@overload
def nms_match(dets: Tensor, iou_threshold: float) -> list[Tensor]: ...
@overload
def nms_match(dets: NDArray[np.floating[Any]], iou_threshold: float) -> list[NDArray[np.int64]]: ...
@deprecated_api_warning({"iou_thr": "iou_threshold"})
def nms_match(dets: Any, iou_threshold: float) -> list[Any]:
    """Groups boxes: each one that NMS keeps, and those that go because of it.

    A box belongs to the best kept box whose IoU with it is greater than the threshold; see
    :func:`cv.ops.nms`, whose kept boxes (``offset=0``) these are. On CUDA the host waits for the sizes of
    the groups.

    Args:
        dets: ``(N, 5)`` corners and scores ``(x1, y1, x2, y2, score)``, floating point; tensor or array.
        iou_threshold: A box goes if its IoU with a better one is greater than this; not negative.

    Returns:
        One int64 tensor (array, if ``dets`` is one) for each kept box, best first: the indices of its
        group by score, the kept box first.

    Raises:
        AssertionError: ``dets`` does not have shape ``(N, 5)``.
        TypeError: ``dets`` is neither a tensor nor an array, or not floating point.
        ValueError: ``iou_threshold`` is negative.

    Example:
        >>> dets = torch.tensor([[0., 0., 9., 9., .8], [20., 0., 29., 9., .7], [0., 0., 9., 8., .9]])
        >>> [group.tolist() for group in nms_match(dets, 0.5)]
        [[2, 0], [1]]
    """
    if isinstance(dets, np.ndarray):
        return [group.numpy() for group in nms_match(as_tensor(dets), iou_threshold)]
    if not isinstance(dets, Tensor):
        raise TypeError(f"dets must be a tensor or an array, got {type(dets).__name__}")
    if dets.dim() != 2 or dets.shape[1] != 5:
        raise AssertionError(f"dets must have shape (N, 5), got {tuple(dets.shape)}")
    dets = dets.detach()
    boxes, scores = dets[:, :4], dets[:, 4]
    if not dets.is_floating_point():
        inputs.check(boxes, scores)
    inputs.check_threshold(iou_threshold)
    if dets.numel() == 0:
        return []
    _, keep = _nms(boxes, scores, None, iou_threshold, 0, 0.0, -1)
    members, sizes = _call(boxes, scores, keep, iou_threshold)
    return list(torch.split_with_sizes(members, sizes.tolist()))  # less to do than in Tensor.split


def _fake(boxes: Tensor, scores: Tensor, keep: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    return keep.new_empty(boxes.shape[0]), keep.new_empty(keep.shape, device="cpu")


_call = register(_op, fake=_fake, differentiable=False)
