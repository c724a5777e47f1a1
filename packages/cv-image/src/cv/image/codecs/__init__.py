"""Decoders, one module per library, and the `.flo` format.

Each backend module has ``decode(data, flag, channel_order, max_pixels)`` and raises `ImageDecodeError` with
the reason alone; `cv.image.io` adds the file's name. A backend's library is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

Backend = Literal["cv2", "turbojpeg", "pillow", "tifffile"]
Flag = Literal["color", "grayscale", "unchanged", "color_ignore_orientation", "grayscale_ignore_orientation"]
ChannelOrder = Literal["bgr", "rgb"]

_MODULES: dict[str, str] = {
    "cv2": "cv.image.codecs.opencv",
    "turbojpeg": "cv.image.codecs.turbojpeg",
    "pillow": "cv.image.codecs.pillow",
    "tifffile": "cv.image.codecs.tifffile",
}


class Codec(Protocol):
    """What a backend module offers."""

    def require(self) -> None:
        """Raise `ImportError`, naming what to install, if the library is missing."""

    def decode(
        self, data: bytes, flag: Flag, channel_order: ChannelOrder, max_pixels: int
    ) -> npt.NDArray[np.generic]:
        """Decode a whole file held in memory."""


def codec(backend: Backend) -> Codec:
    """The module that decodes with `backend`."""
    return cast(Codec, importlib.import_module(_MODULES[backend]))
