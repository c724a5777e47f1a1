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
