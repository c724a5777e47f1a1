"""Mapping values by tables: given ones, and ones derived from histograms.

Values of uint8 images are in [0, 255], of uint16 in [0, 65535], of float32 and float64 in [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import (
    OPENCV_DTYPES,
    Image,
    check_image,
    check_not_empty,
    copied,
    describe,
    for_cv2,
    is_natural,
)
from cv.image._pointwise import apply_table, apply_tables, check_pointwise, histograms, round_to_levels

_TableAndLine = tuple[Image, tuple[float, float] | None]
_TableMaker = Callable[[npt.NDArray[np.int64]], _TableAndLine]


def imequalize(img: Image) -> Image:
    """Equalize the histogram of each channel, as Pillow's ``ImageOps.equalize``.

    Args:
        img: (H, W) or (H, W, C). Floats are mapped as the nearest of 256 levels.

    Returns:
        The equalized image, of the same dtype.
    """
    return _by_histogram(check_pointwise(img), _equalizing_table)


def auto_contrast(img: Image, cutoff: float | tuple[float, float] = 0) -> Image:
    """Stretch each channel from black to white, as Pillow's ``ImageOps.autocontrast``.

    Args:
        img: (H, W) or (H, W, C). Floats are mapped as the nearest of 256 levels.
        cutoff: Percent of the darkest and the lightest pixels to leave out of account; (low, high) for two
            values.

    Returns:
        The image of the same dtype. A channel of a single value stays as it is.

    Raises:
        AssertionError: If `cutoff` is neither a number nor a tuple of two.
        ValueError: If it is negative or more than 100.
    """
    img = check_pointwise(img)
    low, high = _check_cutoff(cutoff)

    return _by_histogram(img, lambda counts: _stretching_table(counts, low, high))


def lut_transform(img: npt.NDArray[Any], lut_table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Look every value up in a table.

    Args:
        img: Array of integers in [0, 255], any shape; with a table for each channel, (H, W, C).
        lut_table: (256,), or with one column for each channel (256, C), (1, 256, C) or (256, 1, C).

    Returns:
        An array of the shape of `img` and the dtype of the table.

    Raises:
        AssertionError: If an argument is not an array, a value is out of range, or the table has another
            shape.
    """
    _check_indices(img)
    table = _check_table(lut_table, img)
    indices = img.astype(np.uint8, copy=False)
    if table.shape[1] > 1:
        if table.dtype == np.uint8:
            return apply_tables(indices, list(np.ascontiguousarray(table.T)))
        gathered: npt.NDArray[Any] = table[indices, np.arange(table.shape[1])]
        return gathered
    column = np.ascontiguousarray(table[:, 0])
    if img.ndim in (2, 3) and column.dtype in OPENCV_DTYPES:
        return apply_table(indices, column)
    looked_up: npt.NDArray[Any] = column[indices]
    return looked_up


def clahe(img: Image, clip_limit: float = 40.0, tile_grid_size: tuple[int, int] = (8, 8)) -> Image:
    """Contrast-limited adaptive histogram equalization (Zuiderveld, Graphics Gems IV, 1994, pages 474-485).

    Args:
        img: (H, W) or (H, W, C), each channel treated by itself; uint8 or uint16. Other values are cast to
            uint8.
        clip_limit: Threshold for contrast limiting.
        tile_grid_size: Number of tiles (in a row, in a column).

    Returns:
        The processed image, of the same shape.

    Raises:
        AssertionError: If an argument has the wrong type.
    """
    _check_clahe(img, clip_limit, tile_grid_size)
    img = check_image(img)
    check_not_empty(img)
    values = img if img.dtype in (np.uint8, np.uint16) else img.astype(np.uint8)
    method = cv2.createCLAHE(float(clip_limit), tile_grid_size)
    if values.ndim == 2:
        return method.apply(for_cv2(values))
    out = np.empty(values.shape, values.dtype)
    for channel in range(values.shape[2]):
        out[..., channel] = method.apply(np.ascontiguousarray(values[..., channel]))
    return out


