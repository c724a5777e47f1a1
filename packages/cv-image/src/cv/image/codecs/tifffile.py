"""Decoding TIFF with tifffile (``pip install cv-image[tifffile]``): any number of channels, any depth."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt

from cv.image.codecs import ChannelOrder, Flag
from cv.image.codecs.header import image_kind, tiff_has_loop
from cv.image.errors import ImageDecodeError, ImageTooLargeError


def require() -> None:
    """Raise `ImportError` if tifffile is missing."""
    try:
        import tifffile  # noqa: F401
    except ImportError as error:
        raise ImportError("backend tifffile needs tifffile: pip install cv-image[tifffile]") from error


def decode(data: bytes, flag: Flag, channel_order: ChannelOrder, max_pixels: int) -> npt.NDArray[np.generic]:
    """Decode the first series of a TIFF; the stored depth is kept and orientation is ignored.

    An image of one, three or four samples follows `flag` ("color": (H, W, 3), "grayscale": (H, W)); its
    colours are put into `channel_order`. Everything else (more samples, stacks of pages) comes as it is
    stored.
    """
    require()
    import tifffile

    if image_kind(data) != "TIFF":
        raise ImageDecodeError("not a TIFF image, and backend tifffile reads nothing else")
    if tiff_has_loop(data):
        raise ImageDecodeError("corrupt TIFF data: its directories form a loop")
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            series = tif.series[0]
            _check_samples(series.shape, max_pixels)
            page = series.keyframe
            is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
            array = np.asarray(series.asarray())
            axes = series.axes
    except ImageDecodeError:
        raise
    except Exception as error:  # a broken directory can raise nearly anything
        raise ImageDecodeError(f"tifffile cannot decode it: {str(error) or type(error).__name__}") from error
    if array.size == 0:
        raise ImageDecodeError("the TIFF file holds no pixels")
    if axes == "SYX":  # samples stored plane by plane
        array = np.moveaxis(array, 0, -1)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(_by_flag(array, axes, is_rgb, flag, channel_order))


def _check_samples(shape: tuple[int, ...], max_pixels: int) -> None:
    samples = math.prod(shape)
    if samples > 4 * max_pixels:  # four samples a pixel
        raise ImageTooLargeError(
            f"{samples} samples are more than {max_pixels} pixels of 4; if the file is to be trusted, "
            "pass a larger max_pixels or set the environment variable CV_IMAGE_MAX_PIXELS"
        )


def _by_flag(
    array: npt.NDArray[np.generic], axes: str, is_rgb: bool, flag: Flag, channel_order: ChannelOrder
) -> npt.NDArray[np.generic]:
    grey = flag.startswith("grayscale")
    if axes == "YX":
        return np.repeat(array[..., None], 3, axis=2) if flag.startswith("color") else array
    if not is_rgb or axes not in ("YXS", "SYX") or array.shape[-1] not in (3, 4):
        return array
    if grey:
        weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
        luma = array[..., :3] @ weights
        rounded: npt.NDArray[np.generic] = np.rint(luma) if array.dtype.kind in "iu" else luma
        return rounded.astype(array.dtype)
    channels = array.shape[-1] if flag == "unchanged" else 3
    order = [2, 1, 0, 3] if channel_order == "bgr" else [0, 1, 2, 3]
    return array[..., order[:channels]]
