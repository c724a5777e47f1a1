"""Focal losses for dense classification (Lin et al., "Focal Loss for Dense Object Detection", 2017).

The loss and, with a reduction, its sum are computed in one pass over the logits, in float32 for half types.
Deterministic, forward and backward; there is no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ._checks import check_floating, check_tensors
from ._load import operator
from ._registration import register

Reduction = Literal["none", "mean", "sum"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}  # the order of csrc/common/reduction.h

_op = operator("sigmoid_focal_loss")
_op_backward = operator("sigmoid_focal_loss_backward")
_softmax_op = operator("softmax_focal_loss")
_softmax_op_backward = operator("softmax_focal_loss_backward")


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
    loss: Tensor = _call(*_arguments(input, target, gamma, alpha, weight, reduction))
    return loss


def softmax_focal_loss(
    input: Tensor,  # noqa: A002 - the documented name
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss of one classifier with ``C`` exclusive classes.

    With ``p`` the softmax probability of the label: ``-alpha (1 - p)^gamma log p``. Exact for finite logits
    of any size: nothing is clamped, and ``1 - p`` keeps its digits where ``p`` is close to 1. A logit of
    -infinity is a class that cannot be; a row with NaN or +infinity gives NaN.

    Args:
        input: ``(N, C)`` logits, floating point.
        target: ``(N,)`` integer labels. A row whose label is outside ``[0, C)`` is ignored: its loss and
            its gradient are 0.
        gamma: How much less easy examples count; not negative.
        alpha: Factor of every loss.
        weight: ``(C,)``: the loss of a row is multiplied by the weight of its label.
        reduction: ``"none"``: ``(N,)``; ``"sum"``; ``"mean"``: the sum divided by ``N``, ignored rows
            included; 0 for no rows.

    Returns:
        The loss, in the dtype of ``input``.

    Raises:
        ValueError: A shape, the device of ``target``, ``gamma`` or ``reduction`` is wrong.
        TypeError: ``target`` is not of integers, or ``input`` is not floating point.
    """
    loss: Tensor = _call_softmax(*_arguments(input, target, gamma, alpha, weight, reduction))[0]
    return loss


class _FocalLoss(nn.Module):
    """A loss as a layer that holds its options."""

    weight: Tensor | None
    _loss: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, gamma: float, alpha: float, weight: Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.register_buffer("weight", weight)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002 - the documented name
        """The loss of ``(N, C)`` logits and ``(N,)`` labels."""
        return self._loss(input, target, self.gamma, self.alpha, self.weight, self.reduction)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, alpha={self.alpha}, reduction={self.reduction}"


class SigmoidFocalLoss(_FocalLoss):
    """:func:`sigmoid_focal_loss` as a layer.

    Args:
        gamma: See :func:`sigmoid_focal_loss`, as for the others.
        alpha: Weight of positives, ``1 - alpha`` of negatives.
        weight: ``(C,)`` or None; a buffer.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
    """

    _loss = staticmethod(sigmoid_focal_loss)


class SoftmaxFocalLoss(_FocalLoss):
    """:func:`softmax_focal_loss` as a layer.

    Args:
        gamma: See :func:`softmax_focal_loss`, as for the others.
        alpha: Factor of every loss.
        weight: ``(C,)`` or None; a buffer.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
    """

    _loss = staticmethod(softmax_focal_loss)


def _arguments(
    input: Tensor,  # noqa: A002
    target: Tensor,
    gamma: float,
    alpha: float,
    weight: Tensor | None,
    reduction: Reduction,
) -> tuple[Tensor, Tensor, Tensor | None, float, float, int]:
    """The arguments of either operator, which then checks them."""
    code = _REDUCTIONS.get(reduction)
    if code is None:
        raise ValueError(f"reduction must be one of {list(_REDUCTIONS)}, got {reduction!r}")
    if isinstance(target, Tensor) and target.dtype is not torch.int64:  # type: ignore[redundant-expr]
        if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
            raise TypeError(f"target must hold integer labels, got {target.dtype}")
        target = target.to(torch.int64)
    if weight is not None:
        check_floating(input=input)
        check_tensors(weight=weight)
        weight = weight.to(device=input.device, dtype=input.dtype)
    return input, target, weight, gamma, alpha, code


def _check(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: int,
) -> None:
    """Of either operator."""
    check_floating(input=input)
    check_tensors(target=target)
    if input.dim() != 2:
        raise ValueError(f"input must have shape (N, C), got {tuple(input.shape)}")
    if target.shape != input.shape[:1]:
        raise ValueError(f"target must have shape ({input.shape[0]},), got {tuple(target.shape)}")
    if target.device != input.device:
        raise ValueError(f"target must be on {input.device} as input is, got {target.device}")
    if weight is not None and weight.shape != input.shape[1:]:
        raise ValueError(f"weight must have shape ({input.shape[1]},), got {tuple(weight.shape)}")
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")


def _fake(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: int,
) -> Tensor:
    return input.new_empty(input.shape if reduction == 0 else ())


def _fake_backward(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:  # noqa: A002
    """Of either operator."""
    return input.new_empty(input.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, weight, *ctx.options = inputs
    ctx.save_for_backward(logits, target, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


def _softmax_fake(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: int,
) -> tuple[Tensor, Tensor]:
    stats_dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    loss = input.new_empty(input.shape[:1] if reduction == 0 else ())
    return loss, input.new_empty((2, input.shape[0]), dtype=stats_dtype)


def _softmax_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, weight, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, target, weight, output[1])


def _softmax_backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    return _softmax_op_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


_call = register(
    _op, check=_check, fake=_fake, setup_context=_setup_context, backward=_backward, autocast="float32"
)
register(_op_backward, fake=_fake_backward)
_call_softmax = register(
    _softmax_op,
    check=_check,
    fake=_softmax_fake,
    setup_context=_softmax_setup_context,
    backward=_softmax_backward,
    first_only=True,
    autocast="float32",
)
register(_softmax_op_backward, fake=_fake_backward)
