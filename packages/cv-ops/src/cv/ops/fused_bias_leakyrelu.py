"""Bias, leaky ReLU and a scale in one pass: the activation of StyleGAN2 (Karras et al., 2020).

The scale keeps the variance: half of the values are made small, and ``sqrt(2)`` makes up for it. The backward
pass reads the output only and adds up the gradient of the bias on the way; derivatives of every order are the
same two operators again. Deterministic, forward and backward.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._memory_format import like_input
from ._registration import register

_op = operator("fused_bias_leakyrelu")
_op_backward = operator("fused_bias_leakyrelu_backward")


def fused_bias_leakyrelu(
    input: Tensor,  # noqa: A002 - the documented name
    bias: Tensor,
    negative_slope: float = 0.2,
    scale: float = 2**0.5,
) -> Tensor:
    """``scale * leaky_relu(input + bias, negative_slope)``, the bias added to each channel.

    Args:
        input: ``(N, C, ...)``, floating point; ``(N, C, H, W)`` may be channels-last, and the output then is.
        bias: ``(C,)``, or a shape like ``(1, C, 1, 1)`` with one number per channel; converted to the
            dtype of ``input``.
        negative_slope: Slope for negative values; not negative.
        scale: What the result is multiplied by; positive.

    Returns:
        The shape and dtype of ``input``. Differentiable in ``input`` and ``bias``, any number of times.

    Raises:
        TypeError: ``input`` or ``bias`` is not a tensor of a floating dtype.
        ValueError: A shape, a device, ``negative_slope`` or ``scale`` is wrong.

    Example:
        >>> fused_bias_leakyrelu(torch.tensor([[1.0, -2.0]]), torch.tensor([1.0, 1.0]), 0.5, 1.0)
        tensor([[ 2.0000, -0.5000]])
    """
    if isinstance(input, Tensor) and isinstance(bias, Tensor):  # type: ignore[redundant-expr]
        if bias.dim() != 1:
            bias = _one_per_channel(input, bias)
        if bias.dtype is not input.dtype:
            check_floating(input=input, bias=bias)
            bias = bias.to(input.dtype)
    out: Tensor = _call(input, bias, None, negative_slope, scale)
    return out


class FusedBiasLeakyReLU(nn.Module):
    """:func:`fused_bias_leakyrelu` as a layer that learns the bias.

    Args:
        num_channels: Channels of the input.
        negative_slope: See :func:`fused_bias_leakyrelu`.
        scale: See :func:`fused_bias_leakyrelu`.

    Attributes:
        bias: ``(num_channels,)``, zero at first.
    """

    def __init__(self, num_channels: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        _check_numbers(negative_slope, scale)
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the documented name
        """``(N, C, ...)`` to the same shape."""
        return fused_bias_leakyrelu(input, self.bias, self.negative_slope, self.scale)

    def extra_repr(self) -> str:
        return f"{self.bias.shape[0]}, negative_slope={self.negative_slope}, scale={self.scale:g}"


def _one_per_channel(x: Tensor, bias: Tensor) -> Tensor:
    if bias.dim() != x.dim() or x.dim() < 2 or bias.shape[1] != x.shape[1] or bias.numel() != x.shape[1]:
        _check_bias(x, bias)
    return bias.reshape(x.shape[1])


def _check_bias(x: Tensor, bias: Tensor) -> None:
    check_floating(input=x, bias=bias)
    if x.dim() < 2:
        raise ValueError(f"input must have shape (N, C, ...), got {tuple(x.shape)}")
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"bias must have shape ({x.shape[1]},), got {tuple(bias.shape)}")
    if bias.device != x.device:
        raise ValueError(f"bias must be on {x.device} as input is, got {bias.device}")


def _check(x: Tensor, bias: Tensor, output: Tensor | None, negative_slope: float, scale: float) -> None:
    _check_bias(x, bias)
    _check_numbers(negative_slope, scale)


def _check_numbers(negative_slope: float, scale: float) -> None:
    if not 0 <= negative_slope < math.inf:  # not math.isfinite: torch.compile cannot trace it
        raise ValueError(f"negative_slope must not be negative, got {negative_slope}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive, got {scale}")


# --- the operators ---------------------------------------------------------------------------------
# Both keep the output of the first forward pass: its signs choose the slope in every derivative.


def _fake(x: Tensor, bias: Tensor, output: Tensor | None, slope: float, scale: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=like_input(x))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, first_output, *ctx.numbers = inputs
    ctx.save_for_backward(output if first_output is None else first_output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_input, grad_bias = _op_backward(grad, *ctx.saved_tensors, *ctx.numbers)
    return grad_input, grad_bias, None, None, None


def _fake_backward(grad: Tensor, output: Tensor, slope: float, scale: float) -> tuple[Tensor, Tensor]:
    return _fake(output, grad, None, slope, scale), output.new_empty(output.shape[1])


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, first_output, *ctx.numbers = inputs
    ctx.save_for_backward(first_output)


def _backward_of_backward(ctx: Any, grad_input: Tensor, grad_bias: Tensor) -> tuple[Tensor | None, ...]:
    # The output only chooses between two constants: no gradient to it.
    return _op(grad_input, grad_bias, *ctx.saved_tensors, *ctx.numbers), None, None, None


# Under autocast inputs stay as they are: a pass over memory gains nothing from another dtype.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)
register(_op_backward, fake=_fake_backward, setup_context=_setup_backward, backward=_backward_of_backward)
