"""What the image benchmarks share: the peers that are installed, and the images.

As a script it writes the tables of docs/image.md from the results: python benchmarks/image_peers.py
"""

from __future__ import annotations

import contextlib
import importlib
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import harness
import numpy as np
from harness import RESULTS, Call, Report

# Time for each call of each case, split into rounds in which the calls take turns.
SECONDS, ROUNDS = 0.07, 7
GUIDE = Path(__file__).parents[1] / "docs" / "image.md"
PEERS = (
    "bare",
    "mmcv",
    "pillow",
    "pillow from arrays",
    "albumentations",
    "kornia-rs",
    "skimage",
    "pillow and torch",
)
SIZES = {"1080p": (1080, 1920), "small": (300, 451)}


# The versions that a report states.
harness.PACKAGES = (
    *("numpy", "opencv-python-headless", "pillow", "torch", "mmcv", "albumentations", "albucore"),
    *("kornia-rs", "scikit-image", "cv-image"),
)


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

    Each call runs once untimed whenever its turn comes: otherwise it would pay, or not, for getting the
    memory back that the one before it gave to the system, up to 6 ms for a float32 result of 1080p. The call
    named "floor" is no peer but what the function cannot do without: its time is stored as the floor.
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
    times = {name: statistics.median(seconds) for name, seconds in samples.items()}
    floor = times.pop("floor", None)
    report.add(case, times, floor=floor)


def main() -> None:
    """Put the figures of the last runs into the guide, between its two marks."""
    text = GUIDE.read_text(encoding="utf-8")
    begin, end = "<!-- figures: begin -->", "<!-- figures: end -->"
    head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    GUIDE.write_text(f"{head}\n{figures()}\n{tail}", encoding="utf-8")


def figures() -> str:
    """The tables of the results, as Markdown."""
    reports = {
        name: json.loads((RESULTS / f"image-{name}.json").read_text(encoding="utf-8"))
        for name in ("photometric", "geometric", "io")
    }
    first = reports["photometric"]
    versions = ", ".join(
        f"{name} {version}" for name, version in first["versions"].items() if name[:3] != "cv-"
    )
    rows = [row for name in ("photometric", "geometric") for row in reports[name]["rows"]]
    labels = list(dict.fromkeys(_split(row["case"])[1] for row in rows))
    parts = [f"{first['device']}, Python {first['python']}, {versions}; {first['date']}."]
    for label in labels:
        parts += [f"{label}:", _table([row for row in rows if _split(row["case"])[1] == label])]
    parts += ["Reading, the pipeline and importing:", _table(reports["io"]["rows"])]
    slower = [
        f"- `{row['case']}`: {peer} takes {ratio:.2f} of our time"
        for row in [*rows, *reports["io"]["rows"]]
        for peer, ratio in row["ratio"].items()
        if ratio < 0.95
    ]
    parts += ["Where a peer is more than 5 % faster:", "\n".join(slower) or "Nowhere."]
    return "\n\n".join(["", *parts, ""])


def _table(rows: list[dict[str, Any]]) -> str:
    peers = [name for name in PEERS if any(name in row["ratio"] for row in rows)]
    floors = any(row["floor"] for row in rows)
    head = ["", "ms", *["over the floor"] * floors, *peers]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [_split(row["case"])[0], f"{row['seconds']['cv'] * 1e3:.3g}"]
        if floors:
            cells.append(f"{row['over_floor']:.2f}" if row["floor"] else "")
        cells += [f"{row['ratio'][name]:.2f}" if name in row["ratio"] else "" for name in peers]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _split(case: str) -> tuple[str, str]:
    """The name of a case, and its size and threads."""
    for size in SIZES:
        name, found, threads = case.rpartition(f", {size}, ")
        if found:
            return name, f"{size}, {threads}"
    return case, ""


if __name__ == "__main__":
    main()
