"""What the image benchmarks share: the peers that are installed, and the images."""

from __future__ import annotations

import contextlib
import importlib
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from harness import Call, Report

# Time for each call of each case, split into rounds in which the calls take turns.
SECONDS, ROUNDS = 0.07, 7
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


def runs(most_threads: int) -> Iterable[tuple[str, int, np.ndarray]]:
    """(label, threads, image) for one thread and, up to the given number, OpenCV's default; at each size."""
    default = cv2.getNumThreads()
    for threads in {1, min(default, most_threads)}:
        cv2.setNumThreads(threads)
        for size, shape in SIZES.items():
            yield f"{size}, {threads} thread{'s' * (threads > 1)}", threads, photo(*shape)
    cv2.setNumThreads(default)


def compare(report: Report, case: str, calls: Mapping[str, Call], threads: int) -> None:
    """Add a row: processor time for one thread, which a busy machine distorts little, else the wall clock.

    Each call runs once untimed whenever its turn comes: otherwise it would pay, or not, for getting the memory
    back that the one before it gave to the system, up to 6 ms for a float32 result of 1080p.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    samples: dict[str, list[float]] = {name: [] for name in calls}
    repeats = dict.fromkeys(calls, 1)
    for round_number in range(ROUNDS + 1):
        for name, call in calls.items():
            call()
            start = clock()
            for _ in range(repeats[name]):
                call()
            seconds = (clock() - start) / repeats[name]
            if round_number == 0:
                repeats[name] = min(1000, max(1, int(SECONDS / ROUNDS / max(seconds, 1e-6))))
            else:
                samples[name].append(seconds)
    report.add(case, {name: statistics.median(times) for name, times in samples.items()})
