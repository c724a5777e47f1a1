"""Shapes of the operators on boxes, for ``bench_shapes.py``."""

from __future__ import annotations

import torch
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _nms(draw: Draw) -> Case:
    count, size = draw.log(1, 20000), draw.choice([100.0, 1000.0])
    boxes, scores, threshold = draw.boxes(count, size, size), torch.rand(count), draw.choice([0.3, 0.5, 0.7])
    calls = {"cv": lambda: ops.nms(boxes, scores, threshold)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.nms(boxes, scores, threshold)
    if MM is not None:
        calls["mmcv"] = lambda: MM.nms(boxes, scores, threshold)
    return Case(f"{count} boxes in {size:.0f} x {size:.0f}, threshold {threshold}", calls)


SAMPLERS: dict[str, Sampler] = {"nms": _nms}
