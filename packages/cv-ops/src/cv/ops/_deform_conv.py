"""What deformable convolution v1 and v2 share: the native operator, the checks, and the layers' parts.

Output pixel p is the sum over kernel taps k of ``weight[k] * mask[k] * x(p + k + offset[k])``: each tap
reads the input bilinearly at its own fractional position, and zeros outside the map. Offsets are in input
pixels, y before x. v1 has no mask. Sources: Dai et al., "Deformable Convolutional Networks", ICCV 2017;
Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._memory_format import like_input
from ._registration import register

_forward = operator("deform_conv2d")
_backward = operator("deform_conv2d_backward")

IntPair = int | tuple[int, ...]


def apply_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Calls the operator with numbers and pairs of numbers as pairs."""
    stride_h, stride_w = pair("stride", stride, 1)
    pad_h, pad_w = pair("padding", padding, 0)
    dilation_h, dilation_w = pair("dilation", dilation, 1)
    out: Tensor = _call(
        x, offset, mask, weight, bias,
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, deform_groups,
    )  # fmt: skip
    return out


# --- shared by the layers of both versions --------------------------------------------------------


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """One number, or two, as two; each at least ``least``."""
    if type(value) is int and value >= least:  # as most calls have it
        return value, value
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be one number or two, got {value}")
        first, second = value
    else:
        first = second = value
    if first < least or second < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return first, second


def set_conv_attributes(
    layer: Any,
    in_channels: int,
    out_channels: int,
    kernel_size: IntPair,
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
    deform_groups: int,
) -> None:
    """Checks and sets what code that inspects convolutions reads, under the names ``nn.Conv2d`` has."""
    if in_channels < 1 or out_channels < 1:
        raise ValueError(
            f"in_channels and out_channels must be positive, got {in_channels} and {out_channels}"
        )
    if groups < 1 or in_channels % groups != 0:
        raise AssertionError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
    if out_channels % groups != 0:
        raise AssertionError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")
    if deform_groups < 1 or in_channels % deform_groups != 0:
        raise ValueError(
            f"in_channels must be divisible by deform_groups, got {in_channels} and {deform_groups}"
        )
    layer.in_channels = in_channels
    layer.out_channels = out_channels
    layer.kernel_size = pair("kernel_size", kernel_size, 1)
    layer.stride = pair("stride", stride, 1)
    layer.padding = pair("padding", padding, 0)
    layer.dilation = pair("dilation", dilation, 1)
    layer.groups = groups
    layer.deform_groups = deform_groups
    layer.transposed = False
    layer.output_padding = (0, 0)


def output_size(layer: Any, x: Tensor) -> tuple[int, int]:
    """(H_out, W_out) of a layer for input ``x``, 0 where the input is too small."""
    check_floating(x=x)
    if x.dim() != 4:
        raise ValueError(f"x must have shape (N, C, H, W), got {tuple(x.shape)}")
    height, width = (
        _output_length(
            x.shape[-2 + i], layer.kernel_size[i], layer.stride[i], layer.padding[i], layer.dilation[i]
        )
        for i in range(2)
    )
    return height, width


def empty_output(layer: Any, x: Tensor) -> Tensor:
    """What a layer returns where there is no output pixel; depends on the weight, so that backward runs."""
    height, width = output_size(layer, x)
    weight: Tensor = layer.weight
    return x.new_zeros(x.shape[0], layer.out_channels, height, width) + weight.sum() * 0


def offset_predictor(layer: Any, channels_per_tap: int) -> nn.Conv2d:
    """The ``conv_offset`` child of a pack, zero at the start."""
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    conv = nn.Conv2d(
        layer.in_channels,
        layer.deform_groups * channels_per_tap * taps,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        bias=True,
    )
    init_offset_predictor(conv)
    return conv


def init_offset_predictor(conv: nn.Conv2d) -> None:
    """Sets weight and bias to zero."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def upgrade_offset_names(state_dict: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Before version 2, ``conv_offset`` of the layer ``a.b`` was stored as ``a.b_offset`` beside it."""
    if (metadata.get("version") or 1) >= 2:
        return
    for name in ("weight", "bias"):
        old, new = f"{prefix[:-1]}_offset.{name}", f"{prefix}conv_offset.{name}"
        if new not in state_dict and old in state_dict:
            state_dict[new] = state_dict.pop(old)


