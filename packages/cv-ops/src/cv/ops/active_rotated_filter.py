"""Active rotating filters: each filter of a convolution in all its rotations.

Source: Zhou et al., "Oriented Response Networks", CVPR 2017. A filter has a value for each orientation, row
and column; to rotate it is to permute them. Forward and backward are copies and sums of them, each the
other's derivative, so derivatives of every order exist. Deterministic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_floating, check_same_device, check_tensors
from ._load import operator
from ._registration import register

_op = operator("active_rotated_filter")
_op_backward = operator("active_rotated_filter_backward")


def active_rotated_filter(input: Tensor, indices: Tensor) -> Tensor:  # noqa: A002 (documented name)
    """Rotates filters.

    Args:
        input: (O, I, orientations, H, W) float16, bfloat16, float32 or float64: filters.
        indices: (orientations, H, W, rotations) integers: to which place of (orientations, H, W), counted
            from 1, a rotation moves each value. Of two values at one place the later counts; a place without
            a value is 0.

    Returns:
        (O * rotations, I * orientations, H, W): the weight of a convolution. Differentiable with respect to
        ``input``, any number of times.

    Raises:
        TypeError: If ``input`` is not a tensor of a floating dtype, or ``indices`` not one of integers.
        ValueError: If shapes or devices do not fit, or (on the CPU) an index is not within
            [1, orientations * H * W]. On CUDA such a value is left out, without waiting for the GPU.
    """
    if getattr(indices, "dtype", None) in (torch.uint8, torch.int8, torch.int16, torch.int64):
        indices = indices.int()
    rotated: Tensor = _call(input, indices)
    return rotated


def _check(x: Tensor, indices: Tensor) -> None:
    check_floating(input=x)
    check_tensors(indices=indices)
    if indices.dtype is not torch.int32:
        raise TypeError(f"indices must have an integer dtype, got {indices.dtype}")
    check_same_device(input=x, indices=indices)
    if x.dim() != 5:
        raise ValueError(f"input must have shape (O, I, orientations, H, W), got {tuple(x.shape)}")
    if indices.dim() != 4 or indices.shape[:3] != x.shape[2:]:
        raise ValueError(
            f"indices must have shape ({', '.join(str(s) for s in x.shape[2:])}, rotations), "
            f"got {tuple(indices.shape)}"
        )
    if indices.numel() >= 1 << 24:
        raise ValueError(f"indices must be fewer than 2^24, got {indices.numel()}")
    places = x.shape[2] * x.shape[3] * x.shape[4]
    if indices.device.type == "cpu" and not torch.compiler.is_compiling() and type(indices) is Tensor:
        outside = indices[(indices < 1) | (indices > places)]
        if outside.numel():
            raise ValueError(f"indices must be within [1, {places}], got {outside[0].item()}")


def _fake(x: Tensor, indices: Tensor) -> Tensor:
    outputs, inputs, orientations, height, width = x.shape
    return x.new_empty(outputs * indices.shape[3], inputs * orientations, height, width)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return _call_backward(grad, indices), None


def _fake_backward(grad: Tensor, indices: Tensor) -> Tensor:
    orientations, height, width, rotations = indices.shape
    outputs, inputs = grad.shape[0] // rotations, grad.shape[1] // orientations
    return grad.new_empty(outputs, inputs, orientations, height, width)


def _second(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return _call(grad, indices), None


_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)
_call_backward = register(_op_backward, fake=_fake_backward, setup_context=_setup, backward=_second)
