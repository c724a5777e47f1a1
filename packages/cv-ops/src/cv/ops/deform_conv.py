"""Deformable convolution v1: each kernel tap reads the input at a position of its own.

Source: Dai et al., "Deformable Convolutional Networks", ICCV 2017. Conventions: :mod:`cv.ops._deform_conv`.

The gradient with respect to the input is deterministic on the CPU. On CUDA it is summed by atomics and so
varies in the last bits, unless ``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel
with a fixed order is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cv.cnn.deformable import DeformableLayer
from cv.utils import deprecated_api_warning

from ._deform_conv import (
    IntPair,
    apply_deform_conv2d,
    conv_repr,
    empty_output,
    init_offset_predictor,
    offset_predictor,
    output_size,
    set_conv_attributes,
    upgrade_offset_names,
)


def deform_conv2d(
    input: Tensor,  # noqa: A002 (documented name)
    offset: Tensor,
    weight: Tensor,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = False,
    im2col_step: int = 32,
) -> Tensor:
    """Deformable convolution (v1) of Dai et al., ICCV 2017.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64. Half types are accumulated in float32.
        offset: (N, deform_groups * KH * KW * 2, H_out, W_out), in input pixels: for each deformable group
            and kernel tap (row by row) y, then x. A position outside the map, or not finite, reads zero.
        weight: (C_out, C / groups, KH, KW) of the input's dtype.
        stride: Of the output, one number or (vertical, horizontal).
        padding: Zeros on both sides of the input.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.
        deform_groups: The channels are split into so many equal parts, each with offsets of its own.
        bias: Must be False; there is none.
        im2col_step: Accepted for compatibility. Scratch memory is bounded without it.

    Returns:
        (N, C_out, H_out, W_out) in the input's dtype and memory format,
        ``H_out = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.

    Raises:
        AssertionError: If ``bias`` is not False.
        TypeError: If an argument is not a tensor or not of a floating dtype, or dtypes differ.
        ValueError: If shapes or numbers do not fit each other, or the output would be empty in H or W.
    """
    if bias is not False:
        raise AssertionError(f"bias must be False: deform_conv2d has no bias, got {bias}")
    if im2col_step < 1:
        raise ValueError(f"im2col_step must be positive, got {im2col_step}")
    return apply_deform_conv2d(
        input, offset, None, weight, None, stride, padding, dilation, groups, deform_groups
    )


class DeformConv2d(nn.Module, DeformableLayer):
    """Deformable 2D convolution (v1) whose offsets are an input.

    An input that is too small for a single output pixel gives an empty output, as if it had been padded to
    the size of the kernel and the output cropped.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One number or (height, width).
        stride: Stride of the convolution.
        padding: Zeros on both sides of the input.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.
        deform_groups: Parts of the channels that have offsets of their own.
        bias: Must be False; the layer has no attribute ``bias``.
        im2col_step: Accepted for compatibility.
        deformable_groups: Old name of ``deform_groups``, with a warning.

    Raises:
        AssertionError: If ``bias`` is True or ``groups`` does not divide both channel numbers.
        ValueError: If another argument is out of its range.
    """

    @deprecated_api_warning({"deformable_groups": "deform_groups"}, cls_name="DeformConv2d")
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
        *,
        im2col_step: int = 32,
    ) -> None:
        super().__init__()
        if bias:
            raise AssertionError(f"bias must be False: DeformConv2d has none, got {bias}")
        set_conv_attributes(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deform_groups
        )
        self.im2col_step = im2col_step
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.reset_parameters()

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int

    def reset_parameters(self) -> None:
        """Draws the weight from the uniform distribution of He et al. 2015 for ReLU."""
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Convolves ``x`` with taps moved by ``offset``.

        Args:
            x: (N, C_in, H, W).
            offset: (N, deform_groups * KH * KW * 2, H_out, W_out), y before x; see :func:`deform_conv2d`.

        Returns:
            (N, C_out, H_out, W_out).
        """
        if 0 in output_size(self, x):
            return empty_output(self, x)
        return deform_conv2d(
            x, offset, self.weight, self.stride, self.padding, self.dilation, self.groups, self.deform_groups,
            False, self.im2col_step,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return conv_repr(self)


class DeformConv2dPack(DeformConv2d):
    """A :class:`DeformConv2d` that predicts its own offsets, used like ``nn.Conv2d``.

    The offsets come from the child ``conv_offset``, a convolution with the same kernel, stride, padding and
    dilation, which starts at zero: right after construction the layer is an ordinary convolution. State
    dicts of the older format, where the child was called ``<layer>_offset``, are loaded too.

    Args:
        args: As for :class:`DeformConv2d`.
        kwargs: As for :class:`DeformConv2d`.
    """

    _version = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv_offset = offset_predictor(self, channels_per_tap=2)

    def init_offset(self) -> None:
        """Sets the predicted offsets to zero."""
        init_offset_predictor(self.conv_offset)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Predicts the offsets and convolves.

        Args:
            x: (N, C_in, H, W).

        Returns:
            (N, C_out, H_out, W_out).
        """
        return super().forward(x, self.conv_offset(x))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *args: Any
    ) -> None:
        upgrade_offset_names(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
