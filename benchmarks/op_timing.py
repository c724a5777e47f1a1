"""Timing of operators on CPU or GPU, with the floor beside each figure.

The floor of a call is the larger of two times: the fewest bytes it must move (each input read once, each
output written once) over the memory bandwidth, and the operations it must do over their rate. Both rates
are measured here, once, on the device in hand: a large copy (bytes read plus bytes written) and a large
matrix product.

Inside ``scaling_into(report)`` only our calls are timed, on one thread and on all, and the rows go to that
report: ``bench_scaling.py``.

A GPU is timed with events around single calls, after a warm-up, with its L2 cache overwritten before each;
the median counts. The CPU goes through harness.Report.compare.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from harness import Call, Report, arguments, measure

GPU_CALLS = 50
CACHE_BYTES = 256 << 20  # larger than any L2
SHORT = 1e-3  # seconds


_scaling_report: Report | None = None


@contextlib.contextmanager
def scaling_into(report: Report) -> Iterator[None]:
    """Benchmarks run in here add to ``report`` what their calls gain from threads, and write nothing."""
    global _scaling_report
    _scaling_report = report
    try:
        yield
    finally:
        _scaling_report = None


class OperatorReport:
    """One benchmark of operators: cases with our call first and its peers after it."""

    def __init__(self, name: str, description: str | None) -> None:
        args = arguments(description)
        torch.set_num_threads(args.threads)
        self.device = torch.device(args.device)
        self.out: Path = args.out
        self.on_gpu = self.device.type == "cuda"
        device_name = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        self.report = Report(name, threads=None if self.on_gpu else args.threads, device=device_name)
        self._bandwidth: float | None = None
        self._flop_rate: dict[torch.dtype, float] = {}

    def compare(
        self,
        case: str,
        calls: Mapping[str, Call],
        *,
        bytes_moved: int = 0,
        operations: int = 0,
        dtype: torch.dtype = torch.float32,
        seconds: float = 1.0,
    ) -> None:
        """Times ``calls`` in turns and adds a row.

        Args:
            case: What is computed, shapes included.
            calls: Name to call; ours first. Peers that cannot do it are left out by the caller.
            bytes_moved: The fewest bytes of the call; 0: no memory floor.
            operations: The fewest floating-point operations (a multiply-add is two); 0: no such floor.
            dtype: Of the operations.
            seconds: About how long to run each call on the CPU.
        """
        if _scaling_report is not None:
            compare_threads(_scaling_report, f"{self.report.name}: {case}", next(iter(calls.values())))
            return
        floor = max(bytes_moved / self.bandwidth, operations / self.flop_rate(dtype) if operations else 0.0)
        if self.on_gpu:
            self.report.add(case, self._gpu_times(calls), floor=floor or None)
        else:
            self.report.compare(case, calls, floor=floor or None, seconds=seconds)

    def write(self) -> None:
        if _scaling_report is None:
            print(self.report.write(self.out))

    @property
    def bandwidth(self) -> float:
        """Bytes per second of a copy, read and write both counted."""
        if self._bandwidth is None:
            source = torch.rand((1 << 30 if self.on_gpu else 64 << 20) // 4, device=self.device)
            target = torch.empty_like(source)
            self._bandwidth = 2 * source.nbytes / self._time(lambda: target.copy_(source))
        return self._bandwidth

    def flop_rate(self, dtype: torch.dtype) -> float:
        """Operations per second of a matrix product in ``dtype``."""
        if dtype not in self._flop_rate:
            n = 8192 if self.on_gpu else 1024
            a = torch.rand(n, n, device=self.device).to(dtype)
            self._flop_rate[dtype] = 2 * n**3 / self._time(lambda: a @ a)
        return self._flop_rate[dtype]

    def _time(self, call: Call) -> float:
        return self._gpu_times({"": call})[""] if self.on_gpu else measure(call, seconds=0.5)

    def _gpu_times(self, calls: Mapping[str, Call]) -> dict[str, float]:
        cache = torch.empty(CACHE_BYTES // 4, device=self.device)
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            for _ in range(3):
                call()
        for _ in range(GPU_CALLS):
            for name, call in calls.items():
                cache.zero_()
                start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call()
                stop.record()
                stop.synchronize()
                samples[name].append(start.elapsed_time(stop) * 1e-3)
        return {name: statistics.median(times) for name, times in samples.items()}


def compare_threads(report: Report, case: str, call: Call) -> None:
    """A row of ``call`` on the threads of ``report`` and on one; a short call is left out.

    ``by_processor_time`` in the row is what would be gained if every thread had a core of its own: the time
    of one thread over that of the busiest. It leaves out what the machine does beside, and waiting.
    """
    assert report.threads is not None
    if measure(call, seconds=0.01, rounds=3) < SHORT:
        return

    def run(threads: int) -> None:
        torch.set_num_threads(threads)
        call()

    names = {f"{threads} threads": threads for threads in (report.threads, 1)}
    calls = {name: functools.partial(run, threads) for name, threads in names.items()}
    times = report.compare(case, calls, seconds=0.25)
    if sys.platform == "linux":
        busiest, alone = (busiest_thread(calls[name], times[name]) for name in names)
        report.rows[-1]["by_processor_time"] = alone / busiest
        print(f"    by processor time {alone / busiest:.2f}x", flush=True)
    torch.set_num_threads(report.threads)


def busiest_thread(call: Call, seconds: float) -> float:
    """Processor seconds of the thread that works longest in ``call``, which takes ``seconds``; the median."""
    samples = []
    for _ in range(max(5, min(40, int(0.1 / seconds)))):
        before = thread_times()
        call()
        samples.append(max(spent - before.get(tid, 0.0) for tid, spent in thread_times().items()))
    return statistics.median(samples)


def thread_times() -> dict[int, float]:
    """Processor seconds of each thread of this process, by its number."""
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    return {tid: time.clock_gettime((~tid << 3) | 6) for tid in threads}  # the clock of a thread on Linux


def forward_and_backward(call: Call, *inputs: torch.Tensor) -> Call:
    """A call that also computes the gradients of ``inputs`` for an output gradient of ones."""

    def run() -> object:
        output = call()
        assert isinstance(output, torch.Tensor)
        return torch.autograd.grad(output, inputs, torch.ones_like(output))

    return run


def torchvision_ops() -> Any:
    """``torchvision.ops``, or None (with a line that says so) where it is missing or has no compiled half."""
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchvision left out: {error}", file=sys.stderr)
        return None
    return torchvision.ops


def mmcv_ops() -> Any:
    """``mmcv.ops`` of mmcv 2, or None (with a line that says so) where it is missing or not compiled."""
    try:
        import mmcv.ops

        mmcv.ops.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
    except (ImportError, RuntimeError, AttributeError, AssertionError, OSError) as error:
        print(f"mmcv left out: {error}", file=sys.stderr)
        return None
    return mmcv.ops
