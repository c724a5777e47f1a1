"""Shapes of the operators of rotated detection, for ``bench_shapes.py``: against their composed forms."""

from __future__ import annotations

import torch
from shapes_draw import Case, Draw, Sampler
from torch import Tensor

from cv import ops


def _quadrilaterals(draw: Draw, count: int, size: float) -> Tensor:
    """(K, 8): corners of rectangles at any angle, up to a tenth of the image or small ones only."""
    centre, sides = torch.rand(count, 1, 2) * size, torch.rand(count, 2) * size * draw.choice([0.1, 0.02]) + 2
    angle = torch.rand(count, 1) * 6.28
    along = torch.cat([angle.cos(), angle.sin()], 1)[:, None] * sides[:, :1, None] / 2
    across = torch.cat([-angle.sin(), angle.cos()], 1)[:, None] * sides[:, 1:, None] / 2
    signs = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    return (centre + signs[:, :1] * along + signs[:, 1:] * across).reshape(count, 8)


def _grid(count: int, size: float) -> Tensor:
    """(N, 2): about so many centres of anchors, row by row."""
    side = max(1, round(count**0.5))
    steps = (torch.arange(side) + 0.5) * (size / side)
    return torch.cartesian_prod(steps, steps).flip(1).contiguous()


def composed_points_in_polygons(points: Tensor, polygons: Tensor) -> Tensor:
    """Even-odd rule; points on the outline may come out either way."""
    a = polygons.reshape(-1, 4, 2)
    b = a.roll(-1, 1)
    x, y = points[:, None, None].unbind(-1)
    above_a, above_b = a[..., 1] > y, b[..., 1] > y
    cross = (b[..., 0] - a[..., 0]) * (y - a[..., 1]) - (b[..., 1] - a[..., 1]) * (x - a[..., 0])
    crossed = (above_a != above_b) & ((cross > 0) == (b[..., 1] > a[..., 1]))
    return (crossed.sum(2) % 2).to(points.dtype)


def _points_in_polygons(draw: Draw) -> Case:
    points, count = _grid(draw.log(1, 20000), 1024.0), draw.log(1, 200)
    polygons = _quadrilaterals(draw, count, 1024.0)
    calls = {"cv": lambda: ops.points_in_polygons(points, polygons)}
    if len(points) * count <= 10**6:
        calls["composed"] = lambda: composed_points_in_polygons(points, polygons)
    return Case(f"{len(points)} points, {count} polygons", calls)


SAMPLERS: dict[str, Sampler] = {"points_in_polygons": _points_in_polygons}
