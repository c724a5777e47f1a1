"""Where the runner's time per iteration goes: hook by hook, beside the bare loop and the least there is.

``python benchmarks/bench_runner_overhead.py``. Processor time of this thread, in blocks of 25 iterations. The
blocks of all loops take turns, so that every one sees the same moments of the machine; the tenth percentile
of each loop's blocks counts. Every other block has a log line (``interval=50``).

Rows: the overhead over the bare loop with more and more hooks, and with all; beside it, as a measure of the
machine, one whole iteration of the bare loop and one call of ``torch.optim.SGD.step`` for the same model. The
floor of a row is ``written out``: what the six hooks do in one function without any hook, that is, the dict
that ``train_step`` returns, two clocks, three values into histories with their counts, a look at signals and
at the interval.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench_runner import Tiny, quiet_logger
from harness import Report, arguments

from cv.runner import EpochBasedRunner

BLOCK, BLOCKS = 25, 120
CONFIGS: dict[str, Any] = {
    "lr": {"policy": "step", "step": [2], "warmup": "linear", "warmup_iters": 100},
    "checkpoint": {"interval": 100},
    "timer": {"type": "IterTimerHook"},
    "text log": {"interval": 50, "hooks": [{"type": "TextLoggerHook"}]},
    "custom": {"type": "EmptyCacheHook"},
}

Loop = Callable[[int], None]


class Turns:
    """A loader that lets other loops run a block each between the runner's blocks, and times all of them."""

    def __init__(self, others: dict[str, Loop], blocks: int) -> None:
        self.others = others
        self.blocks = blocks
        self.samples: dict[str, list[float]] = {name: [] for name in ("runner", *others)}

    def __len__(self) -> int:
        return BLOCK * self.blocks

    def __iter__(self) -> Iterator[torch.Tensor]:
        batch = torch.ones(8, 4)
        for _ in range(self.blocks):
            for name, loop in self.others.items():
                start = time.thread_time()
                loop(BLOCK)
                self.samples[name].append(time.thread_time() - start)
            start = time.thread_time()
            for _ in range(BLOCK):
                yield batch
            self.samples["runner"].append(time.thread_time() - start)

    def seconds(self) -> dict[str, float]:
        """Per loop, the tenth percentile of its blocks, for one iteration."""
        return {name: sorted(s)[len(s) // 10] / BLOCK for name, s in self.samples.items()}


def other_loops() -> dict[str, Loop]:
    """The bare loop, the same with the runner's work written out, and the optimizer alone."""
    model = Tiny().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.ones(8, 4)

    def bare(iterations: int) -> None:
        for _ in range(iterations):
            loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())

    def written_out(iterations: int) -> None:
        values: dict[str, list[float]] = {"data_time": [], "loss": [], "time": []}
        counts: dict[str, list[int]] = {name: [] for name in values}
        signal = None
        start = time.perf_counter()
        for i in range(iterations):
            values["data_time"].append(time.perf_counter() - start)
            counts["data_time"].append(1)
            outputs = model.train_step(batch, optimizer)
            for name, value in outputs["log_vars"].items():
                values[name].append(value)
                counts[name].append(outputs["num_samples"])
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            now = time.perf_counter()
            values["time"].append(now - start)
            counts["time"].append(1)
            start = now
            if signal is not None or (i + 1) % 1000 == 0:
                return

    def step(iterations: int) -> None:
        for _ in range(iterations):
            optimizer.step()

    return {"bare loop": bare, "written out": written_out, "SGD.step": step}


def train(hooks: tuple[str, ...], loader: Any) -> None:
    """One epoch with an optimizer hook and some others."""
    model = Tiny()
    config = {name: CONFIGS[name] if name in hooks else None for name in CONFIGS}
    with tempfile.TemporaryDirectory() as folder:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        runner = EpochBasedRunner(
            model, optimizer=optimizer, work_dir=folder, logger=quiet_logger("bench.overhead"), max_epochs=1
        )
        runner.register_training_hooks(
            config["lr"], {}, config["checkpoint"], config["text log"], timer_config=config["timer"],
            custom_hooks_config=config["custom"],
        )  # fmt: skip
        runner.run([loader], [("train", 1)])


def python_calls() -> float:
    """Python functions of ours that one iteration enters, all hooks registered."""
    calls = [0]

    def count(frame: Any, event: str, _: Any) -> None:
        calls[0] += event == "call" and "/cv/" in frame.f_code.co_filename

    class Counted(Turns):
        def __iter__(self) -> Iterator[torch.Tensor]:
            for i in range(len(self)):
                if i in (5, 45):  # no log line among these
                    sys.setprofile(count if i == 5 else None)
                yield torch.ones(8, 4)

    train(tuple(CONFIGS), Counted({}, 2))
    return calls[0] / 40


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report = Report("runner-overhead", threads=1)
    others = other_loops()
    train(tuple(CONFIGS), Turns(others, 20))  # warm up
    names = tuple(CONFIGS)
    for count in range(len(names) + 1):
        turns = Turns(others, BLOCKS)
        train(names[:count], turns)
        took = turns.seconds()
        row = {"overhead": took["runner"] - took["bare loop"]}
        row |= {name: took[name] for name in ("bare loop", "SGD.step")}
        case = " + ".join(("optimizer", *names[:count]))
        report.add(case, row, floor=took["written out"] - took["bare loop"])
    print(f"Python functions of cv per iteration: {python_calls():.0f}")
    report.write(args.out)


if __name__ == "__main__":
    main()
