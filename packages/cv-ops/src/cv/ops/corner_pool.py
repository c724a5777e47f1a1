"""Corner pooling (Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints", ECCV 2018).

A corner of a box is often not on the object; the pooling lets it see the largest response along a direction.
Deterministic, forward and backward; there is no second derivative.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._memory_format import like_input
from ._registration import register

CornerPoolMode = Literal["bottom", "left", "right", "top"]

# mode: (dimension, whether the maximum runs from the last position to the first)
_MODES = {"bottom": (2, False), "left": (3, True), "right": (3, False), "top": (2, True)}

_op = operator("corner_pool")
_op_backward = operator("corner_pool_backward")


def corner_pool(input: Tensor, mode: CornerPoolMode) -> Tensor:  # noqa: A002 - as elsewhere in cv.ops
    """The running maximum of each row or column.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64.
        mode: The end that the maximum runs to. ``"bottom"``: from the first row to the last; ``"top"``:
            from the last to the first; ``"right"``: from the first column to the last; ``"left"``: from the
            last to the first.

    Returns:
        (N, C, H, W), in the dtype and memory format of ``input``; the current position counts. A NaN wins
        over every number, and stays. Of equal values, the one reached last gets the gradient.

    Raises:
        AssertionError: If the mode is unknown.
        TypeError: If ``input`` is not floating point.
        ValueError: If ``input`` does not have four dimensions.
    """
    if mode not in _MODES:
        _check_mode(mode)
    dim, reverse = _MODES[mode]
    out: Tensor = _call(input, dim, reverse)
    return out


class CornerPool(nn.Module):
    """:func:`corner_pool` as a layer.

    Args:
        mode: ``"bottom"``, ``"left"``, ``"right"`` or ``"top"``: the end that the maximum runs to.

    Raises:
        AssertionError: If the mode is unknown.
    """

    def __init__(self, mode: CornerPoolMode) -> None:
        super().__init__()
        _check_mode(mode)
        self.mode: CornerPoolMode = mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return corner_pool(x, self.mode)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


def _check_mode(mode: str) -> None:
    if mode not in _MODES:
        raise AssertionError(f"mode must be one of {list(_MODES)}, got {mode!r}")


def _check(input: Tensor, dim: int, reverse: bool) -> None:  # noqa: A002
    check_floating(input=input)
    if input.dim() != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {tuple(input.shape)}")


def _fake(input: Tensor, dim: int, reverse: bool) -> Tensor:  # noqa: A002
    return torch.empty_like(input, memory_format=like_input(input))


def _fake_backward(grad: Tensor, input: Tensor, output: Tensor, dim: int, reverse: bool) -> Tensor:  # noqa: A002
    return torch.empty_like(input, memory_format=like_input(input))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)
    ctx.options = inputs[1:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op_backward(grad, *ctx.saved_tensors, *ctx.options), None, None


_call = register(_op, check=_check, fake=_fake, setup_context=_setup_context, backward=_backward)
register(_op_backward, fake=_fake_backward)
