"""Flipping, rotating, shearing, translating, cropping, padding and cutting out.

Coordinates are those of pixel centres: the top left pixel is at (0, 0), x to the right, y down. A box
(x1, y1, x2, y2) names its first and its last pixel. Any number of channels and the dtypes of OpenCV are
accepted.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import (
    Image,
    by_four_channels,
    channels,
    check_image,
    check_not_empty,
    copied,
    for_cv2,
    is_natural,
    like,
    per_channel,
)
from cv.image.resize import cv2_interpolation

_FLIP_CODES = {"horizontal": 1, "vertical": 0, "diagonal": -1}
_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


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
    if not _cv2_can_flip(img):
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
    if img.flags.c_contiguous and img.flags.writeable and _cv2_can_flip(img):
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
            return np.ascontiguousarray(np.rot90(img, -turns)) if turns else copied(img)
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
        return _paste(img, -int(x), -int(y), width, height, border)
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return _warp(img, matrix, (img.shape[1], img.shape[0]), mode, border)


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
    boxes = _check_boxes(bboxes)
    fill = None if pad_fill is None else per_channel(pad_fill, img, AssertionError, "pad_fill")
    height, width = img.shape[:2]
    patches = []
    for x1, y1, x2, y2 in _scale_boxes(np.atleast_2d(boxes), scale).tolist():
        if fill is not None:
            patches.append(_paste(img, x1, y1, x2 - x1 + 1, y2 - y1 + 1, fill))
        else:
            columns = slice(min(max(x1, 0), width - 1), min(max(x2, 0), width - 1) + 1)
            rows = slice(min(max(y1, 0), height - 1), min(max(y2, 0), height - 1) + 1)
            patches.append(img[rows, columns])
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
    if min(left, top, right, bottom) < 0:
        raise AssertionError(
            f"the padded image must not be smaller than {img.shape[:2]}, got shape={shape}, padding={padding}"
        )
    height, width = img.shape[0] + top + bottom, img.shape[1] + left + right
    if padding_mode == "constant" and (channels(img) > 4 or img.size == 0 or not _cv2_can_pad(img)):
        return _paste(img, -left, -top, width, height, fill)
    check_not_empty(img)
    border = _BORDERS[padding_mode]
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
    height, width = (-(-side // int(divisor)) * int(divisor) for side in check_image(img).shape[:2])
    return impad(img, shape=(height, width), pad_val=pad_val)


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


def _paste(img: Image, x: int, y: int, width: int, height: int, fill: list[float]) -> Image:
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
    """One value for a grey image, or one for each channel, saturated to the dtype."""
    values = np.asarray(fill if img.ndim == 3 else fill[0])
    if img.dtype.kind in "iu":
        limits = np.iinfo(img.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    pixel: Image = values.astype(img.dtype)
    return pixel


def _scale_boxes(boxes: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.int64]:
    """Scale about the centres, fractions cut off; a box's width is x2 - x1 + 1."""
    extra = (boxes[:, 2:] - boxes[:, :2] + 1) * (scale - 1) * 0.5
    return np.concatenate([boxes[:, :2] - extra, boxes[:, 2:] + extra], axis=1).astype(np.int64)


def _check_boxes(bboxes: object) -> npt.NDArray[np.float64]:
    boxes = np.asarray(bboxes, np.float64)
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise ValueError(f"bboxes must have shape (k, 4) or (4,), got {boxes.shape}")
    if not np.isfinite(boxes).all() or (np.abs(boxes) > 2**31).any():
        raise ValueError("bboxes must be finite and within 32 bits")
    if (boxes[..., 2:] < boxes[..., :2]).any():
        raise ValueError("bboxes must have x1 <= x2 and y1 <= y2")
    return boxes


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
    if isinstance(pad_val, numbers.Number):
        return per_channel(pad_val, img)  # type: ignore[arg-type]  # complex numbers fail later
    if isinstance(pad_val, (str, bytes)) or not isinstance(pad_val, (Sequence, np.ndarray)):
        raise TypeError(f"pad_val must be a number or a sequence of numbers, got {type(pad_val).__name__}")
    return per_channel(list(pad_val), img, AssertionError, "pad_val")


def _border_tuple(border_value: object, img: Image) -> list[float]:
    if not isinstance(border_value, (int, float, np.number, tuple)):
        raise ValueError(f"border_value must be a number or a tuple, got {type(border_value).__name__}")
    return per_channel(border_value, img, AssertionError, "border_value")  # type: ignore[arg-type]


def _cutout_shape(shape: object) -> tuple[int, int]:
    sides = (shape, shape) if isinstance(shape, (int, np.integer)) else shape
    if not isinstance(sides, tuple) or len(sides) != 2 or not all(map(is_natural, sides)):
        raise AssertionError(f"shape must be one or two non-negative integers, got {shape!r}")
    return int(sides[0]), int(sides[1])


def _cutout_fill(pad_val: object, img: Image) -> list[float]:
    if not isinstance(pad_val, (int, float, np.number, tuple)):
        raise TypeError(f"pad_val must be a number or a tuple, got {type(pad_val).__name__}")
    return per_channel(pad_val, img, AssertionError, "pad_val")  # type: ignore[arg-type]


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


def _cv2_can_flip(img: Image) -> bool:
    return img.dtype in (np.uint8, np.int8, np.uint16, np.int16, np.float32, np.float64) and 0 < channels(
        img
    ) * bool(img.size) <= min(512, 32 // img.itemsize)


def _cv2_can_pad(img: Image) -> bool:
    return img.dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64)
