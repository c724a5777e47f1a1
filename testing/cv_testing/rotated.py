"""Rotated boxes, quadrilaterals and their exact overlap by shapely, for the tests of several operators."""

from __future__ import annotations

import math

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor


def random_rotated_boxes(n: int, *, span: float = 10.0, size: float = 8.0, seed: int = 0) -> Tensor:
    """``(n, 5)`` float64 boxes ``(x, y, w, h, angle)``, angles far beyond a turn included."""
    g = torch.Generator().manual_seed(seed)
    centre, sides, angle = (torch.rand(n, k, generator=g, dtype=torch.float64) for k in (2, 2, 1))
    return torch.cat([centre * span, 0.1 + sides * size, (angle - 0.5) * 20], 1)


def polygon(box: list[float]) -> shapely.Polygon:
    """The corners by rotating (±w/2, ±h/2) about the centre by the angle, from x towards y."""
    x, y, w, h, angle = box
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return shapely.Polygon(corners @ turn.T + [x, y])


def exact_overlaps(a: Tensor, b: Tensor, mode: str = "iou") -> NDArray[np.float64]:
    """``(M, N)`` IoU or IoF in float64."""
    first, second = ([polygon(box) for box in boxes.tolist()] for boxes in (a, b))
    return overlaps_of(np.array(first, object), np.array(second, object), mode)


def overlaps_of(first: NDArray[np.object_], second: NDArray[np.object_], mode: str) -> NDArray[np.float64]:
    """The same of shapely's polygons; 0 where there is nothing to divide by."""
    first, second = first[:, None], second[None]
    shared = shapely.area(shapely.intersection(first, second))
    base = shapely.area(first) + (0 if mode == "iof" else shapely.area(second) - shared)
    return np.divide(shared, base, out=np.zeros_like(shared), where=base > 0)


def random_quadrilaterals(n: int, seed: int = 1, *, span: float = 6.0) -> Tensor:
    """``(n, 8)``: a corner in each quarter around a centre: simple, often not convex, in both directions."""
    g = torch.Generator().manual_seed(seed)
    turn = (torch.rand(n, 4, generator=g, dtype=torch.float64) + torch.arange(4)) * (math.pi / 2)
    away = 0.3 + torch.rand(n, 4, generator=g, dtype=torch.float64) * 5
    corners = torch.stack([away * turn.cos(), away * turn.sin()], -1)
    corners = corners + 3 + torch.rand(n, 1, 2, generator=g, dtype=torch.float64) * span
    corners[::2] = corners[::2].flip(1)
    return corners.reshape(n, 8)


def outlines(quadrilaterals: Tensor) -> NDArray[np.object_]:
    """Quadrilaterals as shapely's polygons."""
    return np.array([shapely.Polygon(p) for p in quadrilaterals.reshape(-1, 4, 2).tolist()], object)
