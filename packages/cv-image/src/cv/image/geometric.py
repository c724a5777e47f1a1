"""Flipping, rotating, shearing and translating.

Coordinates are those of pixel centres: the top left pixel is at (0, 0), x to the right, y down. Any
number of channels and the dtypes of OpenCV are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import (
    OPENCV_DTYPES,
    Image,
    by_four_channels,
    channels,
    check_image,
    check_not_empty,
    copied,
    for_cv2,
    like,
    per_channel,
)
from cv.image.crop import paste
from cv.image.resize import cv2_interpolation

_FLIP_CODES = {"horizontal": 1, "vertical": 0, "diagonal": -1}


def imflip(img: Image, direction: str = "horizontal") -> Image:
    """Flip an image.

    Args:
        img: (H, W) or (H, W, C), any dtype.
        direction: "horizontal" (left and right change places), "vertical", or "diagonal" (both).

    Returns:
        A flipped copy, C-contiguous.

    Raises:
        AssertionError: If the direction is unknown.
    """
    code = _flip_code(direction)
    img = check_image(img)
    if not _cv2_can_move(img):
        return np.ascontiguousarray(_flipped_view(img, direction))
    return like(cv2.flip(for_cv2(img), code), img)


def imflip_(img: Image, direction: str = "horizontal") -> Image:
    """Flip an image in place.

    Args:
        img: (H, W) or (H, W, C), any dtype; it is changed.
        direction: Same as `imflip`.

    Returns:
        `img` itself.

    Raises:
        AssertionError: If the direction is unknown.
    """
    code = _flip_code(direction)
    check_image(img)
    if img.flags.c_contiguous and img.flags.writeable and _cv2_can_move(img):
        cv2.flip(img, code, dst=img)
    else:  # OpenCV would flip a copy of such an array
        img[...] = _flipped_view(img, direction).copy()
    return img


def imrotate(
    img: Image,
    angle: float,
    center: tuple[float, float] | None = None,
    scale: float = 1.0,
    border_value: float | Sequence[float] = 0,
    interpolation: str = "bilinear",
    auto_bound: bool = False,
) -> Image:
    """Rotate an image.

    Args:
        img: (H, W) or (H, W, C).
        angle: Degrees, clockwise.
        center: The point (x, y) that stays in place; None is the centre of the image.
        scale: Isotropic scale factor.
        border_value: Value of the uncovered area: one for all channels or one for each.
        interpolation: Same as `imresize`.
        auto_bound: Make the result as large as the whole rotated image needs.

    Returns:
        The rotated image, of the size of `img` unless `auto_bound`.

    Raises:
        ValueError: If `center` is given together with `auto_bound`, or interpolation is unknown.
    """
    if center is not None and auto_bound:
        raise ValueError(f"center must be None with auto_bound, got {center}")
    img = check_image(img)
    check_not_empty(img)
    if not math.isfinite(angle):
        raise ValueError(f"angle must be finite, got {angle}")
    mode = cv2_interpolation(interpolation)
    height, width = img.shape[:2]
    quarter_turns = angle / 90
    if center is None and scale == 1 and quarter_turns == int(quarter_turns):
        turns = int(quarter_turns) % 4
        if turns % 2 == 0 or auto_bound or height == width:  # nothing but whole pixels moves
            return _turned(img, turns)
    if center is None:
        center = ((width - 1) * 0.5, (height - 1) * 0.5)
    matrix = cv2.getRotationMatrix2D(center, -angle, scale)  # OpenCV counts counter-clockwise
    if auto_bound:
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        new_width, new_height = height * sin + width * cos, height * cos + width * sin
        matrix[:, 2] += (new_width - width) * 0.5, (new_height - height) * 0.5
        # At least one pixel: a small scale would leave nothing.
        width, height = max(1, round(new_width)), max(1, round(new_height))
    return _warp(img, matrix, (width, height), mode, per_channel(border_value, img, name="border_value"))


def imshear(
    img: Image,
    magnitude: float,
    direction: str = "horizontal",
    border_value: int | tuple[int, ...] = 0,
    interpolation: str = "bilinear",
) -> Image:
    """Shear an image: x' = x + magnitude * y, or with "vertical" y' = y + magnitude * x.

    Args:
        img: (H, W) or (H, W, C).
        magnitude: The shear factor.
        direction: "horizontal" or "vertical".
        border_value: Value of the uncovered area: one for all channels, or a tuple with one for each.
        interpolation: Same as `imresize`.

    Returns:
        The sheared image, of the same size.

    Raises:
        AssertionError: If the direction is unknown or `border_value` has the wrong length.
        ValueError: If `border_value` is neither a number nor a tuple.
    """
    _check_direction(direction)
    img = check_image(img)
    check_not_empty(img)
    border = _border_tuple(border_value, img)
    matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
    matrix[(0, 1) if direction == "horizontal" else (1, 0)] = magnitude
    return _warp(img, matrix, (img.shape[1], img.shape[0]), cv2_interpolation(interpolation), border)


def imtranslate(
    img: Image,
    offset: float,
    direction: str = "horizontal",
    border_value: int | tuple[int, ...] = 0,
    interpolation: str = "bilinear",
) -> Image:
    """Translate an image to the right or, with "vertical", downwards.

    Args:
        img: (H, W) or (H, W, C).
        offset: The distance in pixels; negative ones go to the left or upwards.
        direction: "horizontal" or "vertical".
        border_value: Value of the uncovered area: one for all channels, or a tuple with one for each.
        interpolation: Same as `imresize`; of no effect for a whole number of pixels.

    Returns:
        The translated image, of the same size.

    Raises:
        AssertionError: If the direction is unknown or `border_value` has the wrong length.
        ValueError: If `border_value` is neither a number nor a tuple.
    """
    _check_direction(direction)
    img = check_image(img)
    check_not_empty(img)
    if not math.isfinite(offset):
        raise ValueError(f"offset must be finite, got {offset}")
    border = _border_tuple(border_value, img)
    mode = cv2_interpolation(interpolation)
    x, y = (offset, 0) if direction == "horizontal" else (0, offset)
    if offset == int(offset):
        height, width = img.shape[:2]
        return paste(img, -int(x), -int(y), width, height, border)
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return _warp(img, matrix, (img.shape[1], img.shape[0]), mode, border)


def _turned(img: Image, turns: int) -> Image:
    """A copy turned clockwise by quarters."""
    if turns == 0:
        return copied(img)
    if _cv2_can_move(img) and channels(img) <= 4:
        code = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)[turns - 1]
        return like(cv2.rotate(for_cv2(img), code), img)
    return np.ascontiguousarray(np.rot90(img, -turns))


def _warp(
    img: Image, matrix: npt.NDArray[Any], size: tuple[int, int], mode: int, border: list[float]
) -> Image:
    """Apply an affine map (source to target, 2 x 3)."""
    if mode == cv2.INTER_AREA:
        mode = cv2.INTER_LINEAR  # a warp has no area mode: OpenCV takes this one
    if max(*img.shape[:2], *size) >= 32767:  # the limit of OpenCV's fixed-point coordinates
        raise ValueError(f"img and result must have sides below 32767, got {img.shape[:2]} and {size[::-1]}")
    try:
        return by_four_channels(
            img,
            lambda part, group: cv2.warpAffine(
                part, matrix, size, flags=mode, borderMode=cv2.BORDER_CONSTANT, borderValue=border[group]
            ),
        )
    except cv2.error as error:
        raise TypeError(f"img of dtype {img.dtype} cannot be warped ({error.err or error})") from error


def _border_tuple(border_value: object, img: Image) -> list[float]:
    if not isinstance(border_value, (int, float, np.number, tuple)):
        raise ValueError(f"border_value must be a number or a tuple, got {type(border_value).__name__}")
    return per_channel(border_value, img, AssertionError, "border_value")  # type: ignore[arg-type]


def _check_direction(direction: str) -> None:
    if direction not in ("horizontal", "vertical"):
        raise AssertionError(f'direction must be "horizontal" or "vertical", got {direction!r}')


def _flip_code(direction: str) -> int:
    if direction not in _FLIP_CODES:
        raise AssertionError(f"direction must be one of {list(_FLIP_CODES)}, got {direction!r}")
    return _FLIP_CODES[direction]


def _flipped_view(img: Image, direction: str) -> Image:
    if direction == "horizontal":
        return img[:, ::-1]
    return img[::-1] if direction == "vertical" else img[::-1, ::-1]


def _cv2_can_move(img: Image) -> bool:
    """Whether OpenCV flips and turns such an image: pixels of up to 32 bytes."""
    return img.dtype in OPENCV_DTYPES and img.size > 0 and channels(img) * img.itemsize <= 32
