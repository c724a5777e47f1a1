"""box_iou_rotated against mmcv, and corners, clipping and the shoelace formula in PyTorch."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, mmcv_ops
from torch import Tensor

from cv.ops import box_iou_rotated


def rotated_boxes(n: int, span: float, size: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centre, sides, angle = (torch.rand(n, k, generator=g) for k in (2, 2, 1))
    return torch.cat([centre * span, 1 + sides * size, (angle - 0.5) * 6.28], 1)


def corners(boxes: Tensor) -> Tensor:
    x, y, w, h, angle = boxes.unbind(-1)
    signs = boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    dx, dy = w[:, None] * signs[:, 0], h[:, None] * signs[:, 1]
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    return torch.stack([x[:, None] + dx * c - dy * s, y[:, None] + dx * s + dy * c], -1)


def composed(a: Tensor, b: Tensor) -> Tensor:
    """Points of both outlines that lie in both boxes, ordered by angle; the usual form in plain PyTorch."""
    p, q = corners(a)[:, None], corners(b)[None]
    m, n = len(a), len(b)
    p_edge, q_edge = p.roll(-1, 2) - p, q.roll(-1, 2) - q
    start = q[:, :, None] - p[:, :, :, None]
    (px, py), (qx, qy) = p_edge[:, :, :, None].unbind(-1), q_edge[:, :, None].unbind(-1)
    cross = px * qy - py * qx
    t, u = (
        (start[..., 0] * qy - start[..., 1] * qx) / cross,
        (start[..., 0] * py - start[..., 1] * px) / cross,
    )
    meets = (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    crossings = (p[:, :, :, None] + t[..., None] * p_edge[:, :, :, None]).reshape(m, n, 16, 2)

    def inside(points: Tensor, box: Tensor) -> Tensor:
        d = points - box[..., None, :2]
        c, s = box[..., None, 4].cos(), box[..., None, 4].sin()
        along, across = d[..., 0] * c + d[..., 1] * s, d[..., 1] * c - d[..., 0] * s
        return (along.abs() <= box[..., None, 2] / 2) & (across.abs() <= box[..., None, 3] / 2)

    points = torch.cat([crossings, p.expand(m, n, 4, 2), q.expand(m, n, 4, 2)], 2)
    valid = torch.cat([meets.reshape(m, n, 16), inside(p, b[None]).expand(m, n, 4),
                       inside(q, a[:, None]).expand(m, n, 4)], 2)  # fmt: skip
    points = torch.where(valid[..., None], points, points.new_zeros(()))
    middle = points.sum(2, keepdim=True) / valid.sum(2)[..., None, None].clamp(min=1)
    points = torch.where(valid[..., None], points - middle, points.new_zeros(()))
    angle = torch.where(valid, torch.atan2(points[..., 1], points[..., 0]), points.new_tensor(10.0))
    order = angle.argsort(2)
    points = points.gather(2, order[..., None].expand(-1, -1, -1, 2))
    count = valid.sum(2, keepdim=True)
    last = torch.arange(24, device=a.device) >= count
    points = torch.where(last[..., None], points[:, :, :1], points)
    following = points.roll(-1, 2)
    shared = (points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0]).sum(2).abs() / 2
    areas = a[:, None, 2] * a[:, None, 3] + b[:, 2] * b[:, 3]
    return shared / (areas - shared)


def main() -> None:
    report, mm = OperatorReport("box_iou_rotated", __doc__), mmcv_ops()
    cases = [(200, 200, 200, 100), (1000, 1000, 1000, 100), (1000, 1000, 100, 100)]
    for m, n, span, size in cases + ([(10_000, 10_000, 1000, 100)] if report.on_gpu else []):
        a = rotated_boxes(m, span, size, 0).to(report.device)
        b = rotated_boxes(n, span, size, 1).to(report.device)
        calls = {"cv": lambda a=a, b=b: box_iou_rotated(a, b)}
        if m * n <= 10**5:
            calls["composed"] = lambda a=a, b=b: composed(a, b)
            torch.testing.assert_close(calls["composed"](), calls["cv"](), atol=1e-3, rtol=0, equal_nan=True)
        if mm is not None:
            calls["mmcv"] = lambda a=a, b=b: mm.box_iou_rotated(a, b)
        report.compare(f"{m} x {n}, up to {size} in {span}", calls, bytes_moved=4 * (m * n + 5 * (m + n)))
    report.write()


if __name__ == "__main__":
    main()
