"""The eight orientations of Exif 2.32 (tag 0x0112, the same as TIFF 6.0 tag 274)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

_EXIF_TAG = 0x0112


def exif_orientation(data: bytes) -> int:
    """The orientation in a file's EXIF block as Pillow reads it; 1 if there is none or it is damaged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as img:
            return int(img.getexif().get(_EXIF_TAG, 1))
    except Exception:  # a damaged EXIF block does not make the pixels unreadable
        return 1


def upright(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn the stored pixels (H, W) or (H, W, C) upright."""
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        stored = stored.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return np.ascontiguousarray(stored)


def undo_upright(turned: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `upright`, for libraries that turn TIFF images whether asked to or not."""
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (5, 6, 7, 8):
        turned = turned.swapaxes(0, 1)
    return np.ascontiguousarray(turned)
