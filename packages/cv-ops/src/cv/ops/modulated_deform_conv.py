"""Deformable convolution v2: v1 with a learnt amplitude (mask) for each sample.

Source: Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019. The native
operator and its conventions are in :mod:`cv.ops._deform_conv`.
"""

from __future__ import annotations

import math
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


def modulated_deform_conv2d(
    input: Tensor,  # noqa: A002 (documented name)
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Modulated deformable convolution (v2) of Zhu et al., CVPR 2019.

    Args:
        input: (N, C, H, W) float16, bfloat16, float32 or float64. Half types are accumulated in float32.
        offset: (N, deform_groups * KH * KW * 2, H_out, W_out), in input pixels: for each deformable group
            and kernel tap (row by row) y, then x. A position outside the map, or not finite, reads zero.
        mask: (N, deform_groups * KH * KW, H_out, W_out): factor of each sample, in the papers in [0, 1].
        weight: (C_out, C / groups, KH, KW) of the input's dtype.
        bias: (C_out,) of the input's dtype, or None.
        stride: Of the output, one number or (vertical, horizontal).
        padding: Zeros on both sides of the input.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.
        deform_groups: The channels are split into so many equal parts, each with its own offsets and masks.

    Returns:
        (N, C_out, H_out, W_out) in the input's dtype and memory format,
        ``H_out = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.

    Raises:
        TypeError: If an argument is not a tensor or not of a floating dtype, or dtypes differ.
        ValueError: If shapes or numbers do not fit each other, or the output would be empty in H or W.
    """
    if mask is None:
        raise TypeError("mask of modulated_deform_conv2d must be a tensor, got None (v1 is deform_conv2d)")
    return apply_deform_conv2d(
        input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups,
    )  # fmt: skip


class ModulatedDeformConv2d(nn.Module, DeformableLayer):
    """Deformable 2D convolution (v2) whose offsets and masks are inputs.

    An input that is too small for a single output pixel gives an empty output.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One number or (height, width).
        stride: Stride of the convolution.
        padding: Zeros on both sides of the input.
        dilation: Spacing of the kernel taps.
        groups: Blocked connections from input to output channels.
        deform_groups: Parts of the channels that have offsets and masks of their own.
        bias: Whether the layer has a learnt bias.
        deformable_groups: Old name of ``deform_groups``, with a warning.

    Raises:
        AssertionError: If ``groups`` does not divide both channel numbers.
        ValueError: If another argument is out of its range.
    """

    in_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int

    @deprecated_api_warning({"deformable_groups": "deform_groups"}, cls_name="ModulatedDeformConv2d")
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
        bias: bool | str = True,
    ) -> None:
        super().__init__()
        set_conv_attributes(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deform_groups
        )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.init_weights()

    def init_weights(self) -> None:
        """Draws the weight uniformly within one over the square root of the fan-in; the bias is zero."""
        bound = 1.0 / math.sqrt(self.in_channels * self.kernel_size[0] * self.kernel_size[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Convolves ``x`` with taps moved by ``offset`` and scaled by ``mask``.

        Args:
            x: (N, C_in, H, W).
            offset: (N, deform_groups * KH * KW * 2, H_out, W_out); see :func:`modulated_deform_conv2d`.
            mask: (N, deform_groups * KH * KW, H_out, W_out).

        Returns:
            (N, C_out, H_out, W_out).
        """
        if 0 in output_size(self, x):
            return empty_output(self, x)
        return modulated_deform_conv2d(
            x, offset, mask, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
            self.deform_groups,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return conv_repr(self)


class ModulatedDeformConv2dPack(ModulatedDeformConv2d):
    """A :class:`ModulatedDeformConv2d` that predicts its own offsets and masks, used like ``nn.Conv2d``.

    The child ``conv_offset`` gives for each deformable group and tap two offsets and, through a sigmoid, a
    mask. It starts at zero: right after construction the layer is an ordinary convolution with half its
    weight. State dicts of the older format, where the child was called ``<layer>_offset``, are loaded too.

    Args:
        args: As for :class:`ModulatedDeformConv2d`.
        kwargs: As for :class:`ModulatedDeformConv2d`.
    """

    _version = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv_offset = offset_predictor(self, channels_per_tap=3)

    def init_weights(self) -> None:
        """Initialises weight and bias, and sets the predictor to zero once it is there."""
        super().init_weights()
        if "conv_offset" in self._modules:  # the base class initialises before the child is made
            init_offset_predictor(self.conv_offset)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Predicts offsets and masks and convolves.

        Args:
            x: (N, C_in, H, W).

        Returns:
            (N, C_out, H_out, W_out).
        """
        predicted = self.conv_offset(x)
        offsets = predicted.shape[1] // 3 * 2
        return super().forward(x, predicted[:, :offsets], predicted[:, offsets:].sigmoid())

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *args: Any
    ) -> None:
        upgrade_offset_names(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
