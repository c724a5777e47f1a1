"""Changing the values of images: brightness, contrast, colour, sharpness, histograms.

Values of uint8 images are in [0, 255], of uint16 in [0, 65535], of float32 and float64 in [0, 255]. Where
Pillow has the same function (ImageOps, ImageEnhance), results for uint8 are Pillow's.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import (
    Image,
    by_four_channels,
    channels,
    copied,
    describe,
    for_cv2,
    is_natural,
    row_blocks,
)
from cv.image._pointwise import as_plane, check_pointwise, map_values, value_range
from cv.image.normalize import scale_channels

# The filter of Pillow's ImageEnhance.Sharpness.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float64) / 13


def iminvert(img: Image) -> Image:
    """Invert (negate) an image: the largest value less each value.

    Args:
        img: (H, W) or (H, W, C).

    Returns:
        The inverted image, of the same dtype.
    """
    img = check_pointwise(img)
    if img.dtype.kind == "u":
        return np.bitwise_not(img)
    inverted: Image = img.dtype.type(255) - img
    return inverted


def posterize(img: Image, bits: int) -> Image:
    """Keep the highest bits of each value, as Pillow's ``ImageOps.posterize``.

    Args:
        img: (H, W) or (H, W, C).
        bits: How many of the 8 bits (16 for uint16) to keep: 1 to 8. 0 makes the image black.

    Returns:
        The posterized image, of the same dtype.

    Raises:
        ValueError: If `bits` is not an integer in [0, 8].
    """
    img = check_pointwise(img)
    if not is_natural(bits) or bits > 8:
        raise ValueError(f"bits must be an integer from 0 to 8, got {bits!r}")
    if img.dtype.kind == "u":
        return np.bitwise_and(img, _mask(int(bits), img.itemsize))
    step = 2 ** (8 - int(bits))
    return map_values(img, lambda values: np.floor(values / step) * step)


def solarize(img: Image, thr: float = 128) -> Image:
    """Invert the values at or above a threshold, as Pillow's ``ImageOps.solarize``.

    Args:
        img: (H, W) or (H, W, C).
        thr: The threshold, in the units of the image.

    Returns:
        The solarized image, of the same dtype.
    """
    img = check_pointwise(img)
    top = value_range(img)
    if img.dtype != np.uint8 or img.size == 0:
        return map_values(img, lambda values: np.where(values < thr, values, top - values))
    values = as_plane(img)
    out = np.empty(values.shape, np.uint8)
    for rows in row_blocks(values, 1):
        # 255 at or above the threshold, then exclusive or: 255 ^ value is 255 - value
        cv2.threshold(values[rows], np.ceil(thr) - 1, 255, cv2.THRESH_BINARY, dst=out[rows])
        cv2.bitwise_xor(values[rows], out[rows], dst=out[rows])
    return out.reshape(img.shape)


def adjust_brightness(img: Image, factor: float = 1.0) -> Image:
    """Blend an image with black: ``img * factor``, as Pillow's ``ImageEnhance.Brightness``.

    Args:
        img: (H, W) or (H, W, C).
        factor: 0 gives black, 1 the original, more brightens.

    Returns:
        The brightened image, of the same dtype, clipped to its range; integers are cut off.
    """
    return _blend_with_value(check_pointwise(img), 0, factor)


def adjust_contrast(img: Image, factor: float = 1.0) -> Image:
    """Blend an image with its mean grey: ``img * factor + mean * (1 - factor)``, as
    ``ImageEnhance.Contrast``.

    Args:
        img: (H, W), (H, W, 1) or (H, W, 3) BGR. The mean of other numbers of channels is taken over all of
            them.
        factor: 0 gives plain grey, 1 the original, more increases contrast.

    Returns:
        The image of the same dtype, clipped to its range; integers are cut off.
    """
    img = check_pointwise(img)
    if img.size == 0:
        return copied(img)
    return _blend_with_value(img, int(_mean_grey(img) + 0.5), factor)


def adjust_color(img: Image, alpha: float = 1, beta: float | None = None, gamma: float = 0) -> Image:
    """Blend an image with its grey version: ``img * alpha + grey * beta + gamma``, rounded and clipped.

    Args:
        img: (H, W, 3) BGR. A grey image (H, W) or (H, W, 1) is its own grey version.
        alpha: Weight of the image.
        beta: Weight of its grey version; None is 1 - alpha.
        gamma: Added to each sum.

    Returns:
        The image of the same dtype.

    Raises:
        ValueError: If the image has neither one nor three channels.
    """
    img = check_pointwise(img)
    if channels(img) not in (1, 3):
        raise ValueError(f"img must have shape (H, W), (H, W, 1) or (H, W, 3), got {img.shape}")
    beta = 1 - alpha if beta is None else beta
    out = np.empty(img.shape, img.dtype)
    if img.size == 0:
        return out
    grey: Image | None = None  # these two are the same memory for each block
    greys: Image | None = None
    for rows in row_blocks(img, img.itemsize):
        part = for_cv2(img[rows])
        if channels(img) == 1:
            greys = part
        elif img.dtype == np.float64:
            greys = np.repeat((part @ np.array([0.114, 0.587, 0.299]))[..., None], 3, axis=2)
        else:
            grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY, dst=grey)
            greys = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR, dst=greys)
        cv2.addWeighted(part, alpha, greys, beta, gamma, dst=out[rows])
    if img.dtype.kind == "f":
        np.clip(out, 0, 255, out=out)
    return out


def adjust_sharpness(img: Image, factor: float = 1.0, kernel: npt.NDArray[Any] | None = None) -> Image:
    """Blend an image with a smoothed version: ``img * factor + smooth * (1 - factor)``.

    With the default kernel this is Pillow's ``ImageEnhance.Sharpness``, except that the outermost pixels are
    smoothed too (the image is reflected at its edges).

    Args:
        img: (H, W) or (H, W, C).
        factor: 0 gives the smoothed image, 1 the original, 2 a sharpened one.
        kernel: The (h, w) filter that smooths; None is Pillow's 3 x 3.

    Returns:
        The image of the same dtype, clipped to its range; integers are cut off.

    Raises:
        AssertionError: If `kernel` is not a two-dimensional array.
    """
    weights = _SMOOTH if kernel is None else _check_kernel(kernel)
    img = check_pointwise(img)
    if img.size == 0:
        return copied(img)
    is_uint8 = img.dtype == np.uint8
    # OpenCV rounds the sum, and it has to be cut off: half less something above the last bit of a float32.
    shift = _cutting_shift(factor) if is_uint8 else -0.48 if img.dtype == np.uint16 else 0.0

    def blend(part: Image, _: slice) -> Image:
        smooth = cv2.filter2D(part, -1, weights)
        if shift is None:
            return _blend_exactly(part, smooth, factor)
        return cv2.addWeighted(part, factor, smooth, 1 - factor, shift, dst=smooth)

    out: Image = by_four_channels(img, blend)
    if img.dtype.kind == "f":
        np.clip(out, 0, 255, out=out)
    return out


def adjust_lighting(
    img: Image,
    eigval: npt.NDArray[Any],
    eigvec: npt.NDArray[Any],
    alphastd: float = 0.1,
    to_rgb: bool = True,
) -> npt.NDArray[np.float32]:
    """Add a random multiple of the principal components of colour (Krizhevsky et al., NeurIPS 2012, section
    4.1).

    The multiples are drawn from `numpy.random.normal(0, alphastd)`, one for each eigenvalue.

    Args:
        img: (H, W, 3) BGR.
        eigval: (3,) eigenvalues of the covariance of pixel values, in the order of the columns of `eigvec`.
        eigvec: (3, 3) eigenvectors in columns, in the channel order of the result.
        alphastd: Standard deviation of the multiples.
        to_rgb: Exchange blue and red before adding.

    Returns:
        (H, W, 3) float32 (float64 for a float64 image), not clipped.

    Raises:
        AssertionError: If an argument has the wrong type or shape.
    """
    _check_lighting(img, eigval, eigvec, alphastd, to_rgb)
    alpha = np.random.normal(0, alphastd, eigval.shape)  # noqa: NPY002 - callers seed the global generator
    shift = eigvec @ (alpha * eigval)
    return scale_channels(img, np.ones(eigval.size), shift, swap=to_rgb)


def adjust_hue(img: Image, hue_factor: float, backend: str | None = None) -> Image:
    """Turn the hue of an image.

    Args:
        img: (H, W, 3) BGR, uint8. A grey image (H, W) or (H, W, 1) has no hue and is copied.
        hue_factor: Part of the full circle to turn by, -0.5 to 0.5; red goes to yellow and green for positive
            ones.
        backend: "cv2" or None, or "pillow", which computes HSV its own way.

    Returns:
        The image, uint8.

    Raises:
        TypeError: If `img` is not a uint8 image of one or three channels.
        ValueError: If `hue_factor` is out of range or the backend unknown.
    """
    _check_hue(img)
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor must be in [-0.5, 0.5], got {hue_factor}")
    if backend not in (None, "cv2", "pillow"):
        raise ValueError(f'backend must be "cv2", "pillow" or None, got {backend!r}')
    if channels(img) == 1 or img.size == 0:
        return copied(img)
    steps = round(hue_factor * 255) % 256  # of 256: the circle closes by itself
    if backend == "pillow":
        from PIL import Image as PillowImage

        hsv = np.array(PillowImage.fromarray(np.ascontiguousarray(img[..., ::-1])).convert("HSV"))
        hsv[..., 0] += np.uint8(steps)
        return np.ascontiguousarray(np.asarray(PillowImage.fromarray(hsv, "HSV").convert("RGB"))[..., ::-1])
    out = np.empty(img.shape, np.uint8)
    turn = np.zeros(img.shape[1:], np.uint8)
    turn[:, 0] = steps
    for rows in row_blocks(img, 1):
        hsv = cv2.cvtColor(for_cv2(img[rows]), cv2.COLOR_BGR2HSV_FULL)
        hsv += turn  # a whole row of pixels: adding to every third value would take longer
        cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL, dst=out[rows])
    return out


def _cutting_shift(factor: float) -> float | None:
    """What makes OpenCV's rounded sum of two uint8 images, `factor` and 1 - `factor` of them, cut off.

    The sum is a whole number and `factor` times a difference: its fraction is one of 511. None if one of them
    is too close below 1 for OpenCV's float32 sums.
    """
    fraction = np.arange(-255, 256) * float(factor) % 1
    room = float(1 - fraction.max()) / 2
    error = (abs(factor) + abs(1 - factor) + 1) * 256 * 2**-23
    return room - 0.5 if room > error else None


def _blend_exactly(img: Image, smooth: Image, factor: float) -> Image:
    """``smooth + factor * (img - smooth)`` in float32, cut off, as Pillow computes it."""
    for rows in row_blocks(img, 4):
        base = smooth[rows].astype(np.float32)
        blended = img[rows] - base
        blended *= np.float32(factor)
        blended += base
        smooth[rows] = np.clip(blended, 0, 255, out=blended)
    return smooth


def _mask(bits: int, itemsize: int) -> int:
    """The highest bits of a byte or of two."""
    return (0xFF << 8 - bits & 0xFF) << (itemsize * 8 - 8)


def _blend_with_value(img: Image, value: int, factor: float) -> Image:
    """value + factor * (img - value); in Pillow's precision for uint8, so that it is cut off alike."""
    real = np.float32 if img.dtype in (np.uint8, np.float32) else np.float64

    def blend(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        blended: npt.NDArray[Any] = real(value) + real(factor) * (values.astype(real) - real(value))
        return blended

    return map_values(img, blend, line=(factor, value * (1 - factor)))


def _mean_grey(img: Image) -> float:
    if channels(img) != 3 or img.dtype == np.float64:
        if img.ndim == 3 and img.shape[2] == 3:
            return float(img.mean(axis=(0, 1)) @ np.array([0.114, 0.587, 0.299]))
        return float(img.mean(dtype=np.float64))
    total = 0.0
    for rows in row_blocks(img, img.itemsize):
        total += float(cv2.sumElems(cv2.cvtColor(for_cv2(img[rows]), cv2.COLOR_BGR2GRAY))[0])
    return float(total / (len(img) * img.shape[1]))


def _check_lighting(img: object, eigval: object, eigvec: object, alphastd: object, to_rgb: bool) -> None:
    if not isinstance(eigval, np.ndarray) or not isinstance(eigvec, np.ndarray):
        raise AssertionError("eigval and eigvec must be ndarrays")
    if eigval.ndim != 1 or eigvec.shape != (eigval.size, eigval.size):
        raise AssertionError(f"eigval must be (n,) and eigvec (n, n), got {eigval.shape} and {eigvec.shape}")
    if isinstance(alphastd, bool) or not isinstance(alphastd, (int, float)) or not alphastd >= 0:
        raise AssertionError(f"alphastd must be a non-negative number, got {alphastd!r}")
    if not isinstance(img, np.ndarray) or img.ndim != 3 or img.shape[2] != eigval.size:
        raise AssertionError(f"img must have shape (H, W, {eigval.size}), got {describe(img)}")
    if to_rgb and eigval.size != 3:
        raise AssertionError(f"img must have shape (H, W, 3) for to_rgb, got {img.shape}")


def _check_hue(img: object) -> None:
    if not isinstance(img, np.ndarray) or img.dtype != np.uint8 or img.ndim not in (2, 3):
        raise TypeError(f"img must be a uint8 ndarray of shape (H, W) or (H, W, C), got {describe(img)}")
    if (1 if img.ndim == 2 else img.shape[2]) not in (1, 3):
        raise TypeError(f"img must have one or three channels, got shape {img.shape}")


def _check_kernel(kernel: object) -> npt.NDArray[Any]:
    if not isinstance(kernel, np.ndarray) or kernel.ndim != 2:
        raise AssertionError(f"kernel must be a two-dimensional ndarray, got {describe(kernel)}")
    return kernel
