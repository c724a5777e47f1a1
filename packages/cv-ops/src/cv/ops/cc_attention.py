"""Criss-cross attention (Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cv.cnn import Scale

from ._checks import check_floating


class CrissCrossAttention(nn.Module):
    """Each pixel attends to the pixels of its column and its row.

    A pixel is in both; it is counted once, in the row. The layer is the identity right after construction,
    since ``gamma`` starts at 0. It is composed of matrix products, so it runs on every device, in every
    dtype, and has derivatives of every order.

    Attributes:
        query_conv: 1 × 1 convolution to ``in_channels // 8`` (at least 1) channels.
        key_conv: The same.
        value_conv: 1 × 1 convolution to ``in_channels`` channels.
        gamma: :class:`cv.cnn.Scale`, the weight of the attention beside the input.

    Args:
        in_channels: Channels of the input and the output.

    Raises:
        ValueError: If ``in_channels`` is not positive.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be positive, got {in_channels}")
        inner = max(in_channels // 8, 1)
        self.in_channels = in_channels
        self.query_conv = nn.Conv2d(in_channels, inner, 1)
        self.key_conv = nn.Conv2d(in_channels, inner, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = Scale(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the attention.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            The same shape: ``x`` plus ``gamma`` times the attended values.

        Raises:
            TypeError: If ``x`` is no tensor of a floating dtype.
            ValueError: If ``x`` does not have that shape.
        """
        check_floating(x=x)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must have shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        height = x.shape[2]
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)

        # (N, H, W, H) and (N, H, W, W): pixel (h, w) with (i, w) and with (h, j)
        column = torch.einsum("nchw,nciw->nhwi", query, key)
        row = torch.einsum("nchw,nchj->nhwj", query, key)
        itself = torch.eye(height, dtype=torch.bool, device=x.device)[:, None, :]  # (h, 1, i)
        column = column.masked_fill(itself, -math.inf)

        weights = torch.cat([column, row], dim=3).softmax(dim=3)
        column, row = weights[..., :height], weights[..., height:]
        attended = torch.einsum("nciw,nhwi->nchw", value, column) + torch.einsum(
            "nchj,nhwj->nchw", value, row
        )
        out: Tensor = self.gamma(attended) + x
        return out.contiguous()

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}"
