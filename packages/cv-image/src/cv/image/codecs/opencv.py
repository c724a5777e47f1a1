"""Decoding with OpenCV: JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF, PNM and what else the build has."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cv.image.codecs import ChannelOrder, Flag
from cv.image.codecs.header import check_size, image_kind, jpeg_is_complete, png_chunks_fit, tiff_orientation
from cv.image.codecs.orientation import exif_orientation, undo_upright, upright
from cv.image.errors import ImageDecodeError

_FLAGS: dict[Flag, int] = {
    "color": cv2.IMREAD_COLOR,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "unchanged": cv2.IMREAD_UNCHANGED,
    "color_ignore_orientation": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    "grayscale_ignore_orientation": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
# Since OpenCV 4.11 the decoder itself can put out RGB, which saves a pass.
_COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)


def require() -> None:
    """OpenCV is a dependency: always there."""


def decode(data: bytes, flag: Flag, channel_order: ChannelOrder, max_pixels: int) -> npt.NDArray[np.generic]:
    """Decode to (H, W, 3) uint8, (H, W) uint8, or with "unchanged" to the stored channels and depth."""
    check_size(data, max_pixels)
    kind = image_kind(data)
    if kind == "JPEG" and not jpeg_is_complete(data):
        # OpenCV 4 fills the missing part with grey and says nothing.
        raise ImageDecodeError("truncated JPEG data: the end marker is missing")
    if kind == "PNG" and not png_chunks_fit(data):
        # OpenCV would allocate up to 2 GiB for a chunk that is not there.
        raise ImageDecodeError("truncated PNG data: a chunk is longer than the file")
    code = _FLAGS[flag]
    rgb = channel_order == "rgb" and not flag.startswith("grayscale")
    by_decoder = rgb and flag != "unchanged" and _COLOR_RGB is not None
    if by_decoder and _COLOR_RGB is not None:
        code = (code & ~cv2.IMREAD_COLOR) | _COLOR_RGB
    turn_here = flag in ("color", "grayscale") and _turns_wrongly(kind)
    if turn_here:
        code |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        img = cv2.imdecode(np.frombuffer(data, np.uint8), code)
    except cv2.error as error:
        raise ImageDecodeError(f"OpenCV cannot decode it: {error.err or error}") from error
    if img is None:
        reason = f"truncated or corrupt {kind} data" if kind else "not an image in a format that OpenCV reads"
        raise ImageDecodeError(reason)
    if rgb and not by_decoder and img.ndim == 3 and img.shape[2] in (3, 4):
        cv2.cvtColor(img, cv2.COLOR_BGR2RGB if img.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=img)
    if turn_here:
        return upright(img, exif_orientation(data))
    if kind == "TIFF" and flag not in (
        "color",
        "grayscale",
    ):  # OpenCV turns TIFF images whatever the flag says
        return undo_upright(img, tiff_orientation(data))
    return img


def _turns_wrongly(kind: str | None) -> bool:
    """Whether OpenCV gets the orientation of such a file wrong, and Pillow knows it."""
    if kind == "WebP":  # OpenCV 4 does not look at its EXIF block
        return int(cv2.__version__.partition(".")[0]) < 5
    if kind == "AVIF":  # what counts is in properties of the image (irot, imir); OpenCV looks at EXIF
        from PIL import features

        return "avif" in features.modules and bool(features.check("avif"))  # since Pillow 11.3
    return False
