"""Images for tests: a smooth one, and the same values in every memory layout. Needs numpy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_image(height: int = 40, width: int = 60, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A colourful image that JPEG keeps nearly as it is."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4).reshape(noise.shape)
    return cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).reshape(noise.shape)


def variants(shape: tuple[int, ...], dtype: type, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """The same values in every layout that a caller may pass."""
    rng = np.random.default_rng(seed)
    top = 65535 if dtype is np.uint16 else 255
    values = rng.integers(0, top + 1, shape).astype(dtype)
    if np.dtype(dtype).kind == "f":
        values = (values + rng.random(shape) * 0.9).clip(0, 255).astype(dtype)
    wide = np.zeros((shape[0] + 3, shape[1] * 2 + 1, *shape[2:]), dtype)
    wide[1:-2, 1::2] = values
    cropped = np.zeros((shape[0] + 4, shape[1] + 5, *shape[2:]), dtype)
    cropped[2:-2, 3:-2] = values
    return [
        ("contiguous", values),
        ("flipped", np.ascontiguousarray(values[:, ::-1])[:, ::-1]),
        ("upside down", np.ascontiguousarray(values[::-1])[::-1]),
        ("every second column", wide[1:-2, 1::2]),
        ("crop", cropped[2:-2, 3:-2]),
        ("fortran", np.asfortranarray(values)),
        ("byte order", values.astype(values.dtype.newbyteorder())),
        ("read only", _read_only(values)),
    ]


def _read_only(values: np.ndarray) -> np.ndarray:
    copy = values.copy()
    copy.flags.writeable = False
    return copy
