"""Uniform quantization: an interval cut into levels of equal width."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# Work on this many values at a time, so that the passes over them meet in the cache.
_BLOCK = 64 * 1024


def quantize(
    arr: npt.NDArray[Any],
    min_val: float,
    max_val: float,
    levels: int,
    dtype: npt.DTypeLike = np.int64,
) -> npt.NDArray[Any]:
    """Quantize values to the levels 0 to levels - 1.

    Args:
        arr: Array of any shape and real dtype. Values below `min_val`, and NaN, become level 0; values above
            `max_val` the last one.
        min_val: Where level 0 begins.
        max_val: Where the last level ends.
        levels: Number of levels.
        dtype: Of the result.

    Returns:
        An array of the shape of `arr`.

    Raises:
        ValueError: If `levels` is not a positive integer, or `min_val` is not below `max_val`.
    """
    _check(min_val, max_val, levels)
    values = np.asarray(arr)
    out = np.empty(values.shape, dtype)
    # float32 values are computed in float32: its 24 bits are more than a level number needs.
    real = np.float32 if values.dtype == np.float32 and levels < 2**16 else np.float64
    low, width = real(min_val), real(max_val - min_val)
    integer = out.dtype.kind in "iu"
    flat_in, flat_out = values.reshape(1, -1), out.reshape(1, -1)
    buffer = np.empty((1, min(_BLOCK, values.size)), real)
    for start in range(0, values.size, _BLOCK):
        given = flat_in[:, start : start + _BLOCK]
        part = buffer[:, : given.size]
        np.subtract(given, low, out=part, dtype=real)
        if math.frexp(width)[0] == 0.5:  # a power of two: no rounding, in whatever order
            part *= levels / width
        else:  # not levels / width at once: that would move values on the border of two levels
            part *= levels
            part /= width
        high = part.max()
        if np.isnan(high):
            np.nan_to_num(part, copy=False, nan=0)
        # OpenCV's comparisons take a third of the time of np.clip
        cv2.threshold(part, 0, 0, cv2.THRESH_TOZERO, dst=part)
        if not high <= levels - 1:
            cv2.threshold(part, levels - 1, 0, cv2.THRESH_TRUNC, dst=part)
        # cutting off is the floor of what is not negative
        flat_out[:, start : start + _BLOCK] = part if integer else np.trunc(part, out=part)
    return out


def dequantize(
    arr: npt.NDArray[Any],
    min_val: float,
    max_val: float,
    levels: int,
    dtype: npt.DTypeLike = np.float64,
) -> npt.NDArray[Any]:
    """Turn levels back into values: the middle of each level.

    Args:
        arr: Array of levels, any shape.
        min_val: Where level 0 begins.
        max_val: Where the last level ends.
        levels: Number of levels.
        dtype: Of the result.

    Returns:
        An array of the shape of `arr`: ``(arr + 0.5) * (max_val - min_val) / levels + min_val``.

    Raises:
        ValueError: If `levels` is not a positive integer, or `min_val` is not below `max_val`.
    """
    _check(min_val, max_val, levels)
    values = np.asarray(arr)
    out = np.empty(values.shape, dtype)
    flat_in, flat_out = values.reshape(-1), out.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        middle = flat_in[start : start + _BLOCK] + 0.5
        middle *= (max_val - min_val) / levels
        middle += min_val
        flat_out[start : start + _BLOCK] = middle
    return out


def _check(min_val: float, max_val: float, levels: object) -> None:
    if not isinstance(levels, (int, np.integer)) or isinstance(levels, bool) or levels < 1:
        raise ValueError(f"levels must be a positive integer, got {levels!r}")
    if not min_val < max_val:
        raise ValueError(f"min_val must be below max_val, got {min_val} and {max_val}")
