"""Chamfer distance: from each point of either set to the nearest of the other.

Fan et al., "A Point Set Generation Network for 3D Object Reconstruction from a Single Image", CVPR 2017,
section 4; here in the plane. Distances are squared, and no set of pairwise distances is kept in memory. Of
points at the same distance the first is the nearest, and the gradient goes to it alone. Deterministic,
forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_floating, check_same_device
from ._load import operator
from ._registration import register

_op = operator("chamfer_distance")
_op_backward = operator("chamfer_distance_backward")


def chamfer_distance(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances between each point of a set and the nearest one of another, both ways.

    Args:
        xyz1: (B, N, 2) points (x, y), float16, bfloat16, float32 or float64.
        xyz2: (B, M, 2) points of the same dtype. N and M are both positive or both 0.

    Returns:
        Four tensors: the squared distances of ``xyz1`` (B, N) and of ``xyz2`` (B, M), in their dtype and
        differentiable (once) with respect to both sets, and the indices of the nearest points, int32 (B, N)
        within [0, M) and (B, M) within [0, N). A point that is NaN has NaN as its distance and is nearest to
        none, unless the whole set is NaN.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype, or their dtypes differ.
        ValueError: If shapes or devices do not fit, or one set only is empty.

    Example:
        >>> a, b = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
        >>> chamfer_distance(a, b)[:2]
        (tensor([[ 1., 10.]]), tensor([[1.]]))
    """
    distance1, distance2, index1, index2 = _call(xyz1, xyz2)
    return distance1, distance2, index1, index2


def _check(xyz1: Tensor, xyz2: Tensor) -> None:
    check_floating(xyz1=xyz1, xyz2=xyz2)
    for name, t in (("xyz1", xyz1), ("xyz2", xyz2)):
        if t.dim() != 3 or t.shape[2] != 2:
            raise ValueError(f"{name} must have shape (B, N, 2), got {tuple(t.shape)}")
    if xyz1.dtype is not xyz2.dtype:
        raise TypeError(f"xyz1 and xyz2 must have the same dtype, got {xyz1.dtype} and {xyz2.dtype}")
    if xyz1.shape[0] != xyz2.shape[0]:
        raise ValueError(
            f"xyz1 and xyz2 must have the same batch size, got {xyz1.shape[0]} and {xyz2.shape[0]}"
        )
    if xyz1.shape[0] and (xyz1.shape[1] == 0) != (xyz2.shape[1] == 0):
        raise ValueError(
            f"there is no nearest point in an empty set, got {tuple(xyz1.shape)} and {tuple(xyz2.shape)}"
        )
    check_same_device(xyz1=xyz1, xyz2=xyz2)


def _fake(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, ...]:
    distances = (xyz1.new_empty(xyz1.shape[:2]), xyz1.new_empty(xyz2.shape[:2]))
    return (*distances, *(torch.empty_like(d, dtype=torch.int32) for d in distances))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[2:])
    ctx.mark_non_differentiable(*output[2:])


def _gradients(ctx: Any, grad1: Tensor, grad2: Tensor, _1: Any, _2: Any) -> tuple[Tensor | None, ...]:
    return tuple(_op_backward(grad1, grad2, *ctx.saved_tensors))


def _fake_backward(
    grad1: Tensor, grad2: Tensor, xyz1: Tensor, xyz2: Tensor, index1: Tensor, index2: Tensor
) -> tuple[Tensor, Tensor]:
    return xyz1.new_empty(xyz1.shape), xyz2.new_empty(xyz2.shape)


_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients, autocast="float32")
register(_op_backward, fake=_fake_backward)
