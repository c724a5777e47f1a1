"""Pixel aggregation: pixels of text join the kernel whose embedding is like theirs.

Wang et al., Efficient and accurate arbitrary-shaped text detection with pixel aggregation network (ICCV
2019). From the contour of each kernel its label spreads, to the four neighbours, over pixels of the text
mask whose embedding is nearer than a threshold to the mean embedding of the kernel; a pixel that two
instances reach belongs to the one that came first.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._load import operator
from ._registration import register
from .contour_expand import as_cpu_tensor, as_mask

_op = operator("pixel_group")
_MOST_REGIONS = 2**24


def pixel_group(
    score: Tensor | NDArray[Any],
    mask: Tensor | NDArray[Any],
    embedding: Tensor | NDArray[Any],
    kernel_label: Tensor | NDArray[Any],
    kernel_contour: Tensor | NDArray[Any],
    kernel_region_num: int,
    distance_threshold: float,
) -> list[list[float]]:
    """Groups pixels into text instances.

    The work is a queue of pixels, done on the CPU in float64; tensors on a GPU are copied there.

    Args:
        score: ``(H, W)``: how much each pixel is text. Tensor or array, as all that follow.
        mask: ``(H, W)``: what is not 0 is text.
        embedding: ``(H, W, C)``: the embedding of each pixel.
        kernel_label: ``(H, W)`` integers below ``kernel_region_num``: the kernel of each pixel, 0 (or less)
            for none.
        kernel_contour: ``(H, W)``: what is not 0 is on the contour of its kernel.
        kernel_region_num: The number of labels, background included; at most 2^24.
        distance_threshold: A pixel joins at a smaller Euclidean distance of its embedding from the mean of
            the kernel.

    Returns:
        For each label from 0 on ``[score, count, x0, y0, x1, y1, …]``: the mean score, the number and the
        coordinates of its pixels in reading order. ``[0, 0]`` for background and labels without pixels.

    Raises:
        TypeError: An argument is neither a tensor nor an array.
        ValueError: Shapes do not fit, or a label is not below ``kernel_region_num``, or that is too large.

    Example:
        >>> label = torch.tensor([[1, 0, 0, 2]])
        >>> embedding = torch.tensor([[[0.], [0.], [5.], [5.]]])
        >>> pixel_group(torch.ones(1, 4), label >= 0, embedding, label, label > 0, 3, 1.0)
        [[0.0, 0.0], [1.0, 2.0, 0.0, 0.0, 1.0, 0.0], [1.0, 2.0, 2.0, 0.0, 3.0, 0.0]]
    """
    maps = {
        "score": as_cpu_tensor(score, "score"),
        "mask": as_cpu_tensor(mask, "mask"),
        "kernel_label": as_cpu_tensor(kernel_label, "kernel_label"),
        "kernel_contour": as_cpu_tensor(kernel_contour, "kernel_contour"),
    }
    vectors = as_cpu_tensor(embedding, "embedding")
    labels = maps["kernel_label"]
    if labels.dtype is not torch.int32:  # which may not hold them
        _check_shapes_and_labels(maps, vectors, kernel_region_num)
        labels = labels.to(torch.int32)
    try:
        scores, pixels, offsets = _call(
            maps["score"].float(),
            as_mask(maps["mask"]),
            vectors.float(),
            labels,
            as_mask(maps["kernel_contour"]),
            kernel_region_num,
            distance_threshold,
        )
    except RuntimeError:
        _check_shapes_and_labels(maps, vectors, kernel_region_num)
        raise
    return _lists(scores.tolist(), pixels.numpy(), offsets.tolist(), max(vectors.shape[:2]))


def _check_shapes_and_labels(maps: dict[str, Tensor], vectors: Tensor, kernel_region_num: int) -> None:
    if vectors.dim() != 3:
        raise ValueError(f"embedding must have shape (H, W, C), got {tuple(vectors.shape)}")
    size = tuple(vectors.shape[:2])
    for name, value in maps.items():
        if tuple(value.shape) != size:
            raise ValueError(f"{name} must have shape {size} as embedding has, got {tuple(value.shape)}")
    largest = int(maps["kernel_label"].max()) if maps["kernel_label"].numel() > 0 else 0
    if kernel_region_num < 0 or largest >= max(kernel_region_num, 1):
        raise ValueError(
            f"kernel_region_num must be greater than the largest label of kernel_label, {largest}, "
            f"got {kernel_region_num}"
        )
    if kernel_region_num > _MOST_REGIONS:
        raise ValueError(f"kernel_region_num must be at most 2^24, got {kernel_region_num}")


def _lists(
    scores: list[float], pixels: NDArray[np.int32], offsets: list[int], extent: int
) -> list[list[float]]:
    """``[score, count, x0, y0, …]`` of each label.

    All lists share one Python float for each coordinate: making a new one for each pixel takes twice as long.
    """
    numbers = np.arange(extent, dtype=np.float64).astype(object)
    groups: list[list[float]] = []
    for score, (begin, end) in zip(scores, pairwise(offsets), strict=True):
        group = numbers.take(pixels[begin:end]).tolist() if begin < end else []
        group[:0] = score, (end - begin) / 2
        groups.append(group)
    return groups


def _fake(
    score: Tensor,
    mask: Tensor,
    embedding: Tensor,
    kernel_label: Tensor,
    kernel_contour: Tensor,
    kernel_region_num: int,
    distance_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        score.new_empty(kernel_region_num),
        score.new_empty(count, dtype=torch.int32),
        score.new_empty(kernel_region_num + 1, dtype=torch.int64),
    )


_call = register(_op, fake=_fake, differentiable=False)
