"""Changing the size of images. Sizes are (w, h), as in OpenCV; pixel centres lie at half-integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import cv2
import numpy as np

from cv.image._arrays import Image, by_four_channels, check_image, check_not_empty, describe, is_natural
from cv.image.io import current_backend

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Size = tuple[int, int]

_CV2_INTERPOLATION: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
_PILLOW_INTERPOLATION = {
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "box": "BOX",
    "lanczos": "LANCZOS",
    "hamming": "HAMMING",
}


@overload
def imresize(
    img: Image,
    size: Sequence[int],
    return_scale: Literal[False] = False,
    interpolation: str = "bilinear",
    out: Image | None = None,
    backend: str | None = None,
) -> Image: ...
@overload
def imresize(
    img: Image,
    size: Sequence[int],
    return_scale: Literal[True],
    interpolation: str = "bilinear",
    out: Image | None = None,
    backend: str | None = None,
) -> tuple[Image, float, float]: ...
def imresize(
    img: Image,
    size: Sequence[int],
    return_scale: bool = False,
    interpolation: str = "bilinear",
    out: Image | None = None,
    backend: str | None = None,
) -> Image | tuple[Image, float, float]:
    """Resize an image to a given size.

    Args:
        img: (H, W) or (H, W, C), any number of channels.
        size: Target size (w, h).
        return_scale: Return w_scale and h_scale as well.
        interpolation: "nearest", "bilinear", "bicubic", "area", "lanczos" with cv2; "nearest", "bilinear",
            "bicubic", "box", "lanczos", "hamming" with pillow (which smooths before it shrinks).
        out: Where to put the result: an array of its shape and dtype.
        backend: "cv2" or "pillow" (uint8 only); None takes pillow if `use_backend` selected it, otherwise
            cv2.

    Returns:
        The resized image, of the same dtype and number of dimensions; or (image, w_scale, h_scale).

    Raises:
        ValueError: If the image is empty, a side is not positive, or interpolation or backend is unknown.
        TypeError: If the backend cannot resize the dtype.
    """
    img = check_image(img)
    check_not_empty(img)
    width, height = _check_size(size)
    if backend is None:
        backend = "pillow" if current_backend() == "pillow" else "cv2"
    if backend == "cv2":
        resized = _resize_cv2(img, (width, height), interpolation)
    elif backend == "pillow":
        resized = _resize_pillow(img, (width, height), interpolation)
    else:
        raise ValueError(f'backend must be "cv2", "pillow" or None, got {backend!r}')
    if out is not None:
        if out.shape != resized.shape or out.dtype != resized.dtype:
            raise ValueError(
                f"out must have shape {resized.shape} and dtype {resized.dtype}, got {describe(out)}"
            )
        out[...] = resized
        resized = out
    if return_scale:
        return resized, width / img.shape[1], height / img.shape[0]
    return resized


def imresize_like(
    img: Image,
    dst_img: Image,
    return_scale: bool = False,
    interpolation: str = "bilinear",
    backend: str | None = None,
) -> Image | tuple[Image, float, float]:
    """Resize an image to the size of another one.

    Args:
        img: (H, W) or (H, W, C).
        dst_img: The image whose height and width are wanted.
        return_scale: Return w_scale and h_scale as well.
        interpolation: Same as `imresize`.
        backend: Same as `imresize`.

    Returns:
        The resized image, or (image, w_scale, h_scale).
    """
    height, width = check_image(dst_img, "dst_img").shape[:2]
    if return_scale:
        return imresize(img, (width, height), True, interpolation, backend=backend)
    return imresize(img, (width, height), False, interpolation, backend=backend)


def imresize_to_multiple(
    img: Image,
    divisor: int | tuple[int, int],
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    keep_ratio: bool = False,
    return_scale: bool = False,
    interpolation: str = "bilinear",
    out: Image | None = None,
    backend: str | None = None,
) -> Image | tuple[Image, float, float]:
    """Resize an image to a size, or by a factor, rounded up so that a divisor divides it.

    Args:
        img: (H, W) or (H, W, C).
        divisor: The divisor of both sides, or (w_divisor, h_divisor).
        size: Target size (w, h), or one number for both; before rounding up.
        scale_factor: Factor, or (w_scale_factor, h_scale_factor). Give either `size` or this.
        keep_ratio: Make the image as large as fits into the target size with its aspect ratio kept.
        return_scale: Return w_scale and h_scale as well.
        interpolation: Same as `imresize`.
        out: Same as `imresize`.
        backend: Same as `imresize`.

    Returns:
        The resized image, or (image, w_scale, h_scale).

    Raises:
        ValueError: If both or neither of `size` and `scale_factor` are given, or a divisor is not positive.
    """
    height, width = check_image(img).shape[:2]
    if size is not None and scale_factor is not None:
        raise ValueError(f"only one of size and scale_factor may be given, got {size!r} and {scale_factor!r}")
    if size is not None:
        target = _pair(size)
    elif scale_factor is not None:
        factors = _pair(scale_factor)
        target = (int(width * factors[0] + 0.5), int(height * factors[1] + 0.5))
    else:
        raise ValueError("one of size and scale_factor must be given, got neither")
    if keep_ratio:
        target = rescale_size((width, height), target)
    divisors = _pair(divisor)
    if min(divisors) <= 0:
        raise ValueError(f"divisor must be positive, got {divisor!r}")
    target = tuple(-(-side // by) * by for side, by in zip(target, divisors, strict=True))
    if return_scale:
        return imresize(img, target, True, interpolation, out, backend)
    return imresize(img, target, False, interpolation, out, backend)


def imrescale(
    img: Image,
    scale: float | tuple[int, int],
    return_scale: bool = False,
    interpolation: str = "bilinear",
    backend: str | None = None,
) -> Image | tuple[Image, float]:
    """Resize an image and keep its aspect ratio.

    Args:
        img: (H, W) or (H, W, C).
        scale: A factor, or the maximum (long side, short side) in either order: the result is as large as
            fits.
        return_scale: Return the factor as well.
        interpolation: Same as `imresize`.
        backend: Same as `imresize`.

    Returns:
        The resized image, or (image, factor).

    Raises:
        ValueError: If `scale` is not positive.
        TypeError: If it is neither a number nor a tuple.
    """
    img = check_image(img)
    check_not_empty(img)
    height, width = img.shape[:2]
    size, factor = rescale_size((width, height), scale, return_scale=True)
    resized = imresize(img, size, interpolation=interpolation, backend=backend)
    return (resized, factor) if return_scale else resized


@overload
def rescale_size(
    old_size: tuple[int, int], scale: float | tuple[int, int], return_scale: Literal[False] = False
) -> Size: ...
@overload
def rescale_size(
    old_size: tuple[int, int], scale: float | tuple[int, int], return_scale: Literal[True]
) -> tuple[Size, float]: ...
def rescale_size(
    old_size: tuple[int, int], scale: float | tuple[int, int], return_scale: bool = False
) -> Size | tuple[Size, float]:
    """The size of an image after rescaling with its aspect ratio kept.

    Args:
        old_size: (w, h) before.
        scale: A factor, or the maximum (long side, short side) in either order: as large as fits.
        return_scale: Return the factor as well.

    Returns:
        The new (w, h), rounded half up and at least 1; or ((w, h), factor).

    Raises:
        ValueError: If `scale` is not positive.
        TypeError: If it is neither a number nor a tuple.
    """
    width, height = old_size
    if isinstance(scale, (int, float, np.number)):
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        factor = float(scale)
    elif isinstance(scale, tuple):
        if not all(side > 0 for side in scale) or len(scale) != 2:
            raise ValueError(f"scale must be two positive numbers, got {scale}")
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    else:
        raise TypeError(f"scale must be a number or a tuple of two, got {type(scale).__name__}")
    size = (max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5)))
    return (size, factor) if return_scale else size


def cv2_interpolation(name: str) -> int:
    """OpenCV's constant for an interpolation mode."""
    if name not in _CV2_INTERPOLATION:
        raise ValueError(f"interpolation must be one of {list(_CV2_INTERPOLATION)} with cv2, got {name!r}")
    return _CV2_INTERPOLATION[name]


