"""Progressive scale expansion: kernels of text instances grow to their full size without merging.

Wang et al., Shape robust text detection with progressive scale expansion network (CVPR 2019). The labels of
the smallest kernels spread over the mask of each kernel size in turn, from the smallest to the largest, one
pixel ring at a time, to the four neighbours; a pixel that two instances reach belongs to the one that came
first.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import as_tensor
from ._load import operator
from ._registration import register

_op = operator("contour_expand")
_INT32_MAX = 2**31 - 1


@overload
def contour_expand(
    kernel_mask: Tensor,
    internal_kernel_label: Tensor | NDArray[Any],
    min_kernel_area: int,
    kernel_num: int,
) -> Tensor: ...
@overload
def contour_expand(
    kernel_mask: NDArray[Any],
    internal_kernel_label: Tensor | NDArray[Any],
    min_kernel_area: int,
    kernel_num: int,
) -> NDArray[np.int32]: ...
def contour_expand(
    kernel_mask: Any, internal_kernel_label: Any, min_kernel_area: int, kernel_num: int
) -> Any:
    """Grows labelled kernels over larger and larger masks.

    The work is a queue of pixels, done on the CPU; tensors on a GPU are copied there and the result back.

    Args:
        kernel_mask: ``(K, H, W)`` masks, the largest kernels first and the smallest last, or one mask
            ``(H, W)``; what is not 0 is foreground. Tensor or array, of any real dtype.
        internal_kernel_label: ``(H, W)`` integers: the labels of the smallest kernels, from 1 on; 0 (or
            less) is background.
        min_kernel_area: Labels with fewer pixels are dropped.
        kernel_num: The number of labels. Not needed: labels beyond it are treated as all others.

    Returns:
        ``(H, W)`` int32: the label of each pixel, 0 for none; an array if ``kernel_mask`` is one, else a
        tensor on its device.

    Raises:
        TypeError: An argument is neither a tensor nor an array.
        ValueError: The shapes do not fit.

    Example:
        >>> masks = torch.tensor([[[1, 1, 1, 1, 0, 1]], [[1, 1, 0, 1, 0, 0]]])
        >>> contour_expand(masks, torch.tensor([[1, 0, 0, 2, 0, 0]]), 1, 3)
        tensor([[1, 1, 2, 2, 0, 0]], dtype=torch.int32)
    """
    if _is_ready(kernel_mask, torch.uint8) and _is_ready(internal_kernel_label, torch.int32):
        masks = kernel_mask if kernel_mask.dim() != 2 else kernel_mask[None]
        return _call(masks, internal_kernel_label, min_kernel_area)
    masks = as_cpu_tensor(kernel_mask, "kernel_mask")
    labels = as_cpu_tensor(internal_kernel_label, "internal_kernel_label")
    masks = masks if masks.dim() != 2 else masks[None]
    if labels.dtype is torch.int64 and not torch.compiler.is_compiling() and (labels > _INT32_MAX).any():
        raise ValueError(f"internal_kernel_label must fit into int32, got {int(labels.max())}")
    result: Tensor = _call(as_mask(masks), labels.to(torch.int32), min_kernel_area)
    if not isinstance(kernel_mask, Tensor):
        return result.numpy()
    return result if kernel_mask.is_cpu else result.to(kernel_mask.device)


def _is_ready(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype is dtype and value.is_cpu


def as_cpu_tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, np.ndarray):
        return as_tensor(value)
    if isinstance(value, Tensor):
        tensor: Tensor = value.detach() if value.requires_grad else value
        return tensor if tensor.is_cpu else tensor.cpu()
    raise TypeError(f"{name} must be a tensor or an array, got {type(value).__name__}")


def as_mask(mask: Tensor) -> Tensor:
    """uint8 of which only 0 matters; no copy where there need not be one."""
    if mask.dtype is torch.uint8:
        return mask
    return mask.view(torch.uint8) if mask.dtype is torch.bool else (mask != 0).to(torch.uint8)


def _check(masks: Tensor, labels: Tensor, min_kernel_area: int) -> None:
    if masks.dim() != 3:
        raise ValueError(f"kernel_mask must have shape (K, H, W) or (H, W), got {tuple(masks.shape)}")
    if labels.shape != masks.shape[1:]:
        raise ValueError(
            f"internal_kernel_label must have shape {tuple(masks.shape[1:])} as kernel_mask has, "
            f"got {tuple(labels.shape)}"
        )


def _fake(kernel_masks: Tensor, kernel_label: Tensor, min_kernel_area: int) -> Tensor:
    return torch.empty_like(kernel_label, memory_format=torch.contiguous_format)


_call = register(_op, check=_check, fake=_fake, differentiable=False)
