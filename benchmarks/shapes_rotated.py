"""Shapes of the operators of rotated detection, for ``bench_shapes.py``: against their composed forms."""

from __future__ import annotations

import torch
from op_timing import mmcv_ops
from shapes_draw import Case, Draw, Sampler, layout
from torch import Tensor, nn

from cv import ops

MM = mmcv_ops()


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


def cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def hull_edges(points: Tensor) -> Tensor:
    """(..., P, P): which pairs of points are edges of the convex hull in the positive direction."""
    along = points[..., None, :, :] - points[..., :, None, :]
    to_all = points[..., None, None, :, :] - points[..., :, None, None, :]
    return (cross(along[..., None, :], to_all) >= -1e-4).all(-1) & (along.abs().sum(-1) > 0)


def within(at_start: Tensor, at_end: Tensor) -> Tensor:
    """How much of an edge lies on the positive side of several lines (the last dimension)."""
    span = at_start - at_end
    t = at_start / torch.where(span == 0, 1.0, span)
    start = torch.where((at_start < 0) & (at_end >= 0), t, 0.0).amax(-1)
    end = torch.where((at_start >= 0) & (at_end < 0), t, 1.0).amin(-1)
    return torch.where(((at_start < 0) & (at_end < 0)).any(-1), 0.0, (end - start).clamp(min=0))


