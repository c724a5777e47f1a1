"""Which points lie in which quadrilaterals.

By the even-odd rule, for corners in either order, quadrilaterals that are not convex or cross themselves
included. A point on the outline is not inside. Decided in float64 for every dtype, so that float32 points on
an edge are told from those beside it. A point or polygon with a number that is not finite contains nothing
and lies nowhere. Deterministic.
"""

from __future__ import annotations

from torch import Tensor

from ._checks import check_same_device, in_one_floating_dtype, rows_of
from ._load import operator
from ._registration import register

_op = operator("points_in_polygons")


def points_in_polygons(points: Tensor, polygons: Tensor) -> Tensor:
    """Whether each point lies inside each quadrilateral.

    Args:
        points: ``(N, 2)`` points ``(x, y)``, or any empty tensor.
        polygons: ``(M, 8)`` corners ``(x1, y1, x2, y2, x3, y3, x4, y4)`` along the outline, or any empty
            tensor.

    Returns:
        ``(N, M)`` in the dtype of the points (integers: the default dtype): 1 inside, 0 outside and on the
        outline. No gradient flows through it.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.

    Example:
        >>> points = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
        >>> points_in_polygons(points, torch.tensor([[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]]))
        tensor([[1.],
                [0.]])
    """
    points, polygons = in_one_floating_dtype(points=points, polygons=polygons)
    inside: Tensor = _call(rows_of(points.detach(), 2, "points"), rows_of(polygons.detach(), 8, "polygons"))
    return inside


def _check(points: Tensor, polygons: Tensor) -> None:
    check_same_device(points=points, polygons=polygons)


def _fake(points: Tensor, polygons: Tensor) -> Tensor:
    return points.new_empty(points.shape[0], polygons.shape[0])


_call = register(_op, check=_check, fake=_fake, differentiable=False, autocast="float32")
