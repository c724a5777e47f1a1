"""Decoding JPEG with libjpeg-turbo through PyTurboJPEG (``pip install cv-image[turbojpeg]``)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from cv.image.codecs import ChannelOrder, Flag
from cv.image.codecs.header import check_size, image_kind, jpeg_is_complete
from cv.image.errors import ImageDecodeError


def require() -> None:
    """Raise `ImportError` if PyTurboJPEG or the libjpeg-turbo library is missing."""
    _decoder()


def decode(data: bytes, flag: Flag, channel_order: ChannelOrder, max_pixels: int) -> npt.NDArray[np.generic]:
    """Decode JPEG data to (H, W, 3) or, for "grayscale", (H, W); EXIF orientation is ignored.

    Raises:
        ValueError: If `flag` is neither "color" nor "grayscale".
    """
    if flag not in ("color", "grayscale"):
        raise ValueError(f'flag must be "color" or "grayscale" with backend turbojpeg, got {flag!r}')
    if image_kind(data) != "JPEG":
        raise ImageDecodeError("not a JPEG image, and backend turbojpeg reads nothing else")
    check_size(data, max_pixels)
    if not jpeg_is_complete(data):  # the library would fill the missing part with grey
        raise ImageDecodeError("truncated JPEG data: the end marker is missing")
    import turbojpeg

    if flag == "grayscale":
        pixel_format = turbojpeg.TJPF_GRAY
    else:
        pixel_format = turbojpeg.TJPF_BGR if channel_order == "bgr" else turbojpeg.TJPF_RGB
    try:
        img: npt.NDArray[np.uint8] = _decoder().decode(data, pixel_format)
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageDecodeError(f"libjpeg-turbo cannot decode it: {error}") from error
    if img.size == 0:
        raise ImageDecodeError("corrupt JPEG data: it contains no image")
    return img[..., 0] if flag == "grayscale" else img


@functools.cache
def _decoder() -> Any:
    try:
        import turbojpeg
    except ImportError as error:
        raise ImportError("backend turbojpeg needs PyTurboJPEG: pip install cv-image[turbojpeg]") from error
    try:
        return turbojpeg.TurboJPEG()
    except RuntimeError as error:  # the Python package is there, a fitting shared library is not
        raise ImportError(f"backend turbojpeg needs the libjpeg-turbo library: {error}") from error
