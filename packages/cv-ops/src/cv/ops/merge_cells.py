"""Cells that merge two feature maps, for necks found by architecture search (NAS-FPN, Ghiasi 2019)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn import ConvModule

from ._checks import check_floating

_OUT_CONV = {"groups": 1, "kernel_size": 3, "padding": 1, "bias": True}


class BaseMergeCell(nn.Module):
    """What all cells do: two inputs are convolved if wanted, resized, merged, and convolved if wanted.

    A subclass defines ``_binary_op``. Inputs and output share their number of channels, unless the subclass
    says otherwise.

    Args:
        fused_channels: Channels of what ``_binary_op`` gives.
        out_channels: Channels of the output, and of the inputs where they are convolved.
        with_out_conv: Whether the merged map is convolved.
        out_conv_cfg: Arguments of that :class:`cv.cnn.ConvModule`: ``groups``, ``kernel_size``, ``padding``,
            ``bias``; by default 1, 3, 1 and True.
        out_norm_cfg: Its norm layer.
        out_conv_order: Its order of activation, convolution and norm.
        with_input1_conv: Whether the first input is convolved (3 × 3).
        with_input2_conv: Whether the second input is.
        input_conv_cfg: The kind of those convolutions.
        input_norm_cfg: Their norm layer.
        upsample_mode: ``mode`` of ``torch.nn.functional.interpolate``.
    """

    def __init__(
        self,
        fused_channels: int | None = 256,
        out_channels: int | None = 256,
        with_out_conv: bool = True,
        out_conv_cfg: dict[str, Any] | None = None,
        out_norm_cfg: dict[str, Any] | None = None,
        out_conv_order: tuple[str, ...] = ("act", "conv", "norm"),
        with_input1_conv: bool = False,
        with_input2_conv: bool = False,
        input_conv_cfg: dict[str, Any] | None = None,
        input_norm_cfg: dict[str, Any] | None = None,
        upsample_mode: str = "nearest",
    ) -> None:
        super().__init__()
        if upsample_mode not in ("nearest", "bilinear"):
            raise ValueError(f"upsample_mode must be 'nearest' or 'bilinear', got {upsample_mode!r}")
        self.with_out_conv = with_out_conv
        self.with_input1_conv = with_input1_conv
        self.with_input2_conv = with_input2_conv
        self.upsample_mode = upsample_mode
        if with_out_conv:
            self.out_conv = ConvModule(
                _given("fused_channels", fused_channels),
                _given("out_channels", out_channels),
                **(_OUT_CONV if out_conv_cfg is None else out_conv_cfg),
                norm_cfg=out_norm_cfg,
                order=tuple(out_conv_order),
            )

        def input_conv(wanted: bool) -> nn.Module:
            if not wanted:
                return nn.Sequential()
            channels = _given("out_channels", out_channels)
            return ConvModule(
                channels, channels, 3, padding=1, bias=True, conv_cfg=input_conv_cfg, norm_cfg=input_norm_cfg
            )

        self.input1_conv = input_conv(with_input1_conv)
        self.input2_conv = input_conv(with_input2_conv)

    def _binary_op(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The merged map, from two maps of one size; defined by subclasses."""
        raise TypeError(f"{type(self).__name__} must define _binary_op, which merges two maps of one size")

    def forward(self, x1: Tensor, x2: Tensor, out_size: tuple[int, int] | None = None) -> Tensor:
        """Merges two maps.

        Args:
            x1: (N, C, H1, W1).
            x2: (N, C, H2, W2).
            out_size: (H, W) of the output; by default that of the larger input.

        Returns:
            (N, C_out, H, W). A smaller input is interpolated to that size; a larger one is pooled by its
            maximum, after zeros were added around it to a multiple of the size, where it is none.

        Raises:
            TypeError: If an input is not a tensor of a floating dtype.
            ValueError: If the inputs differ in batch or channels, or ``out_size`` is not a positive pair.
        """
        check_floating(x1=x1, x2=x2)
        if x1.dim() != 4 or x2.dim() != 4 or x1.shape[:2] != x2.shape[:2]:
            raise ValueError(
                "x1 and x2 must have shapes (N, C, H1, W1) and (N, C, H2, W2), "
                f"got {tuple(x1.shape)} and {tuple(x2.shape)}"
            )
        if out_size is None:
            height, width = max(tuple(x1.shape[2:]), tuple(x2.shape[2:]))
        elif len(out_size) == 2:
            height, width = out_size
        else:
            raise ValueError(f"out_size must be (H, W), got {out_size}")
        if height < 1 or width < 1:
            raise ValueError(f"the output must have at least one pixel, got {height} x {width}")
        size = (height, width)
        x1 = self._resize(self.input1_conv(x1), size)
        x2 = self._resize(self.input2_conv(x2), size)
        out = self._binary_op(x1, x2)
        if self.with_out_conv:
            out = self.out_conv(out)
        return out

    def _resize(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = x.shape[2:]
        if (height, width) == tuple(size):
            return x
        # Each axis is first brought down, then up: one may have to grow and the other to shrink.
        rows, columns = max(math.ceil(height / size[0]), 1), max(math.ceil(width / size[1]), 1)
        if rows > 1 or columns > 1:
            more_rows = rows * size[0] - height if rows > 1 else 0
            more_columns = columns * size[1] - width if columns > 1 else 0
            if more_rows or more_columns:
                left, top = more_columns // 2, more_rows // 2
                x = F.pad(x, (left, more_columns - left, top, more_rows - top))
            x = F.max_pool2d(x, (rows, columns), (rows, columns))
        if tuple(x.shape[2:]) != tuple(size):
            x = F.interpolate(x, size=size, mode=self.upsample_mode)
        return x


class SumCell(BaseMergeCell):
    """``x1 + x2``.

    Args:
        in_channels: Channels of the inputs.
        out_channels: Channels of the output.
        **kwargs: See :class:`BaseMergeCell`.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, **kwargs)

    def _binary_op(self, x1: Tensor, x2: Tensor) -> Tensor:
        return x1 + x2


class ConcatCell(BaseMergeCell):
    """The channels of ``x1``, then those of ``x2``.

    Args:
        in_channels: Channels of each input.
        out_channels: Channels of the output.
        **kwargs: See :class:`BaseMergeCell`.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(2 * in_channels, out_channels, **kwargs)

    def _binary_op(self, x1: Tensor, x2: Tensor) -> Tensor:
        return torch.cat([x1, x2], dim=1)


class GlobalPoolingCell(BaseMergeCell):
    """``x2 + sigmoid(mean of x2) * x1``, the mean being over all pixels.

    Args:
        in_channels: Channels of the inputs; needed where there is a convolution of the output.
        out_channels: Channels of the output; needed where there is a convolution.
        **kwargs: See :class:`BaseMergeCell`.
    """

    def __init__(
        self, in_channels: int | None = None, out_channels: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, out_channels, **kwargs)
        self.global_pool = nn.AdaptiveAvgPool2d((1, 1))

    def _binary_op(self, x1: Tensor, x2: Tensor) -> Tensor:
        attention: Tensor = self.global_pool(x2).sigmoid()
        return x2 + attention * x1


def _given(name: str, channels: int | None) -> int:
    if channels is None:
        raise ValueError(f"{name} must be given for a cell with a convolution")
    return channels
