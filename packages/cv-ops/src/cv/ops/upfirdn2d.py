"""Upsample, apply a FIR filter, downsample: the resampling of StyleGAN2 (Karras et al., 2020).

The operator runs without the zeros that upsampling puts in, and without the outputs that downsampling drops.
Its gradient is the operator itself with ``up`` and ``down`` exchanged (``csrc/upfirdn2d/upfirdn2d.h`` derives
it), so it has derivatives of every order. Deterministic, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._checks import check_floating
from ._load import operator
from ._registration import register

_op = operator("upfirdn2d")


def upfirdn2d(
    input: Tensor,  # noqa: A002 - the documented name
    kernel: Tensor,
    up: int | tuple[int, int] = 1,
    down: int | tuple[int, int] = 1,
    pad: Sequence[int] = (0, 0),
) -> Tensor:
    """Upsamples, filters and downsamples each channel of a batch of images.

    In this order: ``up - 1`` zeros are put behind each sample (also behind the last one of a row or column);
    the result is padded with zeros; it is convolved with ``kernel`` (a true convolution: the kernel is
    flipped) where the kernel lies wholly inside; every ``down``-th result is kept, from the first one on.

    Args:
        input: ``(N, C, H, W)``, floating point.
        kernel: ``(KH, KW)``, the filter, on the device of ``input``. With half-precision input it may be
            float32, and is then used unrounded. One that is an outer product takes ``KH + KW`` terms per
            result instead of ``KH KW`` on the CPU; that is found out here.
        up: Upsampling factor, one number or ``(x, y)``.
        down: Downsampling factor, one number or ``(x, y)``.
        pad: ``(x_before, x_after, y_before, y_after)`` zeros around the upsampled image; two numbers are
            ``(before, after)`` of both axes, as the networks written for mmcv 1.x pass them. Negative
            numbers crop.

    Returns:
        ``(N, C, H', W')`` in the dtype of ``input``, with
        ``H' = (H up_y + y_before + y_after - KH) // down_y + 1`` and ``W'`` likewise. Differentiable in
        ``input`` and ``kernel``, any number of times.

    Raises:
        TypeError: ``input`` or ``kernel`` is not a tensor of a floating dtype, or a factor or pad is not an
            integer.
        ValueError: A shape, a factor, the length of ``pad`` or a device is wrong, or the kernel is larger
            than the padded image.

    Example:
        >>> kernel = torch.outer(torch.tensor([1., 3., 3., 1.]), torch.tensor([1., 3., 3., 1.])) / 64
        >>> upfirdn2d(torch.ones(1, 1, 4, 4), kernel * 4, up=2, pad=(2, 1)).shape
        torch.Size([1, 1, 8, 8])
    """
    tensors = isinstance(input, Tensor) and isinstance(kernel, Tensor)  # type: ignore[redundant-expr]
    if tensors and kernel.dtype is not input.dtype:
        check_floating(input=input, kernel=kernel)
        half = input.dtype in (torch.float16, torch.bfloat16)
        kernel = kernel.to(torch.float32 if half else input.dtype)
    up_x, up_y = _factors(up, "up")
    down_x, down_y = _factors(down, "down")
    out: Tensor = _call(input, kernel, up_x, up_y, down_x, down_y, *_pads(pad), True)
    return out


def _check(input: Tensor, kernel: Tensor, *numbers: int) -> None:  # noqa: A002
    up_x, up_y, down_x, down_y, pad_x0, pad_x1, pad_y0, pad_y1, _ = numbers
    _factors((up_x, up_y), "up")
    _factors((down_x, down_y), "down")
    check_floating(input=input, kernel=kernel)
    if input.dim() != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {tuple(input.shape)}")
    if kernel.dim() != 2 or kernel.shape[0] == 0 or kernel.shape[1] == 0:
        raise ValueError(f"kernel must have shape (KH, KW) and not be empty, got {tuple(kernel.shape)}")
    if kernel.device != input.device:
        raise ValueError(f"kernel must be on {input.device} as input is, got {kernel.device}")
    height, width = input.shape[2] * up_y + pad_y0 + pad_y1, input.shape[3] * up_x + pad_x0 + pad_x1
    if height < kernel.shape[0] or width < kernel.shape[1]:
        raise ValueError(
            f"kernel must not be larger than the upsampled and padded image, got {tuple(kernel.shape)} "
            f"and {(height, width)}"
        )


def _factors(value: Any, name: str) -> tuple[int, int]:
    if type(value) is int and value > 0:  # the usual case, in a fraction of the time
        return value, value
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    _check_integers(pair, value, name)
    if len(pair) != 2:
        raise ValueError(f"{name} must be one number or (x, y), got {value}")
    if pair[0] < 1 or pair[1] < 1:
        raise ValueError(f"{name} must be positive, got {value}")
    return pair


def _pads(pad: Any) -> tuple[int, int, int, int]:
    pads = tuple(pad) if isinstance(pad, (tuple, list)) else (pad,)
    for n in pads:
        if type(n) is not int:
            _check_integers(pads, pad, "pad")
    if len(pads) == 2:
        pads *= 2
    if len(pads) != 4:
        raise ValueError(
            f"pad must be (before, after) or (x_before, x_after, y_before, y_after), got {pad!r}"
        )
    return pads


def _check_integers(numbers: tuple[Any, ...], value: Any, name: str) -> None:
    for n in numbers:
        if type(n) is not int and (isinstance(n, bool) or not hasattr(n, "__index__")):
            raise TypeError(f"{name} must be of integers, got {value!r}")


# --- the operator ----------------------------------------------------------------------------------


def _fake(x: Tensor, kernel: Tensor, *numbers: Any) -> Tensor:
    up_x, up_y, down_x, down_y, pad_x0, pad_x1, pad_y0, pad_y1, _ = numbers
    height = (x.shape[2] * up_y + pad_y0 + pad_y1 - kernel.shape[0]) // down_y + 1
    width = (x.shape[3] * up_x + pad_x0 + pad_x1 - kernel.shape[1]) // down_x + 1
    return x.new_empty(x.shape[0], x.shape[1], height, width)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernel, *ctx.numbers = inputs
    ctx.size = x.shape[2:]
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, kernel)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, kernel = ctx.saved_tensors
    up_x, up_y, down_x, down_y, pad_x0, _, pad_y0, _, flip = ctx.numbers
    grad_x = grad_kernel = None
    if ctx.needs_input_grad[0]:
        (height, width), (kh, kw) = ctx.size, kernel.shape
        # pad' before, and after it whatever makes the result as large as the input was
        pads = (
            kw - 1 - pad_x0,
            width * up_x - grad.shape[3] * down_x + pad_x0 - up_x + 1,
            kh - 1 - pad_y0,
            height * up_y - grad.shape[2] * down_y + pad_y0 - up_y + 1,
        )
        if height == 0 or width == 0:
            grad_x = grad.new_empty((*grad.shape[:2], height, width))
        else:
            grad_x = _op(grad, kernel, down_x, down_y, up_x, up_y, *pads, not flip)
    if ctx.needs_input_grad[1]:
        grad_kernel = _kernel_gradient(grad, x, kernel, *ctx.numbers)
    return (grad_x, grad_kernel, *[None] * 9)


def _kernel_gradient(grad: Tensor, x: Tensor, kernel: Tensor, *numbers: Any) -> Tensor:
    """Of each tap: the sum of ``grad`` times the samples it met. Filters are rarely trained: plain torch."""
    up_x, up_y, down_x, down_y, *pads, flip = numbers
    (n, c, height, width), (kh, kw) = x.shape, kernel.shape
    x, grad = x.to(kernel.dtype), grad.to(kernel.dtype)
    sparse = torch.nn.functional.pad(x.reshape(n, c, height, 1, width, 1), (0, up_x - 1, 0, 0, 0, up_y - 1))
    sparse = sparse.reshape(n, c, height * up_y, width * up_x)
    # Two steps: one pad call cannot crop more than the image before it adds the padding.
    sparse = torch.nn.functional.pad(sparse, [max(p, 0) for p in pads])
    sparse = torch.nn.functional.pad(sparse, [min(p, 0) for p in pads])
    down_h, down_w = (grad.shape[2] - 1) * down_y + 1, (grad.shape[3] - 1) * down_x + 1
    taps = [
        (grad * sparse[:, :, i : i + down_h : down_y, j : j + down_w : down_x]).sum()
        for i in range(kh)
        for j in range(kw)
    ]
    correlation = torch.stack(taps).reshape(kh, kw)
    return correlation.flip(0, 1) if flip else correlation


# Under autocast inputs stay as they are: the sums are in float32 anyway.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)
