"""Cropping, padding and cutting out.

A box (x1, y1, x2, y2) names its first and its last pixel. Any number of channels and any dtype are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import (
    OPENCV_DTYPES,
    Image,
    by_four_channels,
    check_image,
    check_not_empty,
    copied,
    for_cv2,
    is_natural,
    like,
    per_channel,
)

_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


def imcrop(
    img: Image,
    bboxes: npt.NDArray[Any],
    scale: float = 1.0,
    pad_fill: float | Sequence[float] | None = None,
) -> Image | list[Image]:
    """Crop patches: scale the boxes about their centres, clip them to the image, crop, and pad where asked.

    Args:
        img: (H, W) or (H, W, C).
        bboxes: (k, 4) or (4,), each (x1, y1, x2, y2) with the last pixel included; fractions are cut off
            after scaling.
        scale: Factor for width and height.
        pad_fill: None clips the boxes to the image. A number, or one for each channel, fills what lies
            outside.

    Returns:
        A patch for each box in a list; one patch for a single box. Without `pad_fill` patches are views of
        `img`.

    Raises:
        ValueError: If `bboxes` has another shape, holds NaN or infinity, or a box ends before it begins.
        AssertionError: If `pad_fill` has the wrong length.
    """
    img = check_image(img)
    check_not_empty(img)
    boxes = np.asarray(bboxes, np.float64)
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise ValueError(f"bboxes must have shape (k, 4) or (4,), got {boxes.shape}")
    fill = None if pad_fill is None else per_channel(pad_fill, img, AssertionError, "pad_fill")
    height, width = img.shape[:2]
    patches = []
    for box in boxes.reshape(-1, 4).tolist():
        x1, y1, x2, y2 = _scaled_box(box, scale)
        if fill is not None:
            patches.append(paste(img, x1, y1, x2 - x1 + 1, y2 - y1 + 1, fill))
        else:
            left, right = min(max(x1, 0), width - 1), min(max(x2, 0), width - 1)
            top, bottom = min(max(y1, 0), height - 1), min(max(y2, 0), height - 1)
            patches.append(img[top : bottom + 1, left : right + 1])
    return patches[0] if boxes.ndim == 1 else patches


def impad(
    img: Image,
    *,
    shape: tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] | None = None,
    pad_val: float | Sequence[float] = 0,
    padding_mode: str = "constant",
) -> Image:
    """Pad an image to a shape, or by a number of pixels on each side.

    Args:
        img: (H, W) or (H, W, C).
        shape: Padded shape (h, w): the padding goes to the right and to the bottom.
        padding: A number for all sides, (left and right, top and bottom), or (left, top, right, bottom). Give
            either `shape` or this.
        pad_val: Value of a constant padding: one for all channels or one for each.
        padding_mode: "constant"; "edge" (the last value repeated); "reflect" (3 2 | 1 2 3 4 | 3 2); or
            "symmetric" (2 1 | 1 2 3 4 | 4 3).

    Returns:
        The padded image.

    Raises:
        AssertionError: If both or neither of `shape` and `padding` are given, the mode is unknown, the shape
            is smaller than the image, a padding is negative, or `pad_val` has the wrong length.
        ValueError: If `padding` has not one, two or four values, or the image is empty and the mode not
            "constant".
        TypeError: If `pad_val` is neither a number nor a sequence of numbers.
    """
    img = check_image(img)
    if (shape is None) == (padding is None):
        raise AssertionError(f"give either shape or padding, got shape={shape} and padding={padding}")
    if padding_mode not in _BORDERS:
        raise AssertionError(f"padding_mode must be one of {list(_BORDERS)}, got {padding_mode!r}")
    fill = _pad_values(pad_val, img)
    left, top, right, bottom = _padding(img, shape, padding)
    if left < 0 or top < 0 or right < 0 or bottom < 0:
        raise AssertionError(
            f"the padded image must not be smaller than {img.shape[:2]}, got shape={shape}, padding={padding}"
        )
    border = _BORDERS[padding_mode]
    if len(fill) <= 4 and img.size and img.dtype in OPENCV_DTYPES:
        return like(cv2.copyMakeBorder(for_cv2(img), top, bottom, left, right, border, value=fill), img)
    if padding_mode == "constant":
        height, width = img.shape[0] + top + bottom, img.shape[1] + left + right
        return paste(img, -left, -top, width, height, fill)
    check_not_empty(img)
    return by_four_channels(
        img,
        lambda part, group: cv2.copyMakeBorder(part, top, bottom, left, right, border, value=fill[group]),
    )


def impad_to_multiple(img: Image, divisor: int, pad_val: float | Sequence[float] = 0) -> Image:
    """Pad an image to the right and to the bottom so that a divisor divides both sides.

    Args:
        img: (H, W) or (H, W, C).
        divisor: The divisor.
        pad_val: Same as `impad`.

    Returns:
        The padded image.

    Raises:
        ValueError: If `divisor` is not a positive integer.
    """
    if not is_natural(divisor) or divisor == 0:
        raise ValueError(f"divisor must be a positive integer, got {divisor!r}")
    by, shape = int(divisor), check_image(img).shape
    return impad(img, shape=(-(-shape[0] // by) * by, -(-shape[1] // by) * by), pad_val=pad_val)


def cutout(img: Image, shape: int | tuple[int, int], pad_val: float | tuple[float, ...] = 0) -> Image:
    """Fill a rectangle at a random place (DeVries and Taylor, arXiv:1708.04552).

    The centre is drawn from `numpy.random`, first y, then x, uniformly over the image.

    Args:
        img: (H, W) or (H, W, C).
        shape: Shape (h, w) of the rectangle, or one number for both; what lies outside the image is cut off.
        pad_val: The value to fill in: one for all channels, or a tuple with one for each.

    Returns:
        A copy with the rectangle filled.

    Raises:
        AssertionError: If `shape` is not one or two non-negative integers, or `pad_val` has the wrong length.
        TypeError: If `pad_val` is neither a number nor a tuple.
    """
    img = check_image(img)
    cut_height, cut_width = _cutout_shape(shape)
    fill = _cutout_fill(pad_val, img)
    height, width = img.shape[:2]
    center_y = np.random.uniform(height)  # noqa: NPY002 - documented: callers seed the global generator
    center_x = np.random.uniform(width)  # noqa: NPY002
    top = int(max(0, center_y - cut_height / 2))
    left = int(max(0, center_x - cut_width / 2))
    out = copied(img)
    out[top : top + cut_height, left : left + cut_width] = _pixel(fill, img)
    return out


def paste(img: Image, x: int, y: int, width: int, height: int, fill: list[float]) -> Image:
    """The window of `width` x `height` at (x, y) of `img`, with `fill` where it lies outside."""
    out: Image = np.empty((height, width, *img.shape[2:]), img.dtype)
    top, left = min(max(-y, 0), height), min(max(-x, 0), width)
    bottom = max(top, min(img.shape[0] - y, height))
    right = max(left, min(img.shape[1] - x, width))
    pixel = _pixel(fill, img)
    out[:top] = pixel
    out[bottom:] = pixel
    out[top:bottom, :left] = pixel
    out[top:bottom, right:] = pixel
    out[top:bottom, left:right] = img[y + top : y + bottom, x + left : x + right]
    return out


def _pixel(fill: list[float], img: Image) -> Image:
    """One value if it is the same for all channels, or one for each, saturated to the dtype."""
    same = img.ndim == 2 or len(set(fill)) == 1  # NumPy fills with one value much faster
    values = np.asarray(fill[0] if same else fill)
    if img.dtype.kind in "iu":
        limits = np.iinfo(img.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    pixel: Image = values.astype(img.dtype)
    return pixel


def _scaled_box(box: list[float], scale: float) -> tuple[int, int, int, int]:
    """Scale about the centre and cut fractions off; a box's width is x2 - x1 + 1."""
    x1, y1, x2, y2 = box
    if not all(abs(value) <= 2**31 for value in box):  # NaN is not, either
        raise ValueError(f"bboxes must be finite and within 32 bits, got {box}")
    if x2 < x1 or y2 < y1:
        raise ValueError(f"bboxes must have x1 <= x2 and y1 <= y2, got {box}")
    x_extra, y_extra = (x2 - x1 + 1) * (scale - 1) * 0.5, (y2 - y1 + 1) * (scale - 1) * 0.5
    return int(x1 - x_extra), int(y1 - y_extra), int(x2 + x_extra), int(y2 + y_extra)


