"""Overlap of convex hulls with quadrilaterals: IoU of all pairs, generalised IoU of aligned ones.

A set of nine points stands for its convex hull, as in RepPoints for rotated objects (Guo et al., "Beyond
Bounding-Box: Convex-hull Feature Adaptation for Oriented and Densely Packed Object Detection", CVPR 2021).
Quadrilaterals may run in either direction and need not be convex, but must not cross themselves. Areas are
exact up to rounding, identical and touching outlines included (``csrc/common/polygon.h`` has the
derivations). Where both have no area the overlap is 0; a number that is not finite gives NaN. Deterministic.
On the CPU everything is computed in float64; on CUDA in the dtype of the points, half types in float32.
"""

from __future__ import annotations

from torch import Tensor

from ._checks import check_same_device, in_one_floating_dtype, rows_of
from ._load import operator
from ._registration import register

_op_iou = operator("convex_iou")
_op_giou = operator("convex_giou")


def convex_iou(pointsets: Tensor, polygons: Tensor) -> Tensor:
    """Intersection over union of the convex hull of each set of points with each quadrilateral.

    Args:
        pointsets: ``(N, 18)`` nine points ``(x1, y1, ..., x9, y9)``, or any empty tensor.
        polygons: ``(K, 8)`` corners ``(x1, y1, ..., x4, y4)`` along the outline, or any empty tensor.

    Returns:
        ``(N, K)`` in the dtype of the points (integers: the default dtype), within [0, 1]. No gradient flows
        through it.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.

    Example:
        >>> points = torch.tensor([[0., 0, 2, 0, 2, 2, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
        >>> convex_iou(points, torch.tensor([[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0]]))
        tensor([[0.3333]])
    """
    pointsets, polygons = in_one_floating_dtype(pointsets=pointsets, polygons=polygons)
    overlaps: Tensor = _call_iou(
        rows_of(pointsets.detach(), 18, "pointsets"), rows_of(polygons.detach(), 8, "polygons")
    )
    return overlaps


def convex_giou(pointsets: Tensor, polygons: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised IoU of each hull with its quadrilateral, and its derivative.

    Args:
        pointsets: ``(N, 18)`` nine points ``(x1, y1, ..., x9, y9)``, or any empty tensor.
        polygons: ``(N, 8)`` corners ``(x1, y1, ..., x4, y4)`` along the outline, or any empty tensor.

    Returns:
        The GIoU ``(N,)``, within [-1, 1], and its derivative with respect to the points ``(N, 18)``: 0
        for points inside of their hull and where the hull is the quadrilateral. Both in the dtype of the
        points (integers: the default dtype). Autograd sees neither: a loss multiplies the derivative itself.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device, or not as many polygons as sets of points.
    """
    pointsets, polygons = in_one_floating_dtype(pointsets=pointsets, polygons=polygons)
    giou: Tensor
    grad: Tensor
    giou, grad = _call_giou(
        rows_of(pointsets.detach(), 18, "pointsets"), rows_of(polygons.detach(), 8, "polygons")
    )
    return giou, grad


def _check(pointsets: Tensor, polygons: Tensor) -> None:
    check_same_device(pointsets=pointsets, polygons=polygons)


def _fake_iou(pointsets: Tensor, polygons: Tensor) -> Tensor:
    return pointsets.new_empty(pointsets.shape[0], polygons.shape[0])


def _check_aligned(pointsets: Tensor, polygons: Tensor) -> None:
    _check(pointsets, polygons)
    if pointsets.shape[0] != polygons.shape[0]:
        raise ValueError(
            "pointsets and polygons must have the same length, "
            f"got {pointsets.shape[0]} and {polygons.shape[0]}"
        )


def _fake_giou(pointsets: Tensor, polygons: Tensor) -> tuple[Tensor, Tensor]:
    return pointsets.new_empty(pointsets.shape[0]), pointsets.new_empty(pointsets.shape)


_call_iou = register(_op_iou, check=_check, fake=_fake_iou, differentiable=False, autocast="float32")
_call_giou = register(
    _op_giou, check=_check_aligned, fake=_fake_giou, differentiable=False, autocast="float32"
)
