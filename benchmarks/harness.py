"""Timing and reporting shared by every benchmark.

Speed is stated as a ratio against a peer measured in the same run: both calls are timed in
alternating rounds, so that a slow minute of the machine hits both, and the median of the rounds
counts. Results go to ``benchmarks/results/<name>.json`` and, as a table, to standard output.

A benchmark is a script::

    report = Report("nms", threads=2)
    report.compare("10k boxes", {"cv": lambda: nms(b, s, 0.5), "peer": lambda: peer(b, s, 0.5)}, floor=1e-4)
    report.write()
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Call = Callable[[], object]
RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("numpy", "opencv-python-headless", "pillow", "torch", "torchvision", "mmcv"),
    *("cv-fileio", "cv-utils", "cv-image", "cv-video", "cv-cnn", "cv-runner", "cv-ops"),
)


def measure(call: Call, *, seconds: float = 1.0, rounds: int = 7, sync: Call | None = None) -> float:
    """Median seconds of one call: warmed up, in about ``seconds`` of running split into ``rounds``."""
    return measure_all({"": call}, seconds=seconds, rounds=rounds, sync=sync)[""]


def measure_all(
    calls: Mapping[str, Call], *, seconds: float = 1.0, rounds: int = 7, sync: Call | None = None
) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns within every round.

    Args:
        calls: what to time, by name.
        seconds: about how long to run each of them in all; ``CV_BENCH_SCALE=0.3`` in the environment makes
            that 0.3 times as long.
        rounds: how many samples the median is taken over; 3 for a call that takes longer than its time.
        sync: waits for the device; called before the clock is read (``torch.cuda.synchronize``).
    """
    seconds *= float(os.environ.get("CV_BENCH_SCALE", "1"))
    wait: Call = sync or (lambda: None)
    repeats = {}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()  # the first call pays for caches, lazy loading and memory
        wait()
        start = time.perf_counter()
        call()
        wait()
        once = time.perf_counter() - start
        repeats[name] = max(1, int(seconds / rounds / max(once, 1e-9)))
        if once > seconds:
            samples[name].append(once)
    for _ in range(rounds):
        for name, call in calls.items():
            if len(samples[name]) >= 3 and sum(samples[name]) * repeats[name] > seconds:
                continue
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            wait()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(times) for name, times in samples.items()}


def caching_environment(folder: str) -> dict[str, str]:
    """The environment of a child Python that keeps its byte code in ``folder``, whatever is set here."""
    return {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}


class Report:
    """Rows of timings, the first named call of each row being ours and the others its peers."""

    def __init__(self, name: str, *, threads: int | None = None, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self.threads = threads
        self.rows: list[dict[str, object]] = []

    def compare(
        self,
        case: str,
        calls: Mapping[str, Call],
        *,
        floor: float | None = None,
        seconds: float = 1.0,
        sync: Call | None = None,
    ) -> dict[str, float]:
        """Time ``calls`` in one run and add the row; ``floor`` is the least time possible, in seconds."""
        times = measure_all(calls, seconds=seconds, sync=sync)
        self.add(case, times, floor=floor)
        return times

    def add(self, case: str, seconds: Mapping[str, float], *, floor: float | None = None) -> None:
        """Add a row of times measured elsewhere; the first entry of ``seconds`` is ours."""
        names = list(seconds)
        ours = seconds[names[0]]
        self.rows.append(
            {
                "case": case,
                "seconds": dict(seconds),
                "ratio": {peer: seconds[peer] / ours for peer in names[1:]},
                "floor": floor,
                "over_floor": None if floor is None else ours / floor,
            }
        )
        print(self._line(self.rows[-1]), flush=True)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write ``<name>.json`` (or ``<name>-<device>.json`` off the CPU) and return its path."""
        stem = self.name if self.device == "cpu" else f"{self.name}-{self.device.replace(' ', '-').lower()}"
        path = folder / f"{stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.environment(), "rows": self.rows}, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
        return path

    def environment(self) -> dict[str, object]:
        """Device, versions and date: what a figure means nothing without."""
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return {
            "benchmark": self.name,
            "device": _cpu_name() if self.device == "cpu" else self.device,
            "threads": self.threads,
            "date": datetime.date.today().isoformat(),
            "python": platform.python_version(),
            "versions": versions,
        }

    def _line(self, row: dict[str, object]) -> str:
        seconds, ratio = row["seconds"], row["ratio"]
        assert isinstance(seconds, dict)
        assert isinstance(ratio, dict)
        parts = [f"{name} {_human(value)}" + (f" ({ratio[name]:.2f}x)" if name in ratio else "")
                 for name, value in seconds.items()]  # fmt: skip
        if row["over_floor"] is not None:
            parts.append(f"{row['over_floor']:.2f}x the floor")
        return f"{self.name}: {row['case']}: " + ", ".join(parts)


def arguments(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line that every benchmark shares: ``--out``, ``--threads``, ``--device``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


def _human(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
