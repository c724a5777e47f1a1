"""What many operators do first with their arguments: checks, and tensors from arrays."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor on the memory of ``array``, or on a copy where torch cannot share it.

    That is: backward strides, the other byte order, or memory that must not be written to.
    """
    if not (array.flags.writeable and array.dtype.isnative) or any(stride < 0 for stride in array.strides):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def check_tensors(**values: Any) -> None:
    """Raises a TypeError for an argument that is not a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def check_floating(**tensors: Any) -> None:
    """Raises a TypeError for an argument that is not a tensor of a floating dtype."""
    for name, t in tensors.items():
        check_tensors(**{name: t})
        if not t.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {t.dtype}")


def in_one_floating_dtype(**tensors: Any) -> tuple[Tensor, ...]:
    """The tensors in the dtype that they promote to, or the default dtype where that is not floating."""
    check_tensors(**tensors)
    values = tuple(tensors.values())
    dtype = values[0].dtype
    if dtype.is_floating_point and all(t.dtype is dtype for t in values):
        return values
    for t in values[1:]:
        dtype = torch.promote_types(dtype, t.dtype)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    return tuple(t.to(dtype) for t in values)


def check_same_device(**tensors: Tensor) -> None:
    """Raises a ValueError for a tensor that is not on the device of the first."""
    (first, reference), *others = tensors.items()
    for name, t in others:
        if t.device != reference.device:
            raise ValueError(f"{name} must be on {reference.device} as {first} is, got {t.device}")


def rows_of(t: Tensor, columns: int, name: str) -> Tensor:
    """``t`` as ``(N, columns)``; any empty vector, ``torch.FloatTensor([])``, is ``(0, columns)``."""
    if t.dim() == 2 and t.shape[1] == columns:
        return t
    if t.dim() == 1 and t.shape[0] == 0:
        return t.reshape(0, columns)
    raise ValueError(f"{name} must have shape (N, {columns}) or be empty, got {tuple(t.shape)}")


def check_box_sets(bboxes1: Tensor, bboxes2: Tensor, columns: int, aligned: bool) -> None:
    """Raises a TypeError or ValueError where two sets of boxes, or aligned pairs, cannot be compared."""
    check_tensors(bboxes1=bboxes1, bboxes2=bboxes2)
    rows_of(bboxes1, columns, "bboxes1")
    rows_of(bboxes2, columns, "bboxes2")
    check_same_device(bboxes1=bboxes1, bboxes2=bboxes2)
    if aligned and bboxes1.shape[0] != bboxes2.shape[0]:
        raise ValueError(
            "bboxes1 and bboxes2 must have the same length with aligned=True, "
            f"got {bboxes1.shape[0]} and {bboxes2.shape[0]}"
        )
