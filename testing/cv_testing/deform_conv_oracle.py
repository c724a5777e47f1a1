"""Deformable convolution as the papers define it: slow, float64, differentiable, no code of ours.

Dai et al., ICCV 2017, equations 2 to 4; Zhu et al., CVPR 2019, equation 1. One tap and one deformable group
at a time; bilinear interpolation is the sum over all four neighbours, each zero outside the map.
"""

from __future__ import annotations

import torch
from torch import Tensor


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    n, channels = x.shape[:2]
    out_channels, _, kernel_h, kernel_w = weight.shape
    out_h, out_w = offset.shape[2:]
    taps = kernel_h * kernel_w
    offset = offset.reshape(n, deform_groups, taps, 2, out_h, out_w)
    mask = (
        torch.ones_like(offset[:, :, :, 0])
        if mask is None
        else mask.reshape(n, deform_groups, taps, out_h, out_w)
    )
    rows = torch.arange(out_h, dtype=x.dtype)[:, None] * stride[0] - padding[0]
    cols = torch.arange(out_w, dtype=x.dtype)[None, :] * stride[1] - padding[1]
    parts = x.chunk(deform_groups, dim=1)
    sampled = []  # of shape (n, channels, out_h, out_w), one per tap
    for tap in range(taps):
        kh, kw = divmod(tap, kernel_w)
        per_group = []
        for group, part in enumerate(parts):
            y = rows + kh * dilation[0] + offset[:, group, tap, 0]
            xx = cols + kw * dilation[1] + offset[:, group, tap, 1]
            per_group.append(bilinear(part, y, xx) * mask[:, group, tap, None])
        sampled.append(torch.cat(per_group, dim=1))
    columns = torch.stack(sampled, dim=2)  # (n, channels, taps, out_h, out_w)
    columns = columns.reshape(n, groups, channels // groups, taps, out_h, out_w)
    kernel = weight.reshape(groups, out_channels // groups, channels // groups, taps)
    out = torch.einsum("ngcthw,goct->ngohw", columns, kernel).reshape(n, out_channels, out_h, out_w)
    return out if bias is None else out + bias[:, None, None]


def bilinear(x: Tensor, y: Tensor, xx: Tensor) -> Tensor:
    """x (n, c, H, W) at positions y, xx (n, h, w), zero outside: (n, c, h, w)."""
    n, c, height, width = x.shape
    top, left = y.detach().floor(), xx.detach().floor()
    total = x.new_zeros(n, c, *y.shape[1:])
    for row in (top, top + 1):
        for col in (left, left + 1):
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            index = (row.clamp(0, height - 1) * width + col.clamp(0, width - 1)).long().reshape(n, 1, -1)
            value = x.reshape(n, c, -1).gather(2, index.expand(n, c, -1)).reshape(n, c, *y.shape[1:])
            weight = (1 - (y - row).abs()) * (1 - (xx - col).abs()) * inside
            total = total + value * weight[:, None]
    return total


def smooth_offsets(shape: tuple[int, ...], spread: float, generator: torch.Generator) -> Tensor:
    """Normal float64 offsets of standard deviation ``spread`` that keep off whole pixels, in half types too.

    Bilinear interpolation has a kink at whole pixels: a derivative there is a choice, not a fact to test.
    """
    whole = (torch.randn(shape, generator=generator, dtype=torch.float64) * spread).floor().clamp(-60, 59)
    margin = torch.where(
        whole.abs() < 7, 0.05, 0.3
    ).double()  # bfloat16 has steps of 1/32 up to 8, 1/4 up to 64
    return whole + margin + (1 - 2 * margin) * torch.rand(shape, generator=generator, dtype=torch.float64)
