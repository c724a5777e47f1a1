"""What the image benchmarks share: the peers that are installed, and the images."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

SIZES = {"1080p": (1080, 1920), "small": (300, 451)}


def peer(name: str) -> Any:
    """The module if it is installed, else None."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(name)
    return None


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth image with some noise, as photographs have it: (H, W, C) uint8."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, channels), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = smooth.reshape(height, width, channels) + rng.integers(-4, 5, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def runs() -> Iterable[tuple[str, int, np.ndarray]]:
    """(label, threads, image) for one thread and for OpenCV's default number, at each size."""
    default = cv2.getNumThreads()
    for threads in (1, default):
        cv2.setNumThreads(threads)
        for size, shape in SIZES.items():
            yield f"{size}, {threads} thread{'s' * (threads > 1)}", threads, photo(*shape)
    cv2.setNumThreads(default)