def _padding(
    img: Image, shape: tuple[int, ...] | None, padding: int | tuple[int, ...] | None
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom)"""
    if shape is not None:
        if len(shape) < 2:
            raise AssertionError(f"shape must be (h, w), got {shape}")
        return 0, 0, int(shape[1]) - img.shape[1], int(shape[0]) - img.shape[0]
    if isinstance(padding, (int, np.integer)):
        return (int(padding),) * 4
    if isinstance(padding, (tuple, list)) and len(padding) == 4:
        left, top, right, bottom = map(int, padding)
        return left, top, right, bottom
    if isinstance(padding, (tuple, list)) and len(padding) == 2:
        return int(padding[0]), int(padding[1]), int(padding[0]), int(padding[1])
    raise ValueError(f"padding must be an integer or a tuple of 2 or 4, got {padding!r}")


def _pad_values(pad_val: object, img: Image) -> list[float]:
    if isinstance(pad_val, (int, float, np.number)):
        return per_channel(pad_val, img)  # type: ignore[arg-type]  # NumPy's numbers do as well
    if isinstance(pad_val, (str, bytes)) or not isinstance(pad_val, (Sequence, np.ndarray)):
        raise TypeError(f"pad_val must be a number or a sequence of numbers, got {type(pad_val).__name__}")
    return per_channel(list(pad_val), img, AssertionError, "pad_val")


def _cutout_shape(shape: object) -> tuple[int, int]:
    sides = (shape, shape) if isinstance(shape, (int, np.integer)) else shape
    if not isinstance(sides, tuple) or len(sides) != 2 or not all(map(is_natural, sides)):
        raise AssertionError(f"shape must be one or two non-negative integers, got {shape!r}")
    return int(sides[0]), int(sides[1])


def _cutout_fill(pad_val: object, img: Image) -> list[float]:
    if not isinstance(pad_val, (int, float, np.number, tuple)):
        raise TypeError(f"pad_val must be a number or a tuple, got {type(pad_val).__name__}")
    return per_channel(pad_val, img, AssertionError, "pad_val")  # type: ignore[arg-type]
