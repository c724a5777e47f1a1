"""Subtracting a mean and dividing by a standard deviation, for each channel, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import Image, channels, check_image, for_cv2, row_blocks

PerChannel = npt.NDArray[Any] | Sequence[float] | float


def imnormalize(
    img: Image, mean: PerChannel, std: PerChannel, to_rgb: bool = True
) -> npt.NDArray[np.float32]:
    """Normalize an image: ``(img - mean) / std``.

    Args:
        img: (H, W, 3) BGR, or (H, W), (H, W, C) with ``to_rgb=False``; any real dtype.
        mean: Means of the channels of the result (RGB if `to_rgb`), or one for all.
        std: Standard deviations, likewise.
        to_rgb: Exchange blue and red first. Of no effect on an image of one channel.

    Returns:
        A new array of the shape of `img`, float32.

    Raises:
        ValueError: If `mean` or `std` does not fit the channels, `std` is 0, or `to_rgb` has no three
            channels.
    """
    img = check_image(img)
    scale, shift = _scale_and_shift(img, mean, std)
    return scale_channels(img, scale, shift, swap=_swaps(img, to_rgb, "to_rgb"), dtype=np.float32)


def imnormalize_(img: Image, mean: PerChannel, std: PerChannel, to_rgb: bool = True) -> Image:
    """Normalize an image in place: ``(img - mean) / std``.

    Args:
        img: (H, W, 3) BGR, or (H, W), (H, W, C) with ``to_rgb=False``; float32 or float64. It is changed.
        mean: Same as `imnormalize`.
        std: Same as `imnormalize`.
        to_rgb: Same as `imnormalize`.

    Returns:
        `img` itself.

    Raises:
        AssertionError: If the dtype is not float32 or float64.
        ValueError: As for `imnormalize`.
    """
    check_image(img)
    _check_float(img)
    scale, shift = _scale_and_shift(img, mean, std)
    return scale_channels(img, scale, shift, swap=_swaps(img, to_rgb, "to_rgb"), out=img)


def imdenormalize(img: Image, mean: PerChannel, std: PerChannel, to_bgr: bool = True) -> Image:
    """Undo `imnormalize`: ``img * std + mean``.

    Args:
        img: (H, W, 3) RGB, or (H, W), (H, W, C) with ``to_bgr=False``; float32 or float64.
        mean: Means of the channels of `img`, or one for all.
        std: Standard deviations, likewise.
        to_bgr: Exchange red and blue afterwards. Of no effect on an image of one channel.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        AssertionError: If the dtype is not float32 or float64.
        ValueError: If `mean` or `std` does not fit the channels, or `to_bgr` has no three channels.
    """
    img = check_image(img)
    _check_float(img)
    scale, shift = _per_channel(std, img, "std"), _per_channel(mean, img, "mean")
    swap = _swaps(img, to_bgr, "to_bgr")
    if swap:
        scale, shift = scale[::-1], shift[::-1]
    return scale_channels(img, scale, shift, swap=swap)


def scale_channels(
    img: Image,
    scale: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    *,
    swap: bool,
    dtype: type[np.floating[Any]] | None = None,
    out: Image | None = None,
) -> Image:
    """``img * scale + shift`` for each channel of the result, after exchanging first and third if `swap`.

    The work is done in blocks of rows, so that a block is still in the cache for its second pass.

    Args:
        img: (H, W) or (H, W, C), any real dtype.
        scale: (C,)
        shift: (C,)
        swap: Exchange the first and the third channel.
        dtype: Of the result; None keeps floats and makes integers float32.
        out: Where to put the result; may be `img`.
    """
    if out is None:
        wanted = dtype or (img.dtype if img.dtype.kind == "f" else np.float32)
        out = np.empty(img.shape, wanted)
    if img.size == 0:
        return out
    if img.dtype in (np.uint8, np.uint16) and channels(img) <= 4 and out.dtype == np.float32:
        exchange = np.diag(scale)[:, ::-1] if swap else np.diag(scale)
        matrix = np.column_stack([exchange, shift]).astype(np.float32)
        for rows in row_blocks(img, 4):
            cv2.transform(np.ascontiguousarray(img[rows], dtype=np.float32), matrix, dst=out[rows])
        return out
    # Not as a matrix product: that would spread NaN and infinity from one channel to the others.
    row_scale, row_shift = _row_of(scale, out), _row_of(shift, out)
    for rows in row_blocks(img, out.itemsize):
        part = out[rows]
        _copy(img[rows], part, swap)
        part *= row_scale
        part += row_shift
    return out


def _row_of(values: npt.NDArray[np.float64], out: Image) -> Image:
    """A row of pixels of these values: NumPy is slow where it repeats three of them."""
    return np.tile(values.astype(out.dtype), out.shape[1]).reshape(out.shape[1:])


def _copy(part: Image, target: Image, swap: bool) -> None:
    """Copy to other type, the first and the third channel exchanged if `swap`; the two may be the same."""
    if swap and part.dtype == np.float32 and target.flags.c_contiguous:
        cv2.cvtColor(for_cv2(part), cv2.COLOR_BGR2RGB, dst=target)
    elif swap:
        target[...] = part[..., ::-1].astype(target.dtype)
    elif target is not part:
        target[...] = part


def _scale_and_shift(
    img: Image, mean: PerChannel, std: PerChannel
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    deviations = _per_channel(std, img, "std")
    if not deviations.all():
        raise ValueError(f"std must not be 0, got {std}")
    return 1 / deviations, -_per_channel(mean, img, "mean") / deviations


def _per_channel(value: PerChannel, img: Image, name: str) -> npt.NDArray[np.float64]:
    values = np.asarray(value, np.float64).ravel()
    if values.size not in (1, channels(img)):
        raise ValueError(
            f"{name} must have 1 or {channels(img)} values for img {img.shape}, got {values.size}"
        )
    return values if values.size == channels(img) else np.full(channels(img), values[0])


def _swaps(img: Image, wanted: bool, name: str) -> bool:
    if not wanted or channels(img) == 1:
        return False
    if channels(img) != 3:
        raise ValueError(f"img must have three channels for {name}=True, got shape {img.shape}")
    return True


def _check_float(img: Image) -> None:
    if img.dtype not in (np.float32, np.float64):
        raise AssertionError(f"img must be float32 or float64, got {img.dtype}")
