"""What every function on images needs: checking the argument, and handing it to OpenCV and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]


def check_image(img: object, name: str = "img") -> Image:
    """Return `img` if it is an array of shape (H, W) or (H, W, C), raise otherwise."""
    if not isinstance(img, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(img).__name__}")
    if img.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (H, W) or (H, W, C), got {img.shape}")
    return img


def for_cv2(img: Image) -> Image:
    """`img` in a layout and byte order that OpenCV reads correctly, without a copy where that is possible.

    Rows may lie apart (a crop); pixels within a row must be packed, strides positive, bytes in native order.
    """
    if not img.dtype.isnative:  # OpenCV looks at the type number only and would read garbage
        return img.astype(img.dtype.newbyteorder("="))
    if img.flags.c_contiguous:
        return img
    packed = img.strides[-1] == img.itemsize and (
        img.ndim == 2 or img.strides[1] == img.shape[2] * img.itemsize
    )
    if packed and img.strides[0] >= img.shape[1] * img.strides[1]:
        return img
    return np.ascontiguousarray(img)


def like(result: Image, shape_of: Image) -> Image:
    """Give `result` the number of dimensions of `shape_of`: OpenCV drops a last axis of length one."""
    if shape_of.ndim == 3 and result.ndim == 2:
        return result[..., None]
    return result
