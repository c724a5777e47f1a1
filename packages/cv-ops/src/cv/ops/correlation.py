"""Correlation of two feature maps: the cost volume of optical flow (Dosovitskiy et al., "FlowNet", 2015).

Sums are in float32 for half types. Deterministic, forward and backward; there is no second derivative.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._registration import register

_op = operator("correlation")
_op_backward = operator("correlation_backward")


def correlation(
    input1: Tensor,
    input2: Tensor,
    kernel_size: int = 1,
    max_displacement: int = 1,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    dilation_patch: int = 1,
) -> Tensor:
    """Compares a window around each place of one map with the windows displaced from it in another.

    ``out[n, p, q, h, w]`` is the sum, over channels and the ``kernel_size x kernel_size`` taps of the window,
    of ``input1`` at ``(y, x)`` times ``input2`` at ``(y + dy, x + dx)``, with
    ``y = h stride - padding + i dilation`` for tap i, ``dy = (p - max_displacement) dilation_patch``, and the
    same along x. Both maps are 0 outside. Nothing is divided by the number of terms.

    Args:
        input1: ``(N, C, H, W)``, floating point.
        input2: The same shape and dtype.
        kernel_size: Side of the window, in taps.
        max_displacement: Displacements go from minus this number to plus this number, along each axis.
        stride: Step between the places of ``input1``.
        padding: Zeros around both maps.
        dilation: Step between the taps of a window.
        dilation_patch: Step between displacements, in pixels.

    Returns:
        ``(N, P, P, H', W')`` with ``P = 2 max_displacement + 1`` (rows, then columns) and
        ``H' = (H + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1``, ``W'`` likewise.
        Differentiable in both inputs.

    Raises:
        TypeError: An input is not a tensor of a floating dtype, or the dtypes differ.
        ValueError: A shape, a device or an option is wrong, or the window is larger than the padded maps.
    """
    options = (kernel_size, max_displacement, stride, padding, dilation, dilation_patch)
    for option in options:
        if type(option) is not int:
            _check_options(*options)
    out: Tensor = _call(input1, input2, *options)
    return out


class Correlation(nn.Module):
    """:func:`correlation` as a layer.

    Args:
        kernel_size: See :func:`correlation`, as for all others.
        max_displacement: Displacements along each axis go from minus to plus this number.
        stride: Step between the places of the first map.
        padding: Zeros around both maps.
        dilation: Step between the taps of a window.
        dilation_patch: Step between displacements.
    """

    def __init__(
        self,
        kernel_size: int = 1,
        max_displacement: int = 1,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        dilation_patch: int = 1,
    ) -> None:
        super().__init__()
        _check_options(kernel_size, max_displacement, stride, padding, dilation, dilation_patch)
        self.kernel_size = kernel_size
        self.max_displacement = max_displacement
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dilation_patch = dilation_patch

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """Two ``(N, C, H, W)`` to ``(N, P, P, H', W')``."""
        return correlation(
            input1,
            input2,
            self.kernel_size,
            self.max_displacement,
            self.stride,
            self.padding,
            self.dilation,
            self.dilation_patch,
        )

    def extra_repr(self) -> str:
        names = ("kernel_size", "max_displacement", "stride", "padding", "dilation", "dilation_patch")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def _check(input1: Tensor, input2: Tensor, *options: int) -> None:
    check_floating(input1=input1, input2=input2)
    if input1.dim() != 4:
        raise ValueError(f"input1 must have shape (N, C, H, W), got {tuple(input1.shape)}")
    if input2.shape != input1.shape:
        raise ValueError(f"input2 must have shape {tuple(input1.shape)}, got {tuple(input2.shape)}")
    if input2.dtype is not input1.dtype:
        raise TypeError(f"input2 must be of {input1.dtype} as input1 is, got {input2.dtype}")
    if input2.device != input1.device:
        raise ValueError(f"input2 must be on {input1.device} as input1 is, got {input2.device}")
    _check_options(*options)
    kernel_size, _, _, padding, dilation, _ = options
    window = (kernel_size - 1) * dilation + 1
    if min(input1.shape[2:]) + 2 * padding < window:
        raise ValueError(
            f"kernel_size must not be larger than the padded maps: it covers {window} pixels, the maps have "
            f"{tuple(input1.shape[2:])} and a padding of {padding}"
        )


def _check_options(
    kernel_size: int, max_displacement: int, stride: int, padding: int, dilation: int, dilation_patch: int
) -> None:
    least = {
        "kernel_size": (kernel_size, 1),
        "max_displacement": (max_displacement, 0),
        "stride": (stride, 1),
        "padding": (padding, 0),
        "dilation": (dilation, 1),
        "dilation_patch": (dilation_patch, 1),
    }
    for name, (value, minimum) in least.items():
        if isinstance(value, (float, bool)) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


# --- the operators ---------------------------------------------------------------------------------


def _fake(
    input1: Tensor,
    input2: Tensor,
    kernel_size: int,
    max_displacement: int,
    stride: int,
    padding: int,
    dilation: int,
    dilation_patch: int,
) -> Tensor:
    n, _, height, width = input1.shape
    less = 2 * padding - dilation * (kernel_size - 1) - 1
    patch = 2 * max_displacement + 1
    return input1.new_empty(n, patch, patch, (height + less) // stride + 1, (width + less) // stride + 1)


def _fake_backward(grad: Tensor, input1: Tensor, input2: Tensor, *options: int) -> tuple[Tensor, Tensor]:
    return input1.new_empty(input1.shape), input1.new_empty(input1.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input1, input2, *ctx.options = inputs
    ctx.save_for_backward(input1, input2)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad1, grad2 = _op_backward(grad, *ctx.saved_tensors, *ctx.options)
    return (grad1, grad2, *[None] * 6)


# Under autocast inputs stay as they are: sums are in float32 anyway.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)
register(_op_backward, fake=_fake_backward)
