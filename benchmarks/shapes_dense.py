"""Shapes of the operators on whole maps, for ``bench_shapes.py``."""

from __future__ import annotations

import torch
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler, layout
from torch import Tensor
from torch.nn import functional as F

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _deform_conv2d(draw: Draw, modulated: bool = False) -> Case:
    groups, deform_groups = draw.choice([1, 1, 2, 4]), draw.choice([1, 1, 2, 4])
    unit = max(groups, deform_groups)
    n, channels, out_channels = (
        draw.log(1, 4),
        unit * draw.log(1, 128 // unit),
        groups * draw.log(1, 128 // groups),
    )
    kernel, stride, dilation = draw.choice([1, 3, 3, 5]), draw.choice([1, 1, 2]), draw.choice([1, 1, 2])
    padding = dilation * (kernel // 2)
    height, width = draw.log(1, 64), draw.log(1, 64)
    places = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    x = draw.map(n, channels, height, width).requires_grad_()
    offset = torch.randn(n, deform_groups * 2 * kernel**2, *places, requires_grad=True)
    weight = torch.randn(out_channels, channels // groups, kernel, kernel, requires_grad=True)
    common = (stride, padding, dilation)
    what = (
        f"{layout(x)} to {out_channels}, kernel {kernel}, stride {stride}, dilation {dilation}, "
        f"groups {groups}, deform groups {deform_groups}"
    )
    parts = (groups, deform_groups)
    if modulated:
        mask = torch.rand(n, deform_groups * kernel**2, *places, requires_grad=True)
        bias = torch.randn(out_channels, requires_grad=True)
        calls = {"cv": lambda: ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *common, *parts)}
        if TV is not None:
            calls["torchvision"] = lambda: TV.deform_conv2d(x, offset, weight, bias, *common, mask)
        if MM is not None:
            calls["mmcv"] = lambda: MM.modulated_deform_conv2d(
                x.contiguous(), offset, mask, weight, bias, *common, *parts
            )
        return Case(what, calls, (x, offset, mask, weight, bias))
    calls = {"cv": lambda: ops.deform_conv2d(x, offset, weight, *common, *parts)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.deform_conv2d(x, offset, weight, None, *common)
    if MM is not None:
        calls["mmcv"] = lambda: MM.deform_conv2d(x.contiguous(), offset, weight, *common, *parts)
    return Case(what, calls, (x, offset, weight))


def _modulated_deform_conv2d(draw: Draw) -> Case:
    return _deform_conv2d(draw, modulated=True)


def _multi_scale_deformable_attn(draw: Draw) -> Case:
    n, heads, channels = draw.log(1, 4), draw.log(1, 8), draw.choice([draw.log(1, 64), 16, 32, 64])
    levels, points, queries = draw.log(1, 4), draw.log(1, 8), draw.log(1, 1000)
    height, width = draw.log(1, 100), draw.log(1, 100)
    sizes = [(-(-height >> level) or 1, -(-width >> level) or 1) for level in range(levels)]
    shapes = torch.tensor(sizes)
    areas = shapes.prod(1)
    value = torch.randn(n, int(areas.sum()), heads, channels, requires_grad=True)
    centre = torch.rand(n, queries, 1, 1, 1, 2)
    places = (centre + 0.05 * torch.randn(n, queries, heads, levels, points, 2)).requires_grad_()
    weights = torch.rand(n, queries, heads, levels, points, requires_grad=True)
    starts = areas.cumsum(0) - areas
    composed = ops.multi_scale_deformable_attn_pytorch
    if MM is not None:
        composed = MM.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    calls = {
        "cv": lambda: ops.multi_scale_deformable_attn(value, shapes, starts, places, weights),
        "composed": lambda: composed(value, shapes, places, weights),
    }
    what = f"{n} x {queries} queries, {heads} heads of {channels}, {points} points, levels " + ", ".join(
        f"{h} x {w}" for h, w in sizes
    )
    return Case(what, calls, (value, places, weights))


def _masked_conv2d(draw: Draw) -> Case:
    n, channels, out_channels = draw.log(1, 2), draw.log(1, 256), draw.log(1, 256)
    kernel, height, width = draw.choice([1, 3, 3, 5]), draw.log(1, 100), draw.log(1, 100)
    share = draw.choice([0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 1.0])
    x = draw.map(n, channels, height, width).requires_grad_()
    weight = torch.randn(out_channels, channels, kernel, kernel, requires_grad=True)
    bias = torch.randn(out_channels, requires_grad=True)
    mask = torch.rand(draw.choice([1, n]), height, width) < share
    padding = kernel // 2
    calls = {
        "cv": lambda: ops.masked_conv2d(x, mask, weight, bias, padding),
        "composed": lambda: F.conv2d(x, weight, bias, 1, padding).masked_fill(~mask[:, None], 0.0),
    }
    what = f"{share:.0%} of {layout(x)} to {out_channels}, kernel {kernel}"
    return Case(what, calls, (x, weight, bias))


def _carafe(draw: Draw) -> Case:
    groups, kernel, scale = draw.choice([1, 1, 2, 4]), draw.choice([1, 3, 5, 5, 7]), draw.log(1, 4)
    n, channels = draw.log(1, 2), groups * draw.log(1, 256 // groups)
    height, width = draw.log(1, 48), draw.log(1, 48)
    x = draw.map(n, channels, height, width).requires_grad_()
    masks = torch.rand(n, groups * kernel**2, height * scale, width * scale, requires_grad=True)
    calls = {
        "cv": lambda: ops.carafe(x, masks, kernel, groups, scale),
        "composed": lambda: _composed_carafe(x, masks, kernel, groups, scale),
        "einsum": lambda: _einsum_carafe(x, masks, kernel, groups, scale),
    }
    what = f"{layout(x)}, kernel {kernel}, groups {groups}, scale {scale}"
    return Case(what, calls, (x, masks))


def _composed_carafe(x: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    n, channels, height, width = x.shape
    size = (height * scale, width * scale)
    windows = F.unfold(x, kernel, padding=kernel // 2).view(n, channels * kernel**2, height, width)
    windows = F.interpolate(windows, scale_factor=scale, mode="nearest")
    windows = windows.view(n, groups, channels // groups, kernel**2, *size)
    return (windows * masks.view(n, groups, 1, kernel**2, *size)).sum(3).view(n, channels, *size)


def _einsum_carafe(x: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    n, channels, height, width = x.shape
    windows = F.unfold(x, kernel, padding=kernel // 2)
    windows = windows.view(n, groups, channels // groups, kernel**2, height, width)
    masks = masks.view(n, groups, kernel**2, height, scale, width, scale)
    out = torch.einsum("ngcthw,ngthiwj->ngchiwj", windows, masks)
    return out.reshape(n, channels, height * scale, width * scale)


def _correlation(draw: Draw) -> Case:
    n, channels, height, width = draw.log(1, 2), draw.log(1, 256), draw.log(1, 64), draw.log(1, 64)
    reach, kernel, stride = draw.choice([0, 1, 3, 4, 4]), draw.choice([1, 1, 1, 3]), draw.choice([1, 1, 2])
    first, second = (torch.randn(n, channels, height, width, requires_grad=True) for _ in range(2))
    calls = {
        "cv": lambda: ops.correlation(first, second, kernel, reach, stride, kernel // 2),
        "composed": lambda: _composed_correlation(first, second, kernel, reach, stride),
        "unfold": lambda: _unfold_correlation(first, second, kernel, reach, stride),
    }
    what = (
        f"{layout(first)}, {2 * reach + 1} x {2 * reach + 1} displacements, kernel {kernel}, stride {stride}"
    )
    return Case(what, calls, (first, second))


def _composed_correlation(first: Tensor, second: Tensor, kernel: int, reach: int, stride: int) -> Tensor:
    height, width = first.shape[2:]
    around = F.pad(second, [reach] * 4)
    patch = 2 * reach + 1
    maps = [
        (first * around[:, :, dy : dy + height, dx : dx + width]).sum(1)
        for dy in range(patch)
        for dx in range(patch)
    ]
    return _window_sums(torch.stack(maps, 1), kernel, stride).unflatten(1, (patch, patch))


def _unfold_correlation(first: Tensor, second: Tensor, kernel: int, reach: int, stride: int) -> Tensor:
    n, channels, height, width = first.shape
    patch = 2 * reach + 1
    around = F.unfold(second, patch, padding=reach).view(n, channels, patch * patch, height, width)
    maps = torch.einsum("nchw,nckhw->nkhw", first, around)
    return _window_sums(maps, kernel, stride).unflatten(1, (patch, patch))


def _window_sums(maps: Tensor, kernel: int, stride: int) -> Tensor:
    if kernel == 1:
        return maps[:, :, ::stride, ::stride]
    return F.avg_pool2d(maps, kernel, stride, kernel // 2) * kernel**2


SAMPLERS: dict[str, Sampler] = {
    "carafe": _carafe,
    "correlation": _correlation,
    "deform_conv2d": _deform_conv2d,
    "masked_conv2d": _masked_conv2d,
    "modulated_deform_conv2d": _modulated_deform_conv2d,
    "multi_scale_deformable_attn": _multi_scale_deformable_attn,
}
