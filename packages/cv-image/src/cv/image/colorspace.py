"""Conversions between colour spaces.

uint8 values are in [0, 255], uint16 in [0, 65535], float32 in [0, 1]. Hue is in degrees, halved for uint8.
HSV, HLS and grey follow OpenCV (https://docs.opencv.org/4.x/de/d25/imgproc_color_conversions.html); YCbCr
follows ITU-R BT.601 with the head- and footroom of studio swing, as in MATLAB.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import Image, check_image, for_cv2, row_blocks

# ITU-R BT.601, R, G, B in [0, 1] to 8-bit Y (16 to 235), Cb and Cr (16 to 240). Cb and Cr are the colour
# differences scaled to a range of 224: 112 / (1 - 0.114) * (B - Y') and 112 / (1 - 0.299) * (R - Y').
_RGB_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])


def imconvert(img: Image, src: str, dst: str) -> Image:
    """Convert an image from one colour space to another.

    Args:
        img: Image that OpenCV can convert: (H, W, 3) or (H, W, 4), or (H, W) for "gray"; uint8, uint16 or
            float32.
        src: Source colour space as OpenCV names it: "bgr", "rgb", "gray", "hsv", "hls", "lab", "luv", "xyz",
            …
        dst: Target colour space.

    Returns:
        The converted image, of the same dtype.

    Raises:
        ValueError: If OpenCV has no such conversion, or not for this shape and dtype.
    """
    code = getattr(cv2, f"COLOR_{str(src).upper()}2{str(dst).upper()}", None)
    if code is None:
        raise ValueError(f"src and dst must be colour spaces that OpenCV converts, got {src!r} to {dst!r}")
    return _convert(check_image(img), code, f"{src} to {dst}")


def bgr2gray(img: Image, keepdim: bool = False) -> Image:
    """Convert BGR to grey: 0.299 R + 0.587 G + 0.114 B, rounded.

    Args:
        img: (H, W, 3), uint8, uint16 or float32.
        keepdim: Return (H, W, 1) instead of (H, W).

    Returns:
        The grey image, of the same dtype.
    """
    grey = _convert(_check_color(img), cv2.COLOR_BGR2GRAY, "BGR to grey")
    return grey[..., None] if keepdim else grey


def rgb2gray(img: Image, keepdim: bool = False) -> Image:
    """Convert RGB to grey: 0.299 R + 0.587 G + 0.114 B, rounded.

    Args:
        img: (H, W, 3), uint8, uint16 or float32.
        keepdim: Return (H, W, 1) instead of (H, W).

    Returns:
        The grey image, of the same dtype.
    """
    grey = _convert(_check_color(img), cv2.COLOR_RGB2GRAY, "RGB to grey")
    return grey[..., None] if keepdim else grey


def gray2bgr(img: Image) -> Image:
    """Repeat a grey image (H, W) or (H, W, 1) as (H, W, 3) BGR of the same dtype."""
    return _convert(_check_grey(img), cv2.COLOR_GRAY2BGR, "grey to BGR")


def gray2rgb(img: Image) -> Image:
    """Repeat a grey image (H, W) or (H, W, 1) as (H, W, 3) RGB of the same dtype."""
    return _convert(_check_grey(img), cv2.COLOR_GRAY2RGB, "grey to RGB")


def bgr2rgb(img: Image) -> Image:
    """Exchange blue and red of an (H, W, 3) image."""
    return _convert(_check_color(img), cv2.COLOR_BGR2RGB, "BGR to RGB")


def rgb2bgr(img: Image) -> Image:
    """Exchange red and blue of an (H, W, 3) image."""
    return _convert(_check_color(img), cv2.COLOR_RGB2BGR, "RGB to BGR")


def bgr2hsv(img: Image) -> Image:
    """Convert an (H, W, 3) BGR image to hue, saturation, value."""
    return _convert(_check_color(img), cv2.COLOR_BGR2HSV, "BGR to HSV")


def hsv2bgr(img: Image) -> Image:
    """Convert an (H, W, 3) image of hue, saturation, value to BGR."""
    return _convert(_check_color(img), cv2.COLOR_HSV2BGR, "HSV to BGR")


def bgr2hls(img: Image) -> Image:
    """Convert an (H, W, 3) BGR image to hue, lightness, saturation."""
    return _convert(_check_color(img), cv2.COLOR_BGR2HLS, "BGR to HLS")


def hls2bgr(img: Image) -> Image:
    """Convert an (H, W, 3) image of hue, lightness, saturation to BGR."""
    return _convert(_check_color(img), cv2.COLOR_HLS2BGR, "HLS to BGR")


def rgb2ycbcr(img: Image, y_only: bool = False) -> Image:
    """Convert RGB to YCbCr (ITU-R BT.601, as MATLAB's ``rgb2ycbcr``).

    It is not the full-range conversion of JPEG which OpenCV calls YCrCb.

    Args:
        img: (H, W, 3), uint8 in [0, 255] or float32 in [0, 1].
        y_only: Return Y alone, (H, W).

    Returns:
        Y, Cb, Cr of the same dtype and range: Y in 16 to 235, Cb and Cr in 16 to 240, or these over 255.

    Raises:
        TypeError: If the dtype is neither uint8 nor float32.
    """
    rows = slice(0, 1) if y_only else slice(None)
    return _linear(_check_ycbcr(img), _RGB_TO_YCBCR[rows] / 255, _YCBCR_OFFSET[rows])


def bgr2ycbcr(img: Image, y_only: bool = False) -> Image:
    """Convert BGR to YCbCr (ITU-R BT.601): `rgb2ycbcr` for the other channel order.

    Args:
        img: (H, W, 3), uint8 in [0, 255] or float32 in [0, 1].
        y_only: Return Y alone, (H, W).

    Returns:
        Y, Cb, Cr of the same dtype and range.

    Raises:
        TypeError: If the dtype is neither uint8 nor float32.
    """
    rows = slice(0, 1) if y_only else slice(None)
    return _linear(_check_ycbcr(img), _RGB_TO_YCBCR[rows, ::-1] / 255, _YCBCR_OFFSET[rows])


def ycbcr2rgb(img: Image) -> Image:
    """Convert YCbCr to RGB (ITU-R BT.601, as MATLAB's ``ycbcr2rgb``): the inverse of `rgb2ycbcr`.

    Args:
        img: (H, W, 3) Y, Cb, Cr; uint8 in [0, 255] or float32 in [0, 1].

    Returns:
        RGB of the same dtype and range; uint8 saturates where the colour is out of range.

    Raises:
        TypeError: If the dtype is neither uint8 nor float32.
    """
    matrix = np.linalg.inv(_RGB_TO_YCBCR / 255)
    return _linear(_check_ycbcr(img), matrix, -matrix @ _YCBCR_OFFSET)


def ycbcr2bgr(img: Image) -> Image:
    """Convert YCbCr to BGR (ITU-R BT.601): `ycbcr2rgb` for the other channel order.

    Args:
        img: (H, W, 3) Y, Cb, Cr; uint8 in [0, 255] or float32 in [0, 1].

    Returns:
        BGR of the same dtype and range; uint8 saturates where the colour is out of range.

    Raises:
        TypeError: If the dtype is neither uint8 nor float32.
    """
    matrix = np.linalg.inv(_RGB_TO_YCBCR / 255)[::-1]
    return _linear(_check_ycbcr(img), matrix, -matrix @ _YCBCR_OFFSET)


_WITH_HUE = frozenset(
    getattr(cv2, f"COLOR_{a}2{b}")
    for space in ("HSV", "HLS")
    for other in ("BGR", "RGB")
    for a, b in ((space, other), (other, space))
)
_TO_HUE = frozenset(getattr(cv2, f"COLOR_{o}2{s}") for o in ("BGR", "RGB") for s in ("HSV", "HLS"))


def _convert(img: Image, code: int, what: str) -> Image:
    if img.size == 0:  # OpenCV refuses; a one-pixel image tells the shape of the result
        pixel = np.zeros((1, 1, *img.shape[2:]), img.dtype)
        return np.zeros((*img.shape[:2], *_convert(pixel, code, what).shape[2:]), img.dtype)
    if img.dtype == np.uint16 and code in _WITH_HUE:
        return _convert_hue_uint16(img, code)
    try:
        return cv2.cvtColor(for_cv2(img), code)
    except cv2.error as error:
        raise ValueError(
            f"cannot convert {what}: img has shape {img.shape} and dtype {img.dtype} ({error.err or error})"
        ) from error


def _convert_hue_uint16(img: Image, code: int) -> Image:
    """What OpenCV documents for 16 bits but does not have: hue in whole degrees, the others in [0, 65535]."""
    scale = np.full(3, 65535, np.float32)
    with_hue = np.array([1, 65535, 65535], np.float32)
    before, after = (scale, with_hue) if code in _TO_HUE else (with_hue, scale)
    converted = cv2.cvtColor(img[..., :3].astype(np.float32) / before, code)
    rounded: npt.NDArray[Any] = np.rint(converted * after)
    return rounded.astype(np.uint16)


def _linear(img: Image, matrix: npt.NDArray[Any], offset: npt.NDArray[Any]) -> Image:
    """matrix @ pixel + offset, in values of [0, 255]; rounded and saturated for uint8.

    In blocks of rows: a float32 copy of the whole image would cost more time than the arithmetic.
    """
    is_float = img.dtype == np.float32
    full = np.column_stack([matrix, offset / 255 if is_float else offset]).astype(np.float32)
    shape = img.shape[:2] if len(matrix) == 1 else (*img.shape[:2], len(matrix))
    out = np.empty(shape, img.dtype)
    if img.size == 0:
        return out
    if is_float:
        return cv2.transform(for_cv2(img), full, dst=out)
    for rows in row_blocks(img, 4):
        values = cv2.transform(img[rows].astype(np.float32), full)
        cv2.threshold(values, 0, 0, cv2.THRESH_TOZERO, dst=values)  # the next call takes the absolute value
        cv2.convertScaleAbs(values, dst=out[rows])
    return out


def _check_color(img: object) -> Image:
    img = check_image(img)
    if img.ndim != 3 or img.shape[2] not in (3, 4):
        raise ValueError(f"img must have shape (H, W, 3), got {img.shape}")
    return img


def _check_grey(img: object) -> Image:
    img = check_image(img)
    if img.ndim == 3 and img.shape[2] != 1:
        raise ValueError(f"img must have shape (H, W) or (H, W, 1), got {img.shape}")
    return img


def _check_ycbcr(img: object) -> Image:
    img = check_image(img)
    if img.dtype not in (np.uint8, np.float32):
        raise TypeError(f"img must be uint8 or float32, got {img.dtype}")
    if img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"img must have shape (H, W, 3), got {img.shape}")
    return img
