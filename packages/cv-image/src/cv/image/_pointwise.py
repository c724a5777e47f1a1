"""Mapping every value of an image: through a table for integers, by the formula itself for floats.

Values of uint8 images are in [0, 255], of uint16 in [0, 65535], of float ones in [0, 255].
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import Image, channels, check_image, for_cv2, row_blocks

Function = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

_KNOWN_RANGE = frozenset(np.dtype(kind) for kind in (np.uint8, np.uint16, np.float32, np.float64))
# OpenCV 4.12 was seen to be one off in weighted sums at the ends of short rows: there the table is taken.
_SUMS_ARE_EXACT = int(cv2.__version__.partition(".")[0]) >= 5
_ALL_UINT8 = np.arange(256, dtype=np.uint8)
# From this many bytes on, making tables of byte pairs pays: with more channels from more, as they are larger.
_PAIRS_PAY = 2**17


def check_pointwise(img: object) -> Image:
    """Return `img` if it is an image of a dtype with a known range of values, raise otherwise."""
    img = check_image(img)
    if img.dtype not in _KNOWN_RANGE:
        raise TypeError(f"img must be uint8, uint16, float32 or float64, got {img.dtype}")
    return img


def value_range(img: Image) -> int:
    """The largest value of an image of this dtype."""
    return 65535 if img.dtype == np.uint16 else 255


def map_values(img: Image, function: Function, line: tuple[float, float] | None = None) -> Image:
    """Apply `function` to every value; integer results are clipped to the range and cut off.

    Args:
        img: What `check_pointwise` let pass.
        function: Elementwise, of an array of values.
        line: (scale, shift) if the function is ``scale * value + shift``: a cheaper way than a table.

    Returns:
        An image of the same shape and dtype.
    """
    top = value_range(img)
    if img.dtype.kind == "f":
        out = np.empty(img.shape, img.dtype)
        for rows in row_blocks(img, img.itemsize):
            np.clip(function(img[rows]), 0, top, out=out[rows], casting="same_kind")
        return out
    every = _ALL_UINT8 if top == 255 else np.arange(top + 1)
    mapped = np.minimum(np.maximum(function(every), 0), top)  # np.clip takes longer than the table
    if top > 255:  # in float64; without it 0.7 * 2570 = 1798.9999999999998 would be cut off to 1798
        mapped = np.minimum(mapped + 1e-6, top)
    table = mapped.astype(img.dtype)
    return apply_table(img, table, line)


def apply_table(img: Image, table: Image, line: tuple[float, float] | None = None) -> Image:
    """Look every value of a uint8 or uint16 image up in `table`, (256,) or (65536,)."""
    if img.size == 0:
        return np.empty(img.shape, table.dtype)
    flat = as_plane(img)
    if img.dtype == np.uint16:
        return _apply_wide_table(flat, table).reshape(img.shape)
    if line is not None:
        for linear in (_scale_abs, _weighted):
            shift = _exact_shift(linear, line, table)
            if shift is not None:
                return linear(flat, line[0], shift).reshape(img.shape)
    looked_up = _in_pairs(flat, [table]) if table.dtype == np.uint8 else None
    return (cv2.LUT(flat, table) if looked_up is None else looked_up).reshape(img.shape)


def apply_tables(
    img: Image, tables: Sequence[Image], lines: Sequence[tuple[float, float] | None] | None = None
) -> Image:
    """Look the values of each channel up in its own table."""
    count = channels(img)
    if count == 1:
        return apply_table(img, tables[0], lines[0] if lines else None)
    if img.dtype == np.uint8 and img.ndim == 3 and img.size:
        looked_up = _in_pairs(as_plane(img), tables)
        if looked_up is not None:
            return looked_up.reshape(img.shape)
        if count <= 4:
            return cv2.LUT(for_cv2(img), np.stack(tables, axis=1)[:, None])
    given = lines or [None] * count
    out = np.empty(img.shape, img.dtype)
    for channel in range(count):
        plane = np.ascontiguousarray(img[..., channel])
        out[..., channel] = apply_table(plane, tables[channel], given[channel])
    return out


def histograms(img: Image) -> list[npt.NDArray[np.int64]]:
    """How often each value occurs, for each channel of a uint8 or uint16 image."""
    size = value_range(img) + 1
    if img.size == 0:
        return [np.zeros(size, np.int64)] * channels(img)
    if img.dtype == np.uint8 and channels(img) <= 4:
        values = for_cv2(img)
        # float32 counts are exact up to 2**24: count large images in parts
        part = max(1, 2**24 // img.shape[1])
        counts = [np.zeros(size, np.int64) for _ in range(channels(img))]
        for start in range(0, img.shape[0], part):
            for channel, count in enumerate(counts):
                found = cv2.calcHist([values[start : start + part]], [channel], None, [size], [0, size])
                count += found.ravel().astype(np.int64)
        return counts
    planes = img[..., None] if img.ndim == 2 else img
    return [np.bincount(planes[..., channel].ravel(), minlength=size) for channel in range(channels(img))]


def as_plane(img: Image) -> Image:
    """All values as one channel: OpenCV is fastest then, and has no limit on the number of channels."""
    values = for_cv2(img)
    if values.ndim == 2:
        return values
    if values.flags.c_contiguous:
        return values.reshape(values.shape[0], -1)
    return np.lib.stride_tricks.as_strided(
        values, (values.shape[0], values.shape[1] * values.shape[2]), (values.strides[0], values.itemsize)
    )


def round_to_levels(img: Image) -> Image:
    """The values of a float image as the nearest of 256 levels, uint8: what histograms of floats count."""
    rounded: npt.NDArray[Any] = np.rint(np.clip(img, 0, 255))
    return rounded.astype(np.uint8)


def _in_pairs(flat: Image, tables: Sequence[Image]) -> Image | None:
    """Look two neighbouring bytes up at once, in tables of 65536 entries; None where this does not pay.

    Where OpenCV can, it takes two thirds of the time. The channels' pattern repeats after as many pairs as
    there are channels: (0, 1), (2, 0), (1, 2) for three.

    Args:
        flat: (H, W * C) uint8.
        tables: A (256,) uint8 table for each of C channels.
    """
    count = len(tables)
    if flat.size < _PAIRS_PAY * count**2 or count > 4:
        return None
    if not flat.flags.c_contiguous or not _looks_up_uint16():
        return None
    height, width = flat.shape
    if width % (2 * count):  # an odd number of pixels in a row: pair them over two rows
        height, width = height // 2, width * 2
    if height * width != flat.size:
        return None
    pairs = np.empty((65536, 1, count), np.uint16)
    for pair in range(count):
        first, second = tables[2 * pair % count], tables[(2 * pair + 1) % count]
        low, high = (first, second) if sys.byteorder == "little" else (second, first)
        pairs[:, 0, pair] = np.bitwise_or.outer(high.astype(np.uint16) << 8, low).ravel()
    whole = flat.reshape(height, width).view(np.uint16)
    return cv2.LUT(whole.reshape(height, -1, count), pairs).view(np.uint8)


def _apply_wide_table(flat: Image, table: Image) -> Image:
    """Look uint16 values up in a table (65536,)."""
    if _looks_up_uint16():
        return cv2.LUT(flat, table)
    out = np.empty(flat.shape, table.dtype)
    for rows in row_blocks(flat, 8):  # NumPy makes 8-byte indices of them
        np.take(table, flat[rows], out=out[rows], mode="clip")  # "raise" would copy the result once more
    return out


@functools.cache
def _looks_up_uint16() -> bool:
    """Whether this OpenCV takes tables for uint16: 5.0 does, 4.12 does not."""
    try:
        cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros(65536, np.uint16))
    except cv2.error:
        return False
    return True


def _scale_abs(values: Image, scale: float, shift: float) -> Image:
    return cv2.convertScaleAbs(values, alpha=scale, beta=shift)


def _weighted(values: Image, scale: float, shift: float) -> Image:
    return cv2.addWeighted(values, scale, values, 0, shift)


def _exact_shift(
    linear: Callable[[Image, float, float], Image], line: tuple[float, float], table: Image
) -> float | None:
    """The shift with which a rounded ``scale * value + shift`` of OpenCV gives the table, None if none does.

    The table cuts off and OpenCV rounds, so 1/2 less something small. Tried with twice and half as much, so
    that the result does not hang on the last bit of a float32. What `_scale_abs` turns positive shows here,
    too.
    """
    if linear is _weighted and not _SUMS_ARE_EXACT:
        return None
    for small in (5e-4, 2e-3):
        tried = linear(_ALL_UINT8, line[0], line[1] - 0.5 + small)
        if tried.tobytes() != table.tobytes():
            return None
    return line[1] - 0.5 + 1e-3
