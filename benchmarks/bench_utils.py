"""cv.utils against mmcv 1.3.15: import time, what a registry adds to a constructor, progress bars.

Without mmcv on the path only our own times are shown.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import statistics
import sys
import tempfile
from typing import Any

from harness import Call, Report, arguments, caching_environment, measure

import cv.utils


class ResNet:
    """Something to build; the constructor does next to nothing."""

    def __init__(self, depth: int, stages: int = 4, style: str = "pytorch") -> None:
        self.depth, self.stages, self.style = depth, stages, style


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    report = Report("utils", threads=args.threads)
    peer = peer_module()
    registry(report, peer)
    progress(report, peer)
    imports(report, peer)
    report.write(args.out)


def peer_module() -> Any:
    """mmcv if it is there, else None."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("mmcv")
    return None


def registry(report: Report, peer: Any) -> None:
    """``Registry.build`` from the dict of a config, beside the constructor alone (the floor)."""
    calls: dict[str, Call] = {}
    cfg = {"type": "ResNet", "depth": 50, "style": "caffe"}
    for name, module in modules(peer).items():
        models = module.Registry("models")
        models.register_module(module=ResNet)
        calls[name] = lambda models=models: models.build(cfg)
    constructor = measure(lambda: ResNet(depth=50, style="caffe"))
    times = report.compare("Registry.build of a small class", calls, floor=constructor)
    added = {name: seconds - constructor for name, seconds in times.items()}
    report.add("what Registry.build adds to the constructor", added)


def progress(report: Report, peer: Any) -> None:
    """A bar of ten thousand updates into a file, and a thousand tiny tasks in two processes."""
    sinks = {name: io.StringIO() for name in modules(peer)}

    def update(module: Any, sink: io.StringIO) -> None:
        sink.seek(0)
        bar = module.ProgressBar(10_000, file=sink)
        for _ in range(10_000):
            bar.update()

    report.compare(
        "ProgressBar, 10,000 updates into a file",
        {name: lambda m=module, s=sinks[name]: update(m, s) for name, module in modules(peer).items()},
    )
    for chunksize in (1, 50):
        report.compare(
            f"track_parallel_progress, 1,000 tasks, 2 processes, chunks of {chunksize}",
            {
                name: lambda m=module, s=sinks[name], c=chunksize: m.track_parallel_progress(
                    abs, range(1000), 2, chunksize=c, file=s
                )
                for name, module in modules(peer).items()
            },
        )


def imports(report: Report, peer: Any) -> None:
    """CPU time of a fresh interpreter that imports one module, less that of one which imports nothing."""
    statements = {"cv": "import cv.utils"}
    if peer is not None:
        statements["mmcv"] = "import mmcv"
    samples: dict[str, list[float]] = {name: [] for name in statements}
    with tempfile.TemporaryDirectory() as bytecode:
        for statement in statements.values():
            interpreter_seconds(statement, bytecode)
        for _ in range(9):
            nothing = interpreter_seconds("pass", bytecode)
            for name, statement in statements.items():
                samples[name].append(interpreter_seconds(statement, bytecode) - nothing)
    report.add("import", {name: statistics.median(times) for name, times in samples.items()})


def interpreter_seconds(code: str, bytecode: str) -> float:
    """User and system time of an interpreter that runs this code, with its bytecode cached as usual."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    pid = os.posix_spawn(sys.executable, command, caching_environment(bytecode))
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RuntimeError(f"{code!r} failed")
    return usage.ru_utime + usage.ru_stime


def modules(peer: Any) -> dict[str, Any]:
    """Ours and the peer by name."""
    return {"cv": cv.utils} if peer is None else {"cv": cv.utils, "mmcv": peer}


if __name__ == "__main__":
    main()
