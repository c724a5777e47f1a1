"""Decoding with Pillow."""

from __future__ import annotations

import io
import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cv.image.codecs import ChannelOrder, Flag
from cv.image.codecs.header import check_pixels, check_size, image_size, tiff_orientation
from cv.image.codecs.orientation import undo_upright, upright
from cv.image.errors import ImageDecodeError, ImageTooLargeError

_ORIENTATION_TAG = 0x0112
_pillow_limit = threading.Lock()


def require() -> None:
    """Pillow is a dependency: always there."""


def decode(data: bytes, flag: Flag, channel_order: ChannelOrder, max_pixels: int) -> npt.NDArray[np.generic]:
    """Decode to (H, W, 3) uint8, (H, W) uint8, or with "unchanged" to what the file holds.

    "unchanged" keeps Pillow's own view of the file: palette indices for mode P, booleans for mode 1, two
    channels for LA, uint16 for 16-bit grey, four channels for CMYK; only RGB and RGBA are put into
    `channel_order`.
    """
    check_size(data, max_pixels)
    try:
        with _open(data) as img:
            if img.format == "EPS":  # decoding it would run a PostScript interpreter
                raise ImageDecodeError("EPS is a program, not an image")
            check_pixels(img.width, img.height, max_pixels)
            img.load()
            array = _to_array(img, flag, channel_order)
            # Newer Pillow turns a TIFF image while loading it, whatever is asked for, and removes the tag.
            still_to_turn = _orientation(img)
            if flag in ("color", "grayscale"):
                return upright(array, still_to_turn)
            return undo_upright(array, tiff_orientation(data)) if still_to_turn == 1 else array
    except ImageDecodeError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(_text(error)) from error
    except Exception as error:  # Pillow's plugins raise many kinds of exceptions for broken files
        raise ImageDecodeError(f"Pillow cannot decode it: {_text(error)}") from error


def _open(data: bytes) -> Image.Image:
    """Open an image of a size that was checked.

    Pillow has a limit of its own, one number for the process. Where `max_pixels` allows more than that
    number, it is lifted for the moment that reading the header takes.
    """
    size = image_size(data)
    limit = Image.MAX_IMAGE_PIXELS
    if size is None or limit is None or size[0] * size[1] <= limit:
        return Image.open(io.BytesIO(data))
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _to_array(img: Image.Image, flag: Flag, channel_order: ChannelOrder) -> npt.NDArray[np.generic]:
    if flag == "unchanged":
        array = np.array(img)
        if img.mode == "I" and img.format in ("PNG", "PPM"):  # how older Pillow holds 16-bit grey
            return array.astype(np.uint16)
        return _reorder(array, channel_order) if img.mode in ("RGB", "RGBA") else array
    grey = flag.startswith("grayscale")
    if img.mode.startswith("I"):  # 16 bits: keep the high byte, as OpenCV does; Pillow would clip at 255
        high = (np.clip(np.asarray(img), 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
        return high if grey else np.repeat(high[..., None], 3, axis=2)
    if grey:
        return np.array(img if img.mode == "L" else img.convert("L"))
    return _reorder(np.array(img if img.mode == "RGB" else img.convert("RGB")), channel_order)


def _reorder(array: npt.NDArray[Any], channel_order: ChannelOrder) -> npt.NDArray[Any]:
    """RGB(A) to BGR(A) where asked for."""
    if channel_order == "rgb" or array.size == 0:
        return array
    swapped: npt.NDArray[Any] = cv2.cvtColor(
        array, cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    )
    return swapped


def _orientation(img: Image.Image) -> int:
    try:
        return int(img.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block does not make the pixels unreadable
        return 1


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