def conv_repr(layer: Any) -> str:
    """The arguments of a layer, for ``repr``."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "deform_groups")
    rest = ", ".join(f"{name}={getattr(layer, name)}" for name in names)
    return (
        f"{layer.in_channels}, {layer.out_channels}, {rest}, bias={getattr(layer, 'bias', None) is not None}"
    )


# --- checks ---------------------------------------------------------------------------------------


def _check(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, *numbers: int
) -> None:
    _check_tensors(
        "deform_conv2d" if mask is None else "modulated_deform_conv2d", x, offset, mask, weight, bias
    )
    stride, padding, dilation = numbers[:2], numbers[2:4], numbers[4:6]
    _check_shapes(x, offset, mask, weight, bias, stride, padding, dilation, *numbers[6:])


def _check_tensors(
    name: str, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None
) -> None:
    tensors = {"input": x, "offset": offset, "mask": mask, "weight": weight, "bias": bias}
    for argument, t in tensors.items():
        if t is None and argument in ("mask", "bias"):
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f"{argument} of {name} must be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise TypeError(f"{argument} of {name} must have a floating dtype, got {t.dtype}")
        if t.device != x.device:
            raise ValueError(f"{argument} must be on the device of input ({x.device}), got {t.device}")
        if (
            t.dtype != x.dtype
            and argument in ("weight", "bias")
            and not torch.is_autocast_enabled(x.device.type)
        ):
            raise TypeError(f"{argument} must have the dtype of input ({x.dtype}), got {t.dtype}")


def _check_shapes(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    deform_groups: int,
) -> None:
    if x.dim() != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {tuple(x.shape)}")
    if weight.dim() != 4:
        raise ValueError(f"weight must have shape (C_out, C / groups, KH, KW), got {tuple(weight.shape)}")
    n, channels, height, width = x.shape
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    if groups < 1 or channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide the input's channels and weight.shape[0], got {groups}, {channels} and "
            f"{out_channels}"
        )
    if group_channels != channels // groups:
        raise ValueError(
            f"weight must have shape (C_out, {channels // groups}, KH, KW) for {channels} input channels in "
            f"{groups} groups, got {tuple(weight.shape)}"
        )
    if deform_groups < 1 or channels % deform_groups:
        raise ValueError(
            f"deform_groups must divide the input's channels, got {deform_groups} and {channels}"
        )
    out_h = _output_length(height, kernel_h, stride[0], padding[0], dilation[0])
    out_w = _output_length(width, kernel_w, stride[1], padding[1], dilation[1])
    if out_h == 0 or out_w == 0:
        raise ValueError(
            f"input is too small: {height} x {width} with padding {padding} gives no output pixel for a "
            f"{kernel_h} x {kernel_w} kernel with dilation {dilation}"
        )
    taps = kernel_h * kernel_w
    if tuple(offset.shape) != (n, 2 * deform_groups * taps, out_h, out_w):
        raise ValueError(
            f"offset must have shape {(n, 2 * deform_groups * taps, out_h, out_w)}, got {tuple(offset.shape)}"
        )
    if mask is not None and tuple(mask.shape) != (n, deform_groups * taps, out_h, out_w):
        raise ValueError(
            f"mask must have shape {(n, deform_groups * taps, out_h, out_w)}, got {tuple(mask.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"bias must have shape ({out_channels},), got {tuple(bias.shape)}")


def _output_length(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    span = size + 2 * padding - (dilation * (kernel - 1) + 1)
    return 0 if span < 0 else span // stride + 1


# --- the operator ---------------------------------------------------------------------------------


def _fake(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, *numbers: int
) -> Tensor:
    shape = (x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=like_input(x))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, mask, weight, _, *ctx.numbers = inputs
    ctx.save_for_backward(x, offset, mask, weight)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, offset, mask, weight = ctx.saved_tensors
    need_input, need_offset, need_mask, need_weight, need_bias, *_ = ctx.needs_input_grad
    deterministic = torch.are_deterministic_algorithms_enabled()
    grad_input, grad_offset, grad_mask, grad_weight = _backward(
        grad,
        x,
        offset,
        mask,
        weight,
        *ctx.numbers,
        need_input,
        need_offset or need_mask,
        need_weight,
        deterministic,
    )
    return (
        grad_input if need_input else None,
        grad_offset if need_offset else None,
        grad_mask if need_mask else None,
        grad_weight if need_weight else None,
        grad.sum((0, 2, 3)) if need_bias else None,
        *[None] * len(ctx.numbers),
    )


def _fake_backward(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *numbers: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    want_input, want_offset, want_weight, _ = numbers[-4:]

    def like(t: Tensor) -> Tensor:
        return torch.empty(t.shape, dtype=t.dtype, device=t.device, memory_format=like_input(t))

    def contiguous(t: Tensor) -> Tensor:
        return torch.empty(t.shape, dtype=t.dtype, device=t.device)

    none = x.new_empty
    return (
        like(x) if want_input else none(0),
        contiguous(offset) if want_offset else none(0),
        contiguous(mask) if want_offset and mask is not None else none(0),
        like(weight) if want_weight else none(0),
    )


_call = register(
    _forward, check=_check, fake=_fake, setup_context=_setup, backward=_gradients, autocast="lower"
)
register(_backward, fake=_fake_backward)
