"""Optical flow: files, quantisation and warping.

A flow field is an array of shape (H, W, 2), float32: at each pixel of the first image how far, in pixels, its
content lies to the right (channel 0, u) and down (channel 1, v) in the second image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv import arraymisc
from cv.fileio import atomic_write
from cv.image import imread, imwrite
from cv.image.codecs.flo import read_flo, write_flo

from .decoders import VideoError

Array = npt.NDArray[Any]

# Quantised flow is a picture of bytes; the greatest byte stays unused.
_LEVELS = 255


class AxisError(AssertionError, ValueError):
    """``concat_axis`` is neither 0 nor 1."""


class ShapeError(AssertionError, ValueError):
    """Arrays whose shapes do not fit each other."""


def flowread(
    flow_or_path: Array | str | os.PathLike[str],
    quantize: bool = False,
    concat_axis: int = 0,
    *args: Any,
    **kwargs: Any,
) -> Array:
    """Read an optical flow field.

    Args:
        flow_or_path: A ``.flo`` file (Middlebury), a 16-bit ``.png`` (KITTI), a picture made by
            :func:`flowwrite` with ``quantize=True``, or a flow array, which passes through.
        quantize: Whether the file is such a picture; ``args`` and ``kwargs`` then go to
            :func:`dequantize_flow`.
        concat_axis: How dx and dy lie in the picture: 0 one above the other, 1 side by side.

    Returns:
        Flow of shape (H, W, 2), float32; an array as it is. Pixels that a KITTI file marks as unknown are
        NaN.

    Raises:
        TypeError: ``flow_or_path`` is neither an array nor a path.
        ValueError: An array is not of shape (H, W, 2).
        OSError: The file is missing, or not a flow file.
        AssertionError: ``concat_axis`` is neither 0 nor 1.
    """
    if isinstance(flow_or_path, np.ndarray):
        return _check_flow(flow_or_path, "flow_or_path")
    if not isinstance(flow_or_path, (str, os.PathLike)):
        raise TypeError(f"flow_or_path must be an ndarray or a path, got {type(flow_or_path).__name__}")
    path = Path(flow_or_path)
    if not quantize:
        content = path.read_bytes()
        try:
            if content.startswith(b"\x89PNG"):
                flow, valid = sparse_flow_from_bytes(content)
                flow[valid == 0] = np.nan
                return flow
            return read_flo(content)
        except ValueError as error:
            raise VideoError(f"{path}: {error}") from error
    _check_axis(concat_axis)
    picture = imread(path, flag="unchanged")
    if picture.ndim != 2:
        raise VideoError(f"{path} is not a quantized flow file: it must be grey, got shape {picture.shape}")
    if picture.shape[concat_axis] % 2:
        raise VideoError(f"{path} cannot be halved along axis {concat_axis}, got shape {picture.shape}")
    dx, dy = np.split(picture, 2, axis=concat_axis)
    return dequantize_flow(dx, dy, *args, **kwargs).astype(np.float32)


def flowwrite(
    flow: Array,
    filename: str | os.PathLike[str],
    quantize: bool = False,
    concat_axis: int = 0,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Write an optical flow field.

    Args:
        flow: Flow of shape (H, W, 2).
        filename: Where to write; folders are made. The file appears whole or not at all.
        quantize: False writes a ``.flo`` file, which keeps every bit of float32 (or, with the suffix
            ``.png``, a KITTI file: steps of 1/64 pixel, -512 to 512, NaN and values from 1e9 on as unknown).
            True writes a picture, lossy and much smaller; ``args`` and ``kwargs`` go to
            :func:`quantize_flow`.
        concat_axis: How dx and dy lie in the picture: 0 one above the other, 1 side by side.

    Raises:
        ValueError: ``flow`` is not of shape (H, W, 2), or does not fit a KITTI file.
        AssertionError: ``concat_axis`` is neither 0 nor 1.
        OSError: The file cannot be written.
    """
    flow = _check_flow(flow, "flow")
    path = Path(filename)
    if quantize:
        _check_axis(concat_axis)
        imwrite(np.concatenate(quantize_flow(flow, *args, **kwargs), axis=concat_axis), path)
        return
    content = _kitti_bytes(flow) if path.suffix.lower() == ".png" else write_flo(flow)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)


