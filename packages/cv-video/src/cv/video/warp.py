"""Warping an image by a flow field."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STRIP = 64  # rows at a time, so that what is in between stays in the processor's cache
_REMAP_TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
_REMAP_MAX = 2**15 - 1  # cv2.remap counts rows and columns in 16 bits


def flow_warp(img: Array, flow: Array, filling_value: float = 0, interpolate_mode: str = "nearest") -> Array:
    """Fetch each pixel from where the flow points.

    ``out[y, x] = img[y + v, x + u]`` with ``u, v = flow[y, x]``. A place counts as inside the image if it has
    a pixel to its right and one below: ``0 <= x + u < W - 1`` and ``0 <= y + v < H - 1``; elsewhere, and
    where the flow is NaN, the result is ``filling_value``.

    Args:
        img: Image of shape (H, W) or (H, W, C), any number of channels, any real dtype.
        flow: Flow of shape (H, W, 2), in pixels: to the right, down.
        filling_value: For pixels that come from outside.
        interpolate_mode: ``'nearest'`` (halves go to the even neighbour, as :func:`numpy.rint`) or
            ``'bilinear'`` (computed in float32, or float64 for float64 and wide integers; integer images are
            rounded to the nearest).

    Returns:
        The warped image, of the shape and dtype of ``img``.

    Raises:
        ValueError: The shapes do not fit.
        NotImplementedError: Another ``interpolate_mode``.
    """
    if interpolate_mode not in ("nearest", "bilinear"):
        raise NotImplementedError(
            f"interpolate_mode must be 'nearest' or 'bilinear', got {interpolate_mode!r}"
        )
    if img.ndim not in (2, 3):
        raise ValueError(f"img must have shape (H, W) or (H, W, C), got {img.shape}")
    if flow.ndim != 3 or flow.shape != (*img.shape[:2], 2):
        raise ValueError(f"flow must have shape {(*img.shape[:2], 2)} to fit img, got {flow.shape}")
    source = np.ascontiguousarray(img[..., None] if img.ndim == 2 else img)
    out = np.full(source.shape, filling_value, dtype=img.dtype)
    if out.size:
        warp = _nearest if interpolate_mode == "nearest" else _bilinear
        for top in range(0, len(flow), _STRIP):
            x, y, inside = _places(flow[top : top + _STRIP], top, source.shape)
            if inside.any():
                warp(source, x, y, inside, out[top : top + _STRIP])
    return out.reshape(img.shape)


def _places(flow: Array, top: int, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Where the pixels of a strip come from, in float64: float32 would lose the fraction far right."""
    height, width = shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float64)
    y = flow[..., 1] + np.arange(top, top + len(flow), dtype=np.float64)[:, None]
    inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)  # false for NaN
    if not inside.all():
        x[~inside] = 0
        y[~inside] = 0
    return x, y, inside


def _nearest(source: Array, x: Array, y: Array, inside: Array, out: Array) -> None:
    fetched = _fetch(source, np.rint(x).astype(np.int32), np.rint(y).astype(np.int32))
    np.copyto(out, fetched, where=inside[..., None])


def _bilinear(source: Array, x: Array, y: Array, inside: Array, out: Array) -> None:
    left, above = x.astype(np.int32), y.astype(np.int32)  # not negative: this is the floor
    kind = np.float64 if source.dtype.itemsize > 4 or source.dtype in (np.int32, np.uint32) else np.float32
    right_share = (x - left)[..., None].astype(kind)
    lower_share = (y - above)[..., None].astype(kind)

    def row(line: Array) -> Array:
        first, second = _fetch(source, left, line), _fetch(source, left + 1, line)
        first, second = first.astype(kind, copy=False), second.astype(kind, copy=False)
        mixed: Array = first + (second - first) * right_share
        return mixed

    upper = row(above)
    mixed = upper + (row(above + 1) - upper) * lower_share
    if source.dtype.kind in "iu":
        mixed = np.rint(mixed)
    np.copyto(out, mixed.astype(out.dtype), where=inside[..., None])


def _fetch(source: Array, x: Array, y: Array) -> Array:
    """``source[y, x]`` for whole numbers inside the image."""
    height, width, channels = source.shape
    if source.dtype in _REMAP_TYPES and channels <= 4 and max(height, width) < _REMAP_MAX:
        maps = np.stack([x, y], axis=-1).astype(np.int16)
        fetched = cv2.remap(source, maps, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
        return np.asarray(fetched).reshape(*x.shape, channels)
    taken: Array = source.reshape(-1, channels).take(y.astype(np.int64) * width + x, axis=0)
    return taken
