"""Focal losses for dense classification (Lin et al., "Focal Loss for Dense Object Detection", 2017).

The loss and, with a reduction, its sum are computed in one pass over the logits, in float32 for half types.
Deterministic, forward and backward; there is no second derivative.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._load import operator
from ._registration import register

Reduction = Literal["none", "mean", "sum"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}  # the order of csrc/sigmoid_focal_loss/sigmoid_focal_loss.h

_op = operator("sigmoid_focal_loss")
_op_backward = operator("sigmoid_focal_loss_backward")


def sigmoid_focal_loss(
    input: Tensor,  # noqa: A002 - the documented name
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss of independent sigmoid classifiers.

    With ``p = sigmoid(input)``: ``-alpha (1 - p)^gamma log p`` for the class of the label and
    ``-(1 - alpha) p^gamma log(1 - p)`` for every other. Exact for logits of any size: nothing is clamped.

    Args:
        input: ``(N, C)`` logits, floating point.
        target: ``(N,)`` integer labels. A label outside ``[0, C)``, e.g. ``C`` for background, makes every
            class a negative.
        gamma: How much less easy examples count; not negative.
        alpha: Weight of positives, ``1 - alpha`` of negatives.
        weight: ``(C,)``: the loss of a whole row is multiplied by the weight of its label (by 1 for
            background).
        reduction: ``"none"``: ``(N, C)``; ``"sum"``; ``"mean"``: the sum divided by ``N`` (not by ``N C``);
            0 for no rows.

    Returns:
        The loss, in the dtype of ``input``.

    Raises:
        ValueError: A shape, the device of ``target``, ``gamma`` or ``reduction`` is wrong.
        TypeError: ``target`` is not of integers, or ``input`` is not floating point.
    """
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point, got {input.dtype}")
    if input.dim() != 2:
        raise ValueError(f"input must have shape (N, C), got {tuple(input.shape)}")
    if target.shape != input.shape[:1]:
        raise ValueError(f"target must have shape ({input.shape[0]},), got {tuple(target.shape)}")
    if target.device != input.device:
        raise ValueError(f"target must be on {input.device} as input is, got {target.device}")
    if target.dtype is not torch.int64:
        if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
            raise TypeError(f"target must hold integer labels, got {target.dtype}")
        target = target.to(torch.int64)
    if weight is not None:
        if weight.shape != input.shape[1:]:
            raise ValueError(f"weight must have shape ({input.shape[1]},), got {tuple(weight.shape)}")
        weight = weight.to(device=input.device, dtype=input.dtype)
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    code = _REDUCTIONS.get(reduction)
    if code is None:
        raise ValueError(f"reduction must be one of {list(_REDUCTIONS)}, got {reduction!r}")
    loss: Tensor = _op(input, target, weight, gamma, alpha, code)
    return loss


class SigmoidFocalLoss(nn.Module):
    """:func:`sigmoid_focal_loss` as a layer.

    Args:
        gamma: See :func:`sigmoid_focal_loss`.
        alpha: See :func:`sigmoid_focal_loss`.
        weight: ``(C,)`` or None; a buffer.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
    """

    weight: Tensor | None

    def __init__(
        self, gamma: float, alpha: float, weight: Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.register_buffer("weight", weight)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002 - the documented name
        return sigmoid_focal_loss(input, target, self.gamma, self.alpha, self.weight, self.reduction)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, alpha={self.alpha}, reduction={self.reduction}"


def _fake(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: int,
) -> Tensor:
    return input.new_empty(input.shape if reduction == 0 else ())


def _fake_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: int,
) -> Tensor:
    return input.new_empty(input.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, weight, *ctx.options = inputs
    ctx.save_for_backward(logits, target, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


register(_op, fake=_fake, setup_context=_setup_context, backward=_backward, autocast="float32")
register(_op_backward, fake=_fake_backward)
