"""What the operators that pool regions of a map share: checks of their arguments, and shapes without data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._checks import check_floating
from ._memory_format import like_input

MAX_SAMPLES = 4096  # along each axis of a bin; csrc/common/roi_check.h refuses the same


def check_map_and_rois(x: Tensor, rois: Tensor, fields: int, spatial_scale: float) -> None:
    """Raises unless ``x`` is a (N, C, H, W) map and ``rois`` (K, fields) beside it."""
    check_floating(input=x, rois=rois)
    if x.dim() != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {tuple(x.shape)}")
    if rois.dim() != 2 or rois.shape[1] != fields:
        raise ValueError(f"rois must have shape (K, {fields}), got {tuple(rois.shape)}")
    if rois.device != x.device:
        raise ValueError(f"rois must be on the device of input ({x.device}), got {rois.device}")
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"input must have at least one pixel, got {tuple(x.shape)}")
    if not (spatial_scale > 0 and math.isfinite(spatial_scale)):
        raise ValueError(f"spatial_scale must be positive and finite, got {spatial_scale}")


def bins_of(output_size: Any, name: str = "output_size") -> tuple[int, int]:
    """(height, width) of an argument that is one number or a pair."""
    if type(output_size) is int and output_size > 0:  # as most calls have it
        return output_size, output_size
    if isinstance(output_size, (tuple, list)):
        if len(output_size) != 2:
            raise ValueError(f"{name} must be one number or (height, width), got {output_size}")
        height, width = output_size
    else:
        height = width = output_size
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be positive, got {output_size}")
    return height, width


def check_samples(sampling_ratio: int, name: str = "sampling_ratio") -> None:
    """Raises if an operator would run for hours: its time grows with the square of the samples."""
    if sampling_ratio > MAX_SAMPLES:
        raise ValueError(f"{name} must be at most {MAX_SAMPLES}, got {sampling_ratio}")


def empty_bins(x: Tensor, rois: Tensor, pooled_h: int, pooled_w: int) -> Tensor:
    """The shape, dtype and memory format of the pooled bins."""
    shape = (rois.shape[0], x.shape[1], pooled_h, pooled_w)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=like_input(x))


def empty_gradient(grad: Tensor, shape: Any, channels_last: bool) -> Tensor:
    """The same of the gradient of a map of ``shape``."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=grad.dtype, device=grad.device, memory_format=memory_format)
