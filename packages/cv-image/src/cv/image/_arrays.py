"""What every function on images needs: checking the argument, and handing it to OpenCV and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]

# What all of OpenCV's functions on arrays take.
OPENCV_DTYPES = frozenset(
    np.dtype(kind) for kind in (np.uint8, np.int8, np.uint16, np.int16, np.float32, np.float64)
)
_ALL_CHANNELS = slice(0, 4)

# Work on this many bytes at a time, for each thread of OpenCV, where several passes follow each other: so
# they meet in the cache. Counting more threads would make the blocks, and the memory for them, too large.
_BLOCK_BYTES = 256 * 1024
_MOST_BLOCK_THREADS = 8


def check_image(img: object, name: str = "img") -> Image:
    """Return `img`, in native byte order, if it is an array of shape (H, W) or (H, W, C); raise otherwise."""
    if not isinstance(img, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(img).__name__}")
    if img.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (H, W) or (H, W, C), got {img.shape}")
    if not img.dtype.isnative:  # OpenCV looks at the type number only and would read garbage
        return img.astype(img.dtype.newbyteorder("="))
    return img


def check_not_empty(img: Image, name: str = "img") -> None:
    """Raise `ValueError` if `img` has no pixels."""
    if img.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {img.shape}")


def channels(img: Image) -> int:
    """Number of channels of an (H, W) or (H, W, C) image."""
    return 1 if img.ndim == 2 else int(img.shape[2])


def is_natural(value: object) -> bool:
    """Whether `value` is an integer of at least 0 (and not a bool)."""
    if type(value) is int:  # nearly always, and much faster to tell
        return value >= 0
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def copied(img: Image) -> Image:
    """A C-contiguous copy."""
    return np.array(img, order="C")


def for_cv2(img: Image) -> Image:
    """`img` in a layout that OpenCV reads correctly, without a copy where that is possible.

    Rows may lie apart (a crop); pixels within a row must be packed and strides positive.
    """
    if img.flags.c_contiguous:
        return img
    packed = img.strides[-1] == img.itemsize and (
        img.ndim == 2 or img.strides[1] == img.shape[2] * img.itemsize
    )
    if packed and img.strides[0] >= img.shape[1] * img.strides[1]:
        return img
    return np.ascontiguousarray(img)


def like(result: Image, img: Image) -> Image:
    """Give `result` the number of dimensions of `img`: OpenCV drops a last axis of length one."""
    if img.ndim == 3 and result.ndim == 2:
        return result[..., None]
    return result


def by_four_channels(img: Image, function: Callable[[Image, slice], Image]) -> Image:
    """Apply `function(part, its channels)` to groups of four channels: OpenCV's limit in many places."""
    if img.ndim == 2 or img.shape[2] <= 4:
        return like(function(for_cv2(img), _ALL_CHANNELS), img)
    groups = [slice(start, start + 4) for start in range(0, channels(img), 4)]
    parts = [np.ascontiguousarray(img[..., group]) for group in groups]
    results = [like(function(part, group), part) for part, group in zip(parts, groups, strict=True)]
    return np.concatenate(results, axis=2)


def per_channel(
    value: float | Sequence[float], img: Image, error: type[Exception] = ValueError, name: str = "value"
) -> list[float]:
    """`value` as one number for each channel of `img`; a single number holds for all of them."""
    count = 1 if img.ndim == 2 else img.shape[2]
    if isinstance(value, (int, float, np.number)):
        return [float(value)] * count
    if len(value) != count:
        raise error(f"{name} must be a number or have one for each of {count} channels, got {value!r}")
    return [float(each) for each in value]  # OpenCV takes no NumPy numbers


def row_blocks(img: Image, itemsize: int) -> Iterator[slice]:
    """Slices of rows that hold about `_BLOCK_BYTES` for each thread, at `itemsize` bytes for a value."""
    height = img.shape[0]
    row_bytes = max(1, img.size // max(1, height) * itemsize)
    step = max(1, _BLOCK_BYTES * min(cv2.getNumThreads(), _MOST_BLOCK_THREADS) // row_bytes)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def describe(value: object) -> str:
    """What an error text says of an argument."""
    if isinstance(value, np.ndarray):
        return f"shape {value.shape} and dtype {value.dtype}"
    return type(value).__name__
