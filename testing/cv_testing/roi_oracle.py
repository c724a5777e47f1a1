"""Bilinear reading of a map by its definition, one position at a time: for oracles of RoI operators."""

from __future__ import annotations

from torch import Tensor


def sample(image: Tensor, y: Tensor | float, x: Tensor | float) -> Tensor:
    """image (C, H, W) at one position: the border repeats for one pixel, then zero.

    ``y`` and ``x`` may be tensors without dimensions that require grad.
    """
    height, width = image.shape[1:]
    if not (-1 <= value(y) <= height and -1 <= value(x) <= width):
        return image.sum((1, 2)) * 0 + (y + x) * 0
    top, bottom, down = neighbours(y, height)
    left, right, along = neighbours(x, width)
    above = image[:, top, left] * (1 - along) + image[:, top, right] * along
    below = image[:, bottom, left] * (1 - along) + image[:, bottom, right] * along
    return above * (1 - down) + below * down


def neighbours(position: Tensor | float, size: int) -> tuple[int, int, Tensor | float]:
    """Two pixels of an axis and the weight of the second; beyond the centres' range, the border's."""
    if value(position) <= 0:
        return 0, 0, position * 0
    if value(position) >= size - 1:
        return size - 1, size - 1, position * 0
    low = int(value(position))
    return low, low + 1, position - low


def value(position: Tensor | float) -> float:
    """The number itself."""
    return float(position.detach()) if isinstance(position, Tensor) else position