def quantize_flow(flow: Array, max_val: float = 0.02, norm: bool = True) -> tuple[Array, Array]:
    """Quantize flow to bytes, for pictures that compress well.

    Each component is clipped to [-max_val, max_val], shifted to begin at 0, and becomes
    ``min(floor(255 * v / (2 * max_val)), 254)``.

    Args:
        flow: Flow of shape (H, W, 2).
        max_val: Greatest magnitude that is kept.
        norm: Whether to divide dx by the width and dy by the height first.

    Returns:
        dx and dy of shape (H, W), uint8 [0, 254].

    Raises:
        ValueError: ``flow`` is not of shape (H, W, 2), or ``max_val`` is not positive.
    """
    flow = _check_flow(flow, "flow")
    if not max_val > 0:
        raise ValueError(f"max_val must be positive, got {max_val}")
    height, width = flow.shape[:2]
    scale = (width, height) if norm else (1, 1)
    dx, dy = (
        arraymisc.quantize(flow[..., axis] / scale[axis], -max_val, max_val, _LEVELS, np.uint8)
        for axis in (0, 1)
    )
    return dx, dy


def dequantize_flow(dx: Array, dy: Array, max_val: float = 0.02, denorm: bool = True) -> Array:
    """Undo :func:`quantize_flow`, to the middle of each step.

    Args:
        dx: Quantized dx of shape (H, W) or (H, W, 1).
        dy: Quantized dy of the same shape.
        max_val: As it was for :func:`quantize_flow`.
        denorm: Whether to multiply dx by the width and dy by the height.

    Returns:
        Flow of shape (H, W, 2), float64.

    Raises:
        ShapeError: The shapes differ or are not (H, W). An ``AssertionError`` and a ``ValueError``.
        ValueError: ``max_val`` is not positive.
    """
    if dx.shape != dy.shape or not (dx.ndim == 2 or (dx.ndim == 3 and dx.shape[2] == 1)):
        raise ShapeError(f"dx and dy must have one shape (H, W), got {dx.shape} and {dy.shape}")
    if not max_val > 0:
        raise ValueError(f"max_val must be positive, got {max_val}")
    height, width = dx.shape[:2]
    flow = np.empty((height, width, 2))
    for axis, (component, scale) in enumerate(((dx, width), (dy, height))):
        values = arraymisc.dequantize(component.reshape(height, width), -max_val, max_val, _LEVELS)
        flow[..., axis] = values * scale if denorm else values
    return flow


def flow_from_bytes(content: bytes) -> npt.NDArray[np.float32]:
    """Decode a ``.flo`` file (Middlebury; also FlyingChairs and FlyingThings) held in memory.

    Args:
        content: The whole file.

    Returns:
        Flow of shape (H, W, 2), float32, in pixels.

    Raises:
        ImageDecodeError: Wrong tag, impossible size or wrong length; an ``OSError`` and a ``ValueError``.
    """
    return read_flo(content)


def sparse_flow_from_bytes(content: bytes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Decode a KITTI flow file held in memory.

    Such a file is a 16-bit RGB PNG: ``u = (R - 2**15) / 64``, ``v = (G - 2**15) / 64``, and B says whether
    the pixel is known (KITTI 2012/2015 development kit, readme.txt).

    Args:
        content: The whole file.

    Returns:
        Flow of shape (H, W, 2), float32, in pixels, and validity of shape (H, W), float32, 0 or 1.

    Raises:
        VideoError: Not a 16-bit PNG of three channels; an ``OSError`` and a ``ValueError``.
    """
    data = np.frombuffer(content, dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        got = "no image" if image is None else f"{image.dtype} of shape {image.shape}"
        raise VideoError(f"a KITTI flow file must be a 16-bit PNG of three channels, got {got}")
    stored = image[..., ::-1].astype(np.float32)  # BGR to RGB
    flow = (stored[..., :2] - np.float32(2**15)) / np.float32(64)
    return flow, np.ascontiguousarray(stored[..., 2])


def _kitti_bytes(flow: Array) -> bytes:
    known: Array = np.logical_and.reduce(np.isfinite(flow) & (np.abs(flow) < 1e9), axis=-1)
    stored = np.rint(np.where(known[..., None], flow, 0).astype(np.float64) * 64) + 2**15
    if stored.size and (stored.min() < 0 or stored.max() > 2**16 - 1):
        raise ValueError("flow must lie in [-512, 512) pixels for a KITTI file, got values beyond")
    image = np.dstack([known, stored[..., 1], stored[..., 0]]).astype(np.uint16)
    encoded, buffer = cv2.imencode(".png", image)
    assert encoded
    return buffer.tobytes()


def _check_flow(flow: Array, name: str) -> Array:
    if not isinstance(flow, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(flow).__name__}")
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"{name} must have shape (H, W, 2), got {flow.shape}")
    return flow


def _check_axis(concat_axis: int) -> None:
    if concat_axis not in (0, 1):
        raise AxisError(f"concat_axis must be 0 or 1, got {concat_axis}")
