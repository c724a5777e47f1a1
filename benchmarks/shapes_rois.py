"""Shapes of the operators on regions of interest, for ``bench_shapes.py``."""

from __future__ import annotations

import bench_border_align
import bench_deform_roi_pool
import torch
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler, layout
from torch import Tensor

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _map(draw: Draw) -> Tensor:
    return draw.map(draw.log(1, 8), draw.log(1, 512), draw.log(1, 200), draw.log(1, 200)).requires_grad_()


def _rois(draw: Draw, x: Tensor) -> tuple[Tensor, float]:
    """Up to a thousand boxes in image pixels, and the scale of the map."""
    count, scale = draw.log(1, 1000), draw.choice([1.0, 0.25, 0.0625])
    return draw.rois(count, x.shape[0], x.shape[3] / scale, x.shape[2] / scale), scale


def _roi_align(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    aligned, bins, samples = (
        draw.random() < 0.5,
        draw.choice([1, 3, 7, 14, (2, 5)]),
        draw.choice([0, 0, 1, 2, 4]),
    )
    calls = {"cv": lambda: ops.roi_align(x, rois, bins, scale, samples, "avg", aligned)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.roi_align(x, rois, bins, scale, samples, aligned)
    if MM is not None:
        calls["mmcv"] = lambda: MM.roi_align(x.contiguous(), rois, bins, scale, samples, "avg", aligned)
    return Case(
        f"{len(rois)} boxes on {layout(x)}, bins {bins}, {samples or 'adaptive'} samples", calls, (x,)
    )


def _roi_align_max(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    bins, samples = draw.choice([1, 3, 7, (2, 5)]), draw.choice([0, 1, 2])
    calls = {"cv": lambda: ops.roi_align(x, rois, bins, scale, samples, "max")}
    if MM is not None:
        calls["mmcv"] = lambda: MM.roi_align(x.contiguous(), rois, bins, scale, samples, "max")
    return Case(
        f"{len(rois)} boxes on {layout(x)}, bins {bins}, {samples or 'adaptive'} samples", calls, (x,)
    )


def _roi_pool(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    bins = draw.choice([1, 3, 7, 14, (2, 5)])
    calls = {"cv": lambda: ops.roi_pool(x, rois, bins, scale)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.roi_pool(x, rois, bins, scale)
    return Case(f"{len(rois)} boxes on {layout(x)}, bins {bins}", calls, (x,))


def _roi_align_rotated(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    image, low, high = rois.split((1, 2, 2), 1)
    rois = torch.cat([image, (low + high) / 2, high - low, 7 * torch.rand(len(rois), 1)], 1)
    bins, samples = draw.choice([1, 3, 7, 14, (2, 5)]), draw.choice([0, 0, 1, 2, 4])
    calls = {"cv": lambda: ops.roi_align_rotated(x, rois, bins, scale, samples)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.roi_align_rotated(x.contiguous(), rois, bins, scale, samples)
    return Case(
        f"{len(rois)} boxes on {layout(x)}, bins {bins}, {samples or 'adaptive'} samples", calls, (x,)
    )


def _riroi_align_rotated(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 4), 8 * draw.log(1, 32), draw.log(2, 100), draw.log(2, 100)).requires_grad_()
    rois, scale = _rois(draw, x)
    image, low, high = rois.split((1, 2, 2), 1)
    rois = torch.cat([image, (low + high) / 2, high - low, 7 * torch.rand(len(rois), 1)], 1)
    bins, samples = draw.choice([1, 3, 7, 14, (2, 5)]), draw.choice([0, 0, 1, 2, 4])
    calls = {
        "cv": lambda: ops.riroi_align_rotated(x, rois, bins, scale, samples),
        "composed": lambda: composed_riroi_align_rotated(x, rois, bins, scale, samples),
    }
    return Case(
        f"{len(rois)} boxes on {layout(x)}, bins {bins}, {samples or 'adaptive'} samples", calls, (x,)
    )


def composed_riroi_align_rotated(
    x: Tensor, rois: Tensor, bins: int | tuple[int, int], scale: float, samples: int
) -> Tensor:
    """Our roi_align_rotated, then a product with a matrix per box that mixes 8 orientations."""
    pooled = ops.roi_align_rotated(x, rois, bins, scale, samples, False)
    turns = rois[:, 5, None] * (8 / (2 * torch.pi))
    part, steps = turns - turns.floor(), turns.floor().long()
    places = (torch.arange(8) - steps) % 8
    mixing = torch.zeros(len(rois), 8, 8)
    mixing.scatter_(2, places[..., None], (1 - part).expand(-1, 8)[..., None])
    mixing.scatter_add_(2, ((places + 1) % 8)[..., None], part.expand(-1, 8)[..., None])
    count, channels = pooled.shape[:2]
    return torch.matmul(mixing[:, None], pooled.reshape(count, channels // 8, 8, -1)).reshape(pooled.shape)


def _deform_roi_pool(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    bins, samples = draw.choice([1, 3, 7, 14]), draw.choice([1, 2, 4])
    offset = (torch.rand(len(rois), 2, bins, bins) - 0.5).requires_grad_()
    calls = {
        "cv": lambda: ops.deform_roi_pool(x, rois, offset, bins, scale, samples),
        "composed": lambda: bench_deform_roi_pool.composed(x, rois, offset, bins, scale, samples),
    }
    return Case(f"{len(rois)} boxes on {layout(x)}, bins {bins}, {samples} samples", calls, (x, offset))


def _border_align(draw: Draw) -> Case:
    n, channels, height, width = draw.log(1, 8), draw.log(1, 128), draw.log(2, 100), draw.log(2, 100)
    x = draw.map(n, 4 * channels, height, width).requires_grad_()
    count, pool_size = draw.choice([height * width, draw.log(1, 1000)]), draw.choice([1, 3, 10])
    boxes = torch.stack([draw.boxes(count, width - 1, height - 1) for _ in range(n)])
    calls = {
        "cv": lambda: ops.border_align(x, boxes, pool_size),
        "composed": lambda: bench_border_align.composed(x, boxes, pool_size),
    }
    return Case(f"{count} boxes on {layout(x)}, pool size {pool_size}", calls, (x,))


def _simple_roi_align(draw: Draw) -> Case:
    x = _map(draw)
    rois, scale = _rois(draw, x)
    bins, aligned = draw.choice([1, 3, 7, 14, (2, 5)]), draw.random() < 0.5
    calls = {"cv": lambda: ops.SimpleRoIAlign(bins, scale, aligned)(x, rois)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.SimpleRoIAlign(bins, scale, aligned)(x, rois)
    return Case(f"{len(rois)} boxes on {layout(x)}, bins {bins}", calls, (x,))


def _point_sample(draw: Draw) -> Case:
    x = _map(draw)
    points = torch.rand(x.shape[0], draw.log(1, 10000), 2)
    calls = {"cv": lambda: ops.point_sample(x, points)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.point_sample(x, points)
    return Case(f"{points.shape[1]} points on each image of {layout(x)}", calls, (x,))


SAMPLERS: dict[str, Sampler] = {
    "border_align": _border_align,
    "deform_roi_pool": _deform_roi_pool,
    "point_sample": _point_sample,
    "roi_align": _roi_align,
    "roi_align, greatest": _roi_align_max,
    "roi_align_rotated": _roi_align_rotated,
    "riroi_align_rotated": _riroi_align_rotated,
    "roi_pool": _roi_pool,
    "SimpleRoIAlign": _simple_roi_align,
}
