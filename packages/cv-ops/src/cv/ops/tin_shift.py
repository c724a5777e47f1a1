"""Temporal interlace shift (Shao et al., "Temporal Interlacing Network", AAAI 2020).

Groups of channels move along time by a number of frames of their own. Elements are only moved: exact in every
dtype, deterministic, and differentiable any number of times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating, check_tensors
from ._load import operator
from ._registration import register

_op = operator("tin_shift")


def tin_shift(input: Tensor, shift: Tensor) -> Tensor:  # noqa: A002 - as elsewhere in cv.ops
    """Moves groups of channels along time.

    With ``s = shift[n, g]`` and the channels ``c`` of group ``g``:
    ``out[n, t, c] = input[n, t - s, c]``, so that a positive shift moves frames to later times. Where
    ``t - s`` is out of range the output is 0; any integer is a valid shift. The gradient moves by ``-s``.

    Args:
        input: (N, num_segments, C, H * W) float16, bfloat16, float32 or float64.
        shift: (N, groups) of integers; group ``g`` has the channels from ``g * C / groups`` on. ``groups``
            must divide ``C``.

    Returns:
        The shape and dtype of ``input``, contiguous.

    Raises:
        TypeError: If ``input`` is not floating point or ``shift`` not of integers.
        ValueError: If shapes or devices do not fit each other.
    """
    if isinstance(shift, Tensor) and shift.dtype is not torch.int64:  # type: ignore[redundant-expr]
        if shift.is_floating_point() or shift.is_complex() or shift.dtype is torch.bool:
            raise TypeError(f"shift must hold integers, got {shift.dtype}")
        shift = shift.to(torch.int64)
    out: Tensor = _call(input, shift, False)
    return out


class TINShift(nn.Module):
    """:func:`tin_shift` as a layer."""

    def forward(self, input: Tensor, shift: Tensor) -> Tensor:  # noqa: A002 - the documented name
        """(N, num_segments, C, H * W) and (N, groups) to the shape of the first."""
        return tin_shift(input, shift)


def _check(input: Tensor, shift: Tensor, back: bool) -> None:  # noqa: A002
    check_floating(input=input)
    check_tensors(shift=shift)
    if input.dim() != 4:
        raise ValueError(f"input must have shape (N, num_segments, C, H * W), got {tuple(input.shape)}")
    if shift.dim() != 2 or shift.shape[0] != input.shape[0]:
        raise ValueError(f"shift must have shape ({input.shape[0]}, groups), got {tuple(shift.shape)}")
    if shift.shape[1] < 1 or input.shape[2] % shift.shape[1] != 0:
        raise ValueError(
            f"the groups of shift must divide the channels of input, "
            f"got {shift.shape[1]} groups and {input.shape[2]} channels"
        )
    if shift.device != input.device:
        raise ValueError(f"shift must be on {input.device} as input is, got {shift.device}")


def _fake(input: Tensor, shift: Tensor, back: bool) -> Tensor:  # noqa: A002
    return input.new_empty(input.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, shift, ctx.back = inputs
    ctx.save_for_backward(shift)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op(grad, *ctx.saved_tensors, not ctx.back), None, None


_call = register(_op, check=_check, fake=_fake, setup_context=_setup_context, backward=_backward)
