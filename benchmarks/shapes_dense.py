"""Shapes of the operators on whole maps, for ``bench_shapes.py``."""

from __future__ import annotations

import torch
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler, layout

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _deform_conv2d(draw: Draw) -> Case:

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
    rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
    x = draw.map(n, channels, height, width).requires_grad_()
    offset = torch.randn(n, deform_groups * 2 * kernel**2, rows, columns, requires_grad=True)
    weight = torch.randn(out_channels, channels // groups, kernel, kernel, requires_grad=True)
    common = (stride, padding, dilation)
    calls = {"cv": lambda: ops.deform_conv2d(x, offset, weight, *common, groups, deform_groups)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.deform_conv2d(x, offset, weight, None, *common)
    if MM is not None:
        calls["mmcv"] = lambda: MM.deform_conv2d(
            x.contiguous(), offset, weight, *common, groups, deform_groups
        )
    what = (
        f"{layout(x)} to {out_channels}, kernel {kernel}, stride {stride}, dilation {dilation}, "
        f"groups {groups}, deform groups {deform_groups}"
    )
    return Case(what, calls, (x, offset, weight))


SAMPLERS: dict[str, Sampler] = {"deform_conv2d": _deform_conv2d}
