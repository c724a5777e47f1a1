"""cv.fileio against mmcv 1.3.15: import time, JSON, text lists. Without mmcv only our own times are shown."""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Call, Report, arguments, caching_environment

import cv.fileio
from cv.fileio.handlers import json_handler

LINES = 1_000_000
JSON_BYTES = 100_000_000


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    report = Report("fileio", threads=args.threads)
    peer: Any = None
    with contextlib.suppress(ImportError):
        peer = importlib.import_module("mmcv")
    imports(report, peer)
    with tempfile.TemporaryDirectory() as folder:
        annotations(report, peer, Path(folder, "annotations.json"))
        lines(report, peer, Path(folder, "list.txt"))
    report.write(args.out)


def imports(report: Report, peer: Any) -> None:
    """Processor time that an import adds to a bare interpreter."""
    times = {"cv": import_seconds("cv.fileio")}
    if peer is not None:
        times["mmcv"] = import_seconds("mmcv")
    report.add("import", times)


def import_seconds(module: str) -> float:
    """Median of nine processes; the first one has written the byte code."""
    code = f"import time; s = time.process_time(); import {module}; print(time.process_time() - s)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(10):
            env = caching_environment(folder)
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            samples.append(float(done.stdout))
    return statistics.median(samples[1:])


def annotations(report: Report, peer: Any, path: Path) -> None:
    """A detection data set's annotations, 100 MB, with and without the orjson extra."""
    rng = random.Random(0)
    boxes = [
        {
            "id": number,
            "image_id": number // 7,
            "category_id": rng.randrange(80),
            "bbox": [round(rng.random() * 640, 2) for _ in range(4)],
            "area": round(rng.random() * 1e5, 3),
            "iscrowd": 0,
            "segmentation": [[round(rng.random() * 640, 2) for _ in range(40)]],
        }
        for number in range(50_000)
    ]
    text = json.dumps(boxes)
    repeat = JSON_BYTES // len(text) + 1
    path.write_text(json.dumps({"annotations": boxes * repeat}))
    megabytes = path.stat().st_size // 1_000_000

    def without_orjson() -> None:
        before = json_handler._orjson_loads
        json_handler._orjson_loads = lambda: None
        try:
            cv.fileio.load(path)
        finally:
            json_handler._orjson_loads = before

    calls: dict[str, Call] = {"cv": lambda: cv.fileio.load(path), "cv without orjson": without_orjson}
    if peer is not None:
        calls["mmcv"] = lambda: peer.load(str(path))
    # Each call takes seconds: three rounds do, without the harness's warm-up.
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    times = {name: statistics.median(seconds) for name, seconds in samples.items()}
    report.add(f"load, JSON of {megabytes} MB", times)


def lines(report: Report, peer: Any, path: Path) -> None:
    """A text list of a million lines."""
    path.write_text("".join(f"images/{number:08d}.jpg {number % 80}\n" for number in range(LINES)))
    modules = {"cv": cv.fileio} | ({} if peer is None else {"mmcv": peer})
    for function in ("list_from_file", "dict_from_file"):
        readers = {name: getattr(module, function) for name, module in modules.items()}
        calls: dict[str, Call] = {name: lambda read=read: read(str(path)) for name, read in readers.items()}
        report.compare(f"{function}, {LINES} lines", calls, seconds=3)


if __name__ == "__main__":
    main()
