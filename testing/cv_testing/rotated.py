"""Rotated boxes and their exact overlap by shapely, for the tests of several operators."""

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
    first = np.array([polygon(box) for box in a.tolist()])[:, None]
    second = np.array([polygon(box) for box in b.tolist()])[None]
    shared = shapely.area(shapely.intersection(first, second))
    base = shapely.area(first) + (0 if mode == "iof" else shapely.area(second) - shared)
    return np.asarray(shared / base)
