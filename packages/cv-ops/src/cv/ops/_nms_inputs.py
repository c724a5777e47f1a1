"""What the suppressing operators share: checks of their input, and the gradient of picking boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._checks import as_tensor, check_tensors


def promoted(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype that they promote to."""
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    return boxes.to(dtype), scores.to(dtype)


def check(boxes: Tensor, scores: Tensor, width: int = 4, name: str = "boxes") -> None:
    """One box of ``width`` numbers for each score, floating point, on one device."""
    if not boxes.is_floating_point():
        raise TypeError(f"{name} and scores must be floating point, got {boxes.dtype}")
    shape = boxes.shape
    if len(shape) != 2 or shape[1] != width:
        raise ValueError(f"{name} must have shape (N, {width}), got {tuple(shape)}")
    if scores.shape != shape[:1]:
        raise ValueError(
            f"scores must have shape ({shape[0]},) as {name} has rows, got {tuple(scores.shape)}"
        )
    if boxes.device != scores.device:
        raise ValueError(f"scores must be on {boxes.device} as {name} is, got {scores.device}")


def check_threshold(iou_threshold: float, name: str = "iou_threshold") -> None:
    if not iou_threshold >= 0:
        raise ValueError(f"{name} must not be negative, got {iou_threshold}")


def check_offset(offset: int) -> None:
    if offset not in (0, 1):
        raise ValueError(f"offset must be 0 or 1, got {offset}")


def arrays_as_tensors(boxes: Any, scores: Any, name: str = "boxes") -> tuple[Tensor, Tensor]:
    """Tensors on the memory of two arrays; a TypeError if they are not arrays."""
    if isinstance(boxes, np.ndarray) and isinstance(scores, np.ndarray):
        return as_tensor(boxes), as_tensor(scores)
    raise TypeError(
        f"{name} and scores must both be tensors or both be arrays, "
        f"got {type(boxes).__name__} and {type(scores).__name__}"
    )


def group_ids(labels: Tensor, boxes: Tensor, name: str) -> Tensor:
    """The labels of ``boxes`` as int64 beside them."""
    check_tensors(**{name: labels})
    if labels.shape != boxes.shape[:1]:
        raise ValueError(
            f"{name} must have shape {tuple(boxes.shape[:1])}, one for each box, got {tuple(labels.shape)}"
        )
    return labels.to(device=boxes.device, dtype=torch.int64)


def fake_of_kept(boxes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """For operators ``(boxes, scores, …) -> (kept boxes with scores, indices)``; only data tells how many."""
    k = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(k, boxes.shape[1] + 1), boxes.new_empty(k, dtype=torch.int64)


def save_kept(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """For the same operators."""
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.count = inputs[0].shape[0]
    ctx.others = len(inputs) - 2


def gradient_of_kept(ctx: Any, grad_dets: Tensor, grad_keep: Tensor | None) -> tuple[Tensor | None, ...]:
    # Kept indices are distinct, so this scatter is deterministic.
    (keep,) = ctx.saved_tensors
    grad = grad_dets.new_zeros(ctx.count, grad_dets.shape[1]).index_copy(0, keep, grad_dets)
    return (grad[:, :-1], grad[:, -1], *[None] * ctx.others)
