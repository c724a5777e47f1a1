"""Masked convolution: a convolution that is computed only where a mask says so, and zero elsewhere.

Source: Wang et al., "Region Proposal by Guided Anchoring", CVPR 2019, section 3.4. Where few pixels are
wanted, their windows are gathered and multiplied by the weight; otherwise, and under ``torch.compile``, the
whole convolution is computed, which is faster then, and the rest set to zero. Both are made of PyTorch's
operators: all devices and dtypes, derivatives of every order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.utils import UsageError

from ._deform_conv import IntPair, pair

# What the two ways cost, in multiply-adds of a whole convolution: a number that is copied, read in or set to
# zero; one of a matrix product of gathered windows; the calls of the dozen operators that gathering takes.
_COPY, _GATHERED_PRODUCT, _GATHER_CALLS = 80, 1.4, 15_000_000


def masked_conv2d(
    features: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: IntPair = 0,
    stride: IntPair = 1,
    *,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolves ``features`` where ``mask`` is positive; the output is zero elsewhere.

    Args:
        features: (N, C, H, W) of a floating dtype.
        mask: (1, H_out, W_out), the same for all images, or (N, H_out, W_out); of any dtype.
        weight: (C_out, C / groups, KH, KW) of the features' dtype.
        bias: (C_out,) or None.
        padding: Zeros on both sides of the features, one number or (vertical, horizontal).
        stride: Must be 1.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.

    Returns:
        (N, C_out, H_out, W_out), ``H_out = H + 2 * padding - dilation * (KH - 1)``.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: If ``stride`` is not 1.
        UsageError: (a ValueError and AssertionError) if shapes do not fit each other.
    """
    if stride != 1 and pair("stride", stride, 1) != (1, 1):
        raise ValueError(f"stride must be 1: masked_conv2d has no other, got {stride}")
    padding, dilation = pair("padding", padding, 0), pair("dilation", dilation, 1)
    options = (padding, dilation, groups)
    if torch.compiler.is_compiling():
        _check(features, mask, weight, *options)
        return _whole(features, mask, weight, bias, *options)
    try:  # where nothing can be gained by gathering, checks would take a fifth of the time
        if weight.numel() * mask.numel() * features.size(0) < _GATHER_CALLS:
            return _whole(features, mask, weight, bias, *options)
    except (RuntimeError, AttributeError, IndexError, TypeError):
        _check(features, mask, weight, *options)
        raise
    _check(features, mask, weight, *options)
    whole, gathered, each = _costs(features, weight, features.size(0) * mask[0].numel())
    if gathered < whole:  # else not even an empty mask would make up for looking at it
        wanted = (mask > 0).expand(features.size(0), -1, -1)
        pixels = wanted.flatten().nonzero()[:, 0]
        if gathered + len(pixels) * each < whole:
            return _gathered(features, wanted, pixels, weight, bias, *options)
    return _whole(features, mask, weight, bias, *options)


class MaskedConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` that can be told where to compute.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One number or (height, width).
        stride: Stride; with a mask it must be 1.
        padding: Zeros on both sides of the input.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.
        bias: Whether there is a learnt bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002 (documented name)
        """Convolves; with a mask, only where it is positive.

        Args:
            input: (N, C_in, H, W).
            mask: (1, H_out, W_out) or (N, H_out, W_out); None: everywhere.

        Returns:
            (N, C_out, H_out, W_out).
        """
        if mask is None:
            return super().forward(input)
        return masked_conv2d(
            input,
            mask,
            self.weight,
            self.bias,
            self.padding,  # type: ignore[arg-type]
            self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


def _whole(
    features: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    out = F.conv2d(features, weight, bias, 1, padding, dilation, groups)
    if mask.dim() != 3 or (mask.size(1), mask.size(2)) != (out.size(2), out.size(3)):
        raise TypeError("the mask does not fit")  # _check says how
    wanted = mask if mask.dtype is torch.bool else mask > 0
    return out.masked_fill_(wanted.logical_not().unsqueeze(1), 0.0)


def _costs(features: Tensor, weight: Tensor, places: int) -> tuple[float, float, float]:
    """Of the whole convolution; of gathering for an empty mask, and for each pixel that is wanted."""
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    window = features.shape[1] * kernel_h * kernel_w
    products = out_channels * group_channels * kernel_h * kernel_w
    fill = places * out_channels * _COPY
    copies = (features.numel() + weight.numel()) * _COPY + fill
    return places * products + fill, _GATHER_CALLS + copies, window * _COPY + products * _GATHERED_PRODUCT


def _gathered(
    features: Tensor,
    wanted: Tensor,
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """``pixels``: indices into the flattened ``wanted`` (N, H_out, W_out)."""
    n, channels, height, width = features.shape
    out_channels, _, kernel_h, kernel_w = weight.shape
    _, out_h, out_w = wanted.shape
    padded_w = width + 2 * padding[1]
    image, row, column = pixels // (out_h * out_w), pixels // out_w % out_h, pixels % out_w
    corner = (image * (height + 2 * padding[0]) + row) * padded_w + column
    tap_rows = torch.arange(kernel_h, device=features.device) * (dilation[0] * padded_w)
    tap_columns = torch.arange(kernel_w, device=features.device) * dilation[1]
    index = corner[:, None] + (tap_rows[:, None] + tap_columns).flatten()  # (pixels, taps)

    padded = F.pad(features, (padding[1], padding[1], padding[0], padding[0]))
    rows = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    windows = rows.index_select(0, index.flatten())
    windows = windows.view(len(pixels), index.shape[1], groups, channels // groups)
    windows = windows.permute(2, 0, 1, 3).flatten(2)  # (groups, pixels, taps * channels of a group)
    matrices = weight.permute(0, 2, 3, 1).reshape(groups, out_channels // groups, -1)
    values = torch.bmm(windows, matrices.transpose(1, 2)).transpose(0, 1).flatten(1)
    if bias is not None:
        values = values + bias
    out = values.new_zeros(wanted.numel(), out_channels).index_copy(0, pixels, values)
    return out.view(n, out_h, out_w, out_channels).permute(0, 3, 1, 2).contiguous()


def _check(
    features: Tensor,
    mask: Tensor,
    weight: Tensor,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    for name, t in (("features", features), ("mask", mask), ("weight", weight)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
        if t.device != features.device:
            raise UsageError(f"{name} must be on the device of features ({features.device}), got {t.device}")
    if features.dim() != 4:
        raise UsageError(f"features must have shape (N, C, H, W), got {tuple(features.shape)}")
    n, channels, height, width = features.shape
    if groups < 1 or channels % groups != 0:
        raise UsageError(f"groups must divide the channels of features, got {groups} and {channels}")
    if weight.dim() != 4 or weight.shape[1] != channels // groups or weight.shape[0] % groups != 0:
        raise UsageError(
            f"weight must have shape (C_out, {channels // groups}, KH, KW), got {tuple(weight.shape)}"
        )
    out_h = height + 2 * padding[0] - dilation[0] * (weight.shape[2] - 1)
    out_w = width + 2 * padding[1] - dilation[1] * (weight.shape[3] - 1)
    if out_h < 1 or out_w < 1:
        raise UsageError(f"features are too small for an output pixel, got {tuple(features.shape)}")
    if mask.dim() != 3 or mask.shape[0] not in (1, n) or tuple(mask.shape[1:]) != (out_h, out_w):
        raise UsageError(
            f"mask must have shape (1, {out_h}, {out_w}) or ({n}, {out_h}, {out_w}), got {tuple(mask.shape)}"
        )
