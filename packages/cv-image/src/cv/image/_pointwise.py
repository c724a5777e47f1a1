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
Line = tuple[float, float]
_Linear = Callable[[Image, Image | None], Image]

_KNOWN_RANGE = frozenset(np.dtype(kind) for kind in (np.uint8, np.uint16, np.float32, np.float64))
# OpenCV 4.12 was seen to be one off in weighted sums at the ends of short rows: there the table is taken.
_SUMS_ARE_EXACT = int(cv2.__version__.partition(".")[0]) >= 5
_ALL_UINT8 = np.arange(256, dtype=np.uint8)
_LEVELS = np.arange(256, dtype=np.float64)
# What OpenCV's float32 sums of values up to 255 may be off by, with room to spare.
_SUM_ERROR = 1e-4
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


def map_values(img: Image, function: Function, line: Line | None = None) -> Image:
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


def apply_table(img: Image, table: Image, line: Line | None = None) -> Image:
    """Look every value of a uint8 or uint16 image up in `table`, (256,) or (65536,)."""
    if img.size == 0:
        return np.empty(img.shape, table.dtype)
    flat = as_plane(img)
    if img.dtype == np.uint16:
        return _apply_wide_table(flat, table).reshape(img.shape)
    linear = None if line is None else _exact_line(line, table)
    if linear is not None:
        return linear(flat, None).reshape(img.shape)
    looked_up = _in_pairs(flat, [table]) if table.dtype == np.uint8 else None
    return (cv2.LUT(flat, table) if looked_up is None else looked_up).reshape(img.shape)


def apply_tables(img: Image, tables: Sequence[Image], lines: Sequence[Line | None] | None = None) -> Image:
    """Look the values of each channel up in its own table."""
    count = channels(img)
    given = lines or [None] * count
    if count == 1:
        return apply_table(img, tables[0], given[0])
    if img.dtype == np.uint8 and count <= 4 and img.size:
        linears = [line and _exact_line(line, table) for line, table in zip(given, tables, strict=True)]
        found = [linear for linear in linears if linear is not None]
        if len(found) == count:
            return _by_planes(img, found)
        looked_up = _in_pairs(as_plane(img), tables)
        if looked_up is not None:
            return looked_up.reshape(img.shape)
        return cv2.LUT(for_cv2(img), np.stack(tables, axis=1)[:, None])
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
        part = max(1, 2**24 // img.shape[1])  # float32 counts are exact so far: count large images in parts
        counts = np.zeros((channels(img), size), np.int64)
        for start in range(0, img.shape[0], part):
            rows = [values[start : start + part]]
            found = [
                cv2.calcHist(rows, [channel], None, [size], [0, size]).ravel()
                for channel in range(channels(img))
            ]
            counts += np.array(found).astype(np.int64)
        return list(counts)
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


def _by_planes(img: Image, linears: Sequence[_Linear]) -> Image:
    """Map each channel of a uint8 image of two to four."""
    out = np.empty(img.shape, np.uint8)
    planes: Sequence[Image] = []  # the same memory for each block of rows
    for rows in row_blocks(img, 1):
        block = for_cv2(img[rows])
        if not planes or len(planes[0]) != len(block):
            planes = [np.empty(block.shape[:2], np.uint8) for _ in linears]
        planes = cv2.split(block, planes)
        for plane, linear in zip(planes, linears, strict=True):
            linear(plane, plane)
        cv2.merge(planes, dst=out[rows])
    return out


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
    pairs = np.empty((256, 256, count), np.uint16)
    for pair in range(count):
        first, second = tables[2 * pair % count], tables[(2 * pair + 1) % count]
        low, high = (first, second) if sys.byteorder == "little" else (second, first)
        np.bitwise_or.outer(high.astype(np.uint16) << 8, low, out=pairs[..., pair])
    whole = flat.reshape(height, width).view(np.uint16)
    return cv2.LUT(whole.reshape(height, -1, count), pairs.reshape(65536, 1, count)).view(np.uint8)


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


def _exact_line(line: Line, table: Image) -> _Linear | None:
    """OpenCV's arithmetic that gives the table, as a function of (values, out); None if there is none.

    The table cuts ``scale * value + shift`` off and OpenCV rounds it: that is the same after subtracting 1/2
    less a little, which must not lift a value over the next integer.
    """
    scale, shift = map(float, line)
    if scale <= 0:
        return None
    over = _LEVELS * scale + shift - table
    least = over[table.searchsorted(1) :].min(initial=0)  # below it, rounding may go as far down as it likes
    most = over[: table.searchsorted(255)].max(initial=0)
    little = float(1 - most - least) / 2
    if little + least < _SUM_ERROR:
        return None
    shift += little - 0.5
    linear = _scale_abs if shift > -0.5 else _weighted  # the former turns what is negative positive
    if linear is _weighted and not _SUMS_ARE_EXACT:
        return None
    if linear(_ALL_UINT8, None, scale, shift).tobytes() != table.tobytes():
        return None
    return functools.partial(linear, scale=scale, shift=shift)


def _scale_abs(values: Image, out: Image | None, scale: float, shift: float) -> Image:
    return cv2.convertScaleAbs(values, dst=out, alpha=scale, beta=shift)


def _weighted(values: Image, out: Image | None, scale: float, shift: float) -> Image:
    return cv2.addWeighted(values, scale, values, 0, shift, dst=out)