def _check_clahe(img: object, clip_limit: object, tile_grid_size: object) -> None:
    if not isinstance(img, np.ndarray) or img.ndim not in (2, 3):
        raise AssertionError(f"img must be an ndarray of shape (H, W) or (H, W, C), got {describe(img)}")
    if not isinstance(clip_limit, (int, float, np.number)):
        raise AssertionError(f"clip_limit must be a number, got {type(clip_limit).__name__}")
    if (
        not isinstance(tile_grid_size, tuple)
        or len(tile_grid_size) != 2
        or not all(is_natural(size) and size for size in tile_grid_size)
    ):
        raise AssertionError(f"tile_grid_size must be two positive integers, got {tile_grid_size!r}")


def _by_histogram(img: Image, make_table: _TableMaker) -> Image:
    """Map each channel by the table that `make_table` derives from its histogram."""
    if img.size == 0:
        return copied(img)
    levels = round_to_levels(img) if img.dtype.kind == "f" else img
    made = [make_table(counts) for counts in histograms(levels)]
    mapped = apply_tables(levels, [table for table, _ in made], [line for _, line in made])
    return mapped.astype(img.dtype, copy=False)


def _equalizing_table(counts: npt.NDArray[np.int64]) -> _TableAndLine:
    """The cumulative share of the darker pixels, in steps of an equal number of pixels."""
    top = len(counts) - 1
    up_to = counts.cumsum()
    total = int(up_to[-1])
    last = int(counts[up_to.searchsorted(total)])
    if total == last:  # a single value
        return _identity(top), None
    darker = up_to - counts
    if top == 255:  # Pillow's whole numbers
        step = (total - last) // top
        if step == 0:
            return _identity(top), None
        table = (darker + step // 2) // step
    else:  # whole numbers would leave small 16-bit images as they are
        table = np.floor(darker * (top / (total - last)) + 0.5)
    return np.minimum(table, top).astype(_dtype_of(top)), None


def _stretching_table(counts: npt.NDArray[np.int64], cutoff_low: float, cutoff_high: float) -> _TableAndLine:
    """The line from the darkest value that is left to the lightest one."""
    top = len(counts) - 1
    up_to = counts.cumsum()
    total = int(up_to[-1])
    low = int(up_to.searchsorted(int(total * cutoff_low // 100), side="right"))
    high = int((up_to - counts).searchsorted(total - int(total * cutoff_high // 100))) - 1
    if high <= low:
        return _identity(top), None
    scale = top / float(high - low)
    shift = -low * scale
    table = np.minimum(np.maximum(np.arange(top + 1) * scale + shift, 0), top)
    return table.astype(_dtype_of(top)), (scale, shift)


def _identity(top: int) -> Image:
    return np.arange(top + 1, dtype=_dtype_of(top))


def _dtype_of(top: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if top == 255 else np.uint16


def _check_cutoff(cutoff: object) -> tuple[float, float]:
    if isinstance(cutoff, (int, float, np.number)):
        low = high = float(cutoff)
    elif isinstance(cutoff, tuple) and len(cutoff) == 2:
        low, high = map(float, cutoff)
    else:
        raise AssertionError(f"cutoff must be a number or a tuple of two, got {cutoff!r}")
    if not (0 <= low <= 100 and 0 <= high <= 100):
        raise ValueError(f"cutoff must be in percent, 0 to 100, got {cutoff!r}")
    return low, high


def _check_indices(img: object) -> None:
    if not isinstance(img, np.ndarray):
        raise AssertionError(f"img must be an ndarray, got {type(img).__name__}")
    if img.dtype.kind not in "iuf" or (img.dtype != np.uint8 and img.size and not _within_uint8(img)):
        raise AssertionError("img must hold values from 0 to 255")


def _within_uint8(img: npt.NDArray[Any]) -> bool:
    return bool(img.min() >= 0 and img.max() <= 255)


def _check_table(lut_table: object, img: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The table as (256, 1) or (256, C)."""
    if not isinstance(lut_table, np.ndarray):
        raise AssertionError(f"lut_table must be an ndarray, got {type(lut_table).__name__}")
    table = lut_table
    if table.ndim == 3 and 1 in table.shape[:2]:
        table = table.reshape(-1, table.shape[2])
    elif table.ndim == 1 or table.shape == (1, 256):
        table = table.reshape(-1, 1)
    columns = {1, img.shape[2]} if img.ndim == 3 else {1}
    if table.ndim != 2 or table.shape[0] != 256 or table.shape[1] not in columns:
        raise AssertionError(
            f"lut_table must have 256 elements, or 256 for each channel of {img.shape}, got {lut_table.shape}"
        )
    return table
