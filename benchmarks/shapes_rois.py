"""Shapes of the operators on regions of interest, for ``bench_shapes.py``."""

from __future__ import annotations

from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler, layout

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _roi_align(draw: Draw) -> Case:
    n, channels, height, width = draw.log(1, 8), draw.log(1, 512), draw.log(1, 200), draw.log(1, 200)
    count, scale, aligned = draw.log(1, 1000), draw.choice([1.0, 0.25, 0.0625]), draw.random() < 0.5
    bins = draw.choice([1, 3, 7, 14, (2, 5)])
    samples = draw.choice([0, 0, 1, 2, 4])
    x = draw.map(n, channels, height, width).requires_grad_()
    rois = draw.rois(count, n, width / scale, height / scale)
    calls = {"cv": lambda: ops.roi_align(x, rois, bins, scale, samples, "avg", aligned)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.roi_align(x, rois, bins, scale, samples, aligned)
    if MM is not None:
        calls["mmcv"] = lambda: MM.roi_align(x.contiguous(), rois, bins, scale, samples, "avg", aligned)
    what = f"{count} boxes on {layout(x)}, bins {bins}, {samples or 'adaptive'} samples"
    return Case(what, calls, (x,))


SAMPLERS: dict[str, Sampler] = {"roi_align": _roi_align}