def _resize_cv2(img: Image, size: Size, interpolation: str) -> Image:
    mode = cv2_interpolation(interpolation)
    values = img.view(np.uint8) if img.dtype == np.bool_ and mode == cv2.INTER_NEAREST else img
    try:
        resized = by_four_channels(values, lambda part, _: cv2.resize(part, size, interpolation=mode))
    except cv2.error as error:
        raise TypeError(
            f"img of dtype {img.dtype} cannot be resized with {interpolation!r} ({error.err or error})"
        ) from error
    return resized.view(np.bool_) if img.dtype == np.bool_ else resized


def _resize_pillow(img: Image, size: Size, interpolation: str) -> Image:
    from PIL import Image as PillowImage

    if interpolation not in _PILLOW_INTERPOLATION:
        raise ValueError(
            f"interpolation must be one of {list(_PILLOW_INTERPOLATION)} with pillow, got {interpolation!r}"
        )
    if img.dtype != np.uint8:
        raise TypeError(f"img must be uint8 for backend pillow, got {img.dtype}")
    mode = PillowImage.Resampling[_PILLOW_INTERPOLATION[interpolation]]
    if img.ndim == 3 and img.shape[2] == 3:
        return np.array(PillowImage.fromarray(np.ascontiguousarray(img)).resize(size, mode))
    planes = img[..., None] if img.ndim == 2 else img
    resized = [
        np.array(PillowImage.fromarray(np.ascontiguousarray(planes[..., channel])).resize(size, mode))
        for channel in range(planes.shape[2])
    ]
    return resized[0] if img.ndim == 2 else np.stack(resized, axis=2)


def _check_size(size: Sequence[int]) -> Size:
    if len(size) == 2:
        width, height = size
        if is_natural(width) and is_natural(height) and width and height:
            return int(width), int(height)
    raise ValueError(f"size must be two positive integers (w, h), got {size!r}")


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"expected one number or two, got {value!r}")
        return value[0], value[1]
    return value, value
