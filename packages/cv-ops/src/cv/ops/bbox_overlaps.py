"""Overlap of boxes: intersection over union, or over the first box alone.

Boxes are corners ``(x1, y1, x2, y2)`` with sides ``x2 - x1 + offset``. Boxes that do not intersect overlap
by 0, empty ones included; a denominator below ``offset`` counts as ``offset``; a box whose area is not
finite gives NaN.
Deterministic, forward and backward.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ._checks import check_box_sets, check_tensors, rows_of
from ._load import operator
from ._registration import register

_op = operator("bbox_overlaps")


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    mode: Literal["iou", "iof"] = "iou",
    aligned: bool = False,
    offset: int = 0,
) -> Tensor:
    """Overlap of each box of one set with each of another, or of aligned pairs.

    Args:
        bboxes1: ``(M, 4)``, or any empty tensor.
        bboxes2: ``(N, 4)``, or any empty tensor. ``M == N`` with ``aligned``.
        mode: ``"iou"``: intersection over union; ``"iof"``: over the area of the box of ``bboxes1``
            (foreground).
        aligned: Pair ``bboxes1[i]`` with ``bboxes2[i]`` only.
        offset: 0 or 1: sides are ``x2 - x1 + offset`` (1 for inclusive pixel coordinates).

    Returns:
        ``(M, N)``, or ``(M,)`` with ``aligned``. Integer boxes are computed in the default dtype.
        Differentiable.

    Raises:
        ValueError: An unknown ``mode`` or ``offset``, a wrong shape or device, or sets of different length
            with ``aligned``.

    Example:
        >>> bbox_overlaps(torch.tensor([[0., 0., 10., 10.]]), torch.tensor([[0., 0., 10., 20.]]))
        tensor([[0.5000]])
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"mode must be 'iou' or 'iof', got {mode!r}")
    if offset not in (0, 1):
        raise ValueError(f"offset must be 0 or 1, got {offset}")
    if type(bboxes1) is not Tensor or type(bboxes2) is not Tensor:  # saves asking plain tensors
        check_tensors(bboxes1=bboxes1, bboxes2=bboxes2)
    if bboxes1.dtype is not bboxes2.dtype or not bboxes1.is_floating_point():
        dtype = torch.promote_types(bboxes1.dtype, bboxes2.dtype)
        dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
        bboxes1, bboxes2 = bboxes1.to(dtype), bboxes2.to(dtype)
    if bboxes1.dim() != 2 or bboxes2.dim() != 2:
        bboxes1, bboxes2 = rows_of(bboxes1, 4, "bboxes1"), rows_of(bboxes2, 4, "bboxes2")
    overlaps: Tensor = _call(bboxes1, bboxes2, mode == "iof", aligned, offset)
    return overlaps


def _check(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool, offset: int) -> None:
    check_box_sets(bboxes1, bboxes2, 4, aligned)


def _fake(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool, offset: int) -> Tensor:
    m, n = bboxes1.shape[0], bboxes2.shape[0]
    return bboxes1.new_empty(m) if aligned else bboxes1.new_empty(m, n)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    bboxes1, bboxes2, *ctx.options = inputs
    ctx.save_for_backward(bboxes1, bboxes2)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # Gradients through overlaps are rare: autograd of the composed form will do, on any device, and it is
    # differentiable once more where the caller asks for that.
    again = torch.is_grad_enabled()
    boxes = list(ctx.saved_tensors)
    with torch.enable_grad():
        if not again:
            boxes = [
                b.detach().requires_grad_(need) for b, need in zip(boxes, ctx.needs_input_grad, strict=False)
            ]
        wanted = [b for b in boxes if b.requires_grad]
        grads = iter(torch.autograd.grad(_composed(*boxes, *ctx.options), wanted, grad, create_graph=again))
    return (*[next(grads) if b.requires_grad else None for b in boxes], None, None, None)


def _composed(bboxes1: Tensor, bboxes2: Tensor, foreground: bool, aligned: bool, offset: int) -> Tensor:
    area1, area2 = ((b[:, 2:] - b[:, :2] + offset).prod(1) for b in (bboxes1, bboxes2))
    if not aligned:
        bboxes1, area1 = bboxes1[:, None], area1[:, None]
    low = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    high = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    inter = (high - low + offset).clamp(min=0).prod(-1)
    base = (area1 + torch.zeros_like(area2) if foreground else area1 + area2 - inter).clamp(min=offset)
    return inter / torch.where(inter > 0, base, torch.ones_like(base))


_call = register(
    _op, check=_check, fake=_fake, setup_context=_setup_context, backward=_backward, autocast="float32"
)