def composed_areas(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of hulls of points (..., 9, 2), of convex quadrilaterals (..., 4, 2), and what they share.

    The outline of what is shared consists of those parts of both outlines that lie within the other.
    """
    is_edge = hull_edges(p)
    of_hull = torch.where(is_edge, cross(p[..., :, None, :], p[..., None, :, :]), 0.0)
    q_next = q.roll(-1, -2)
    of_polygon = cross(q, q_next)
    to_lines = cross((q_next - q)[..., None, :, :], p[..., :, None, :] - q[..., None, :, :])  # (..., 9, 4)
    hull_within = within(to_lines[..., :, None, :], to_lines[..., None, :, :])
    along = p[..., None, :, :] - p[..., :, None, :]
    to_edges = cross(along[..., None, :, :, :], q[..., :, None, None, :] - p[..., None, :, None, :])
    to_edges = torch.where(is_edge[..., None, :, :], to_edges, 1.0).flatten(-2)  # (..., 4, 81)
    polygon_within = within(to_edges, to_edges.roll(-1, -2))
    shared = (of_hull * hull_within).sum((-1, -2)) + (of_polygon * polygon_within).sum(-1)
    return of_hull.sum((-1, -2)) / 2, of_polygon.sum(-1) / 2, shared / 2


def composed_convex_iou(points: Tensor, polygons: Tensor) -> Tensor:
    a, b, shared = composed_areas(points.reshape(-1, 1, 9, 2), polygons.reshape(-1, 4, 2))
    return shared / (a + b - shared)


def composed_convex_giou(points: Tensor, polygons: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        p, q = leaf.reshape(-1, 9, 2), polygons.reshape(-1, 4, 2)
        a, b, shared = composed_areas(p, q)
        both = torch.cat([p, q], 1)
        outline = cross(both[:, :, None], both[:, None])
        enclosing = torch.where(hull_edges(both), outline, 0.0).sum((1, 2)) / 2
        union = a + b - shared
        giou = shared / union - (enclosing - union) / enclosing
        return giou, torch.autograd.grad(giou.sum(), leaf)[0]


def _pointsets(polygons: Tensor) -> Tensor:
    """(K, 18): points around the corners of quadrilaterals."""
    corners = polygons.reshape(-1, 4, 2)
    middle = corners.mean(1, keepdim=True)
    nine = torch.cat([corners, (corners + corners.roll(1, 1)) / 2, middle], 1)
    return (middle + (nine - middle) * (0.5 + torch.rand(len(corners), 9, 2))).reshape(-1, 18)


def _convex_iou(draw: Draw) -> Case:
    points = _pointsets(_quadrilaterals(draw, draw.log(1, 20000), 1024.0))
    polygons = _quadrilaterals(draw, draw.log(1, 200), 1024.0)
    calls = {"cv": lambda: ops.convex_iou(points, polygons)}
    if len(points) * len(polygons) <= 10**5:
        calls["composed"] = lambda: composed_convex_iou(points, polygons)
    return Case(f"{len(points)} sets of points, {len(polygons)} polygons", calls)


def _convex_giou(draw: Draw) -> Case:
    count = draw.log(1, 20000)
    polygons = _quadrilaterals(draw, count, 1024.0)
    points = _pointsets(polygons)
    calls = {"cv": lambda: ops.convex_giou(points, polygons)}
    calls["composed"] = lambda: composed_convex_giou(points, polygons)
    return Case(f"{count} pairs", calls)


def composed_min_area_polygons(points: Tensor) -> Tensor:
    """The rectangles along all edges of the hull at once."""
    p = points.reshape(-1, 9, 2)
    is_edge = hull_edges(p).flatten(1)
    e = (p[:, None] - p[:, :, None]).flatten(1, 2)  # (N, 81, 2)
    u = e / e.norm(dim=2, keepdim=True).clamp(min=1e-12)
    along = (p[:, None] * u[:, :, None]).sum(3)
    across = cross(u[:, :, None], p[:, None])
    (u0, u1), (v0, v1) = along.aminmax(dim=2), across.aminmax(dim=2)
    area = torch.where(is_edge, (u1 - u0) * (v1 - v0), torch.inf)
    best = area.argmin(1, keepdim=True)
    u0, u1, v0, v1 = (t.gather(1, best) for t in (u0, u1, v0, v1))
    x, y = u.gather(1, best[..., None].expand(-1, -1, 2))[:, 0].split(1, 1)
    corners = [
        torch.cat([a * x - b * y, a * y + b * x], 1) for a, b in ((u1, v0), (u0, v0), (u0, v1), (u1, v1))
    ]
    return torch.cat(corners, 1)


def _min_area_polygons(draw: Draw) -> Case:
    count = draw.log(1, 20000)
    points = _pointsets(_quadrilaterals(draw, count, 1024.0))
    calls = {"cv": lambda: ops.min_area_polygons(points)}
    calls["composed"] = lambda: composed_min_area_polygons(points)
    return Case(f"{count} sets of points", calls)


def composed_active_rotated_filter(x: Tensor, indices: Tensor) -> Tensor:
    outputs, inputs, orientations, height, width = x.shape
    rotations = indices.shape[3]
    sources = (indices.reshape(-1, rotations).long() - 1).argsort(0).t().reshape(-1)
    out = x.reshape(outputs, inputs, -1)[:, :, sources].reshape(outputs, inputs, rotations, -1)
    return out.transpose(1, 2).reshape(outputs * rotations, inputs * orientations, height, width)


def _active_rotated_filter(draw: Draw) -> Case:
    orientations, size = draw.choice([1, 8]), draw.choice([1, 3])
    x = torch.randn(draw.log(1, 64), draw.log(1, 64), orientations, size, size)
    entries = orientations * size * size
    indices = torch.stack([torch.randperm(entries) for _ in range(8)], 1).reshape(orientations, size, size, 8)
    indices = indices.int() + 1
    calls = {"cv": lambda: ops.active_rotated_filter(x, indices)}
    calls["composed"] = lambda: composed_active_rotated_filter(x, indices)
    if MM is not None:
        calls["mmcv"] = lambda: MM.active_rotated_filter(x, indices)
    return Case(layout(x.detach().flatten(3)), calls, (x.requires_grad_(),))


def composed_chamfer_distance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    squared = (a[:, :, None] - b[:, None]).square().sum(3)
    (d1, i1), (d2, i2) = squared.min(2), squared.min(1)
    return d1, d2, i1, i2


def _chamfer_distance(draw: Draw) -> Case:
    batch, n, m = draw.log(1, 500), draw.log(1, 400), draw.log(1, 400)
    a, b = torch.rand(batch, n, 2).requires_grad_(), torch.rand(batch, m, 2).requires_grad_()
    calls = {"cv": lambda: ops.chamfer_distance(a, b)[0]}
    if batch * n * m <= 10**7:
        calls["composed"] = lambda: composed_chamfer_distance(a, b)[0]
    return Case(f"{batch} x ({n}, {m})", calls, (a, b))


def composed_rotated_feature_align(x: Tensor, boxes: Tensor, points: int) -> Tensor:
    """By grid_sample; what lies just outside the map is read otherwise."""
    y, xs, w, h, angle = boxes.unbind(-1)
    size = boxes.new_tensor([x.shape[3], x.shape[2]])
    c, s, out = angle.cos(), angle.sin(), x
    for along, across in ((0.0, 0.0), (0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5))[:points]:
        dx, dy = along * w, across * h
        at = torch.stack([xs + dx * c - dy * s, y + dx * s + dy * c], -1)
        out = out + nn.functional.grid_sample(x, (2 * at + 1) / size - 1, align_corners=False)
    return out


def _rotated_feature_align(draw: Draw) -> Case:
    n, height, width, points = draw.choice([1, 2]), draw.log(1, 100), draw.log(1, 100), draw.choice([1, 5])
    x = draw.map(n, draw.log(1, 256), height, width)
    boxes = torch.rand(n, height, width, 5) * torch.tensor([height, width, 9.0, 9.0, 6.28])
    calls = {"cv": lambda: ops.rotated_feature_align(x, boxes, 1.0, points)}
    calls["composed"] = lambda: composed_rotated_feature_align(x, boxes, points)
    if MM is not None:
        calls["mmcv"] = lambda: MM.rotated_feature_align(x, boxes, 1.0, points)
    return Case(f"{layout(x)}, points {points}", calls, (x.requires_grad_(),))


def composed_box_iou_quadri(a: Tensor, b: Tensor) -> Tensor:
    """By `composed_areas`: the first as the hull of nine points."""
    return composed_convex_iou(torch.cat([a, a[:, :2].repeat(1, 5)], 1), b)


def _box_iou_quadri(draw: Draw) -> Case:
    a = _quadrilaterals(draw, draw.log(1, 1000), 1024.0)
    aligned, mode = draw.random() < 0.3, draw.choice(["iou", "iof"])
    b = _quadrilaterals(draw, len(a) if aligned else draw.log(1, 1000), 1024.0)
    calls = {"cv": lambda: ops.box_iou_quadri(a, b, mode, aligned)}
    if mode == "iou" and not aligned and len(a) * len(b) <= 10**5:
        calls["composed"] = lambda: composed_box_iou_quadri(a, b)
    if MM is not None:
        calls["mmcv"] = lambda: MM.box_iou_quadri(a, b, mode, aligned)
    return Case(f"{len(a)} and {len(b)} boxes, {'aligned, ' if aligned else ''}{mode}", calls)


def composed_nms_quadri(boxes: Tensor, scores: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    order = scores.argsort(descending=True)
    rivals = (ops.box_iou_quadri(boxes[order], boxes[order]) > threshold).triu(1)
    alive = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if alive[i]:
            alive &= ~rivals[i]
    keep = order[alive]
    return torch.cat([boxes[keep], scores[keep, None]], 1), keep


def _nms_quadri(draw: Draw) -> Case:
    count, threshold = draw.log(1, 2000), draw.choice([0.1, 0.3, 0.5])
    boxes, scores = _quadrilaterals(draw, count, draw.choice([100.0, 1024.0])), torch.rand(count)
    calls = {"cv": lambda: ops.nms_quadri(boxes, scores, threshold)}
    calls["composed"] = lambda: composed_nms_quadri(boxes, scores, threshold)
    if MM is not None:
        calls["mmcv"] = lambda: MM.nms_quadri(boxes, scores, threshold)
    return Case(f"{count} boxes, threshold {threshold}", calls)


def _points_in_polygons(draw: Draw) -> Case:
    points, count = _grid(draw.log(1, 20000), 1024.0), draw.log(1, 200)
    polygons = _quadrilaterals(draw, count, 1024.0)
    calls = {"cv": lambda: ops.points_in_polygons(points, polygons)}
    if len(points) * count <= 10**6:
        calls["composed"] = lambda: composed_points_in_polygons(points, polygons)
    return Case(f"{len(points)} points, {count} polygons", calls)


SAMPLERS: dict[str, Sampler] = {
    "active_rotated_filter": _active_rotated_filter,
    "box_iou_quadri": _box_iou_quadri,
    "chamfer_distance": _chamfer_distance,
    "convex_giou": _convex_giou,
    "convex_iou": _convex_iou,
    "min_area_polygons": _min_area_polygons,
    "nms_quadri": _nms_quadri,
    "points_in_polygons": _points_in_polygons,
    "rotated_feature_align": _rotated_feature_align,
}
