"""The rotated rectangle of the smallest area around each set of nine points.

Source: Freeman and Shapira, "Determining the minimum-area encasing rectangle for an arbitrary closed curve",
Communications of the ACM 18(7), 1975: one of its sides lies along an edge of the convex hull. Deterministic.
On the CPU everything is computed in float64; on CUDA in the dtype of the points, half types in float32.
"""

from __future__ import annotations

from torch import Tensor

from ._checks import in_one_floating_dtype, rows_of
from ._load import operator
from ._registration import register

_op = operator("min_area_polygons")


def min_area_polygons(pointsets: Tensor) -> Tensor:
    """The corners of the smallest rotated rectangle around each set of nine points.

    Args:
        pointsets: ``(N, 18)`` nine points ``(x1, y1, ..., x9, y9)``, or any empty tensor.

    Returns:
        ``(N, 8)`` corners ``(x1, y1, ..., x4, y4)`` in the dtype of the points (integers: the default dtype).
        With the side that points right and down (or right) as width: top right, top left, bottom left, bottom
        right, y pointing down. Points on a line give a rectangle without area, nine equal points that point
        four times, a point that is not finite gives NaN. No gradient flows through it.

    Raises:
        TypeError: If ``pointsets`` is not a tensor.
        ValueError: If it has a wrong shape.

    Example:
        >>> points = torch.tensor([[0.0, 0, 4, 0, 4, 2, 0, 2, 1, 1, 2, 1, 3, 1, 1, 0, 2, 2]])
        >>> min_area_polygons(points)
        tensor([[4., 0., 0., 0., 0., 2., 4., 2.]])
    """
    (pointsets,) = in_one_floating_dtype(pointsets=pointsets)
    corners: Tensor = _call(rows_of(pointsets.detach(), 18, "pointsets"))
    return corners


def _fake(pointsets: Tensor) -> Tensor:
    return pointsets.new_empty(pointsets.shape[0], 8)


_call = register(_op, fake=_fake, differentiable=False, autocast="float32")
