"""What the runner costs per iteration, and what logging and importing cost.

``python benchmarks/bench_runner.py``. Peers are timed where they are installed: a bare PyTorch loop always,
Lightning's Trainer (``pip install lightning``), Ignite (``pip install pytorch-ignite``), and the runner of
mmcv 1.3.15 (its source archive unpacked on the path, with ``addict`` and ``yapf``; torchvision, which it
imports for its list of models, is stood in for where it is missing).

All train one epoch of a tiny model, log every 50th iteration and save a checkpoint at the end. Overhead is
what is left of an iteration when the bare loop's is taken away, three times:

- in the loop: processor time of blocks of 50 iterations, each with its log line. The tenth percentile of the
  blocks of all rounds counts, which a slow moment of the machine does not reach;
- the whole run over its iterations, with what start and checkpoint cost, by processor time;
- the same by wall clock. mmcv's runner sleeps two seconds before every epoch, to keep its workers from a
  deadlock: what it asks ``time.sleep`` for is taken off its time (and printed).

``floor`` is what the same work takes written out in one function, without a runner or hooks. On a tiny model
most of an overhead is memory: between two iterations PyTorch takes the processor's caches for itself, and
whatever Python object an iteration touches comes from afar. Where ours goes: ``bench_runner_overhead.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from harness import Report, arguments, caching_environment
from torch import nn

ITERATIONS = 2000
ROUNDS = 5

BLOCK = 50


class Timing(NamedTuple):
    """Seconds for one iteration."""

    blocks: list[float]
    """In the loop, by processor time, block by block."""
    process: float
    """Of the whole run, by processor time."""
    wall: float
    """Of the whole run, by wall clock, without sleep."""


Loop = Callable[[], Timing]


class Tiny(nn.Module):
    """A linear model: an iteration costs as little as it can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).square().mean()

    def train_step(self, x: torch.Tensor, optimizer: Any) -> dict[str, Any]:
        loss = self(x)
        return {"loss": loss, "log_vars": {"loss": float(loss.detach())}, "num_samples": x.shape[0]}


class Batches:
    """The same batch again and again: no data loader is timed. Notes how long blocks of iterations take."""

    def __init__(self, length: int = ITERATIONS, wait: float = 0.0) -> None:
        self.batch = torch.ones(8, 4)
        self.length = length
        self.wait = wait
        self.blocks: list[float] = []

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[torch.Tensor]:
        start = time.thread_time()
        for i in range(1, self.length + 1):
            if self.wait:
                time.sleep(self.wait)
            yield self.batch
            if i % BLOCK == 0:
                now = time.thread_time()
                self.blocks.append((now - start) / BLOCK)
                start = now


def timed(run: Callable[[Batches], object], batches: Batches | None = None) -> Timing:
    """Time one run over batches."""
    batches = batches or Batches()
    slept = [0.0]

    def count(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        slept[0] += seconds
        sleep(seconds)

    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        mock.patch("time.sleep", time.sleep if batches.wait else count),
    ):
        warnings.simplefilter("ignore")
        wall, process = time.perf_counter(), time.process_time()
        run(batches)
        wall, process = time.perf_counter() - wall, time.process_time() - process
    return Timing(batches.blocks, process / len(batches), (wall - slept[0]) / len(batches))


def bare() -> Timing:
    """The loop that everybody writes, reading the loss as the others do."""
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def run(batches: Batches) -> None:
        model.train()
        for batch in batches:
            loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())

    return timed(run)


def written_out() -> Timing:
    """The floor: what the six hooks do in an iteration, in one function without any runner or hook."""
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = quiet_logger("bench.floor")

    def run(batches: Batches) -> None:
        model.train()
        values: dict[str, list[float]] = {"data_time": [], "loss": [], "time": []}
        counts: dict[str, list[int]] = {name: [] for name in values}
        start = time.perf_counter()
        for i, batch in enumerate(batches, start=1):
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
            if i % BLOCK == 0:
                means = {name: sum(each[-BLOCK:]) / BLOCK for name, each in values.items()}
                log.info("Iter [%d] %s", i, means)
                file.write(json.dumps(means) + "\n")
                file.flush()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{folder}/1.pth")

    with tempfile.TemporaryDirectory() as folder, Path(folder, "log.json").open("w") as file:
        return timed(run)


def ours() -> Timing:
    """With the usual six hooks: learning rate, optimizer, checkpoint, timer, text log, cache."""
    from cv.runner import EpochBasedRunner

    model = Tiny()
    with tempfile.TemporaryDirectory() as folder:
        runner = EpochBasedRunner(
            model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            work_dir=folder,
            logger=quiet_logger("bench.cv"),
            max_epochs=1,
        )
        runner.register_training_hooks(
            {"policy": "step", "step": [2], "warmup": "linear", "warmup_iters": 100},
            {},
            {"interval": 100},
            {"interval": 50, "hooks": [{"type": "TextLoggerHook"}]},
            custom_hooks_config={"type": "EmptyCacheHook"},
        )
        return timed(lambda batches: runner.run([batches], [("train", 1)]))


def mmcv_runner() -> Timing:
    from mmcv.runner import EpochBasedRunner  # type: ignore[import-not-found]

    model = Tiny()
    with tempfile.TemporaryDirectory() as folder:
        runner = EpochBasedRunner(
            model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            work_dir=folder,
            logger=quiet_logger("bench.mmcv"),
            max_epochs=1,
        )
        runner.register_training_hooks(
            {"policy": "step", "step": [2], "warmup": "linear", "warmup_iters": 100},
            {},
            {"interval": 100},
            {"interval": 50, "hooks": [{"type": "TextLoggerHook"}]},
        )
        return timed(lambda batches: runner.run([batches], [("train", 1)]))


def lightning() -> Timing:
    from lightning.pytorch import LightningModule, Trainer  # type: ignore[import-not-found]

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Tiny()

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss = self.model(batch)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2)}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        return timed(lambda batches: trainer.fit(Module(), batches))


def ignite() -> Timing:
    from ignite.engine import Engine, Events  # type: ignore[import-not-found]
    from ignite.handlers import Checkpoint, DiskSaver, Timer  # type: ignore[import-not-found]
    from ignite.metrics import RunningAverage  # type: ignore[import-not-found]

    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def step(engine: Any, batch: torch.Tensor) -> float:
        model.train()
        loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    trainer = Engine(step)
    RunningAverage(output_transform=lambda x: x).attach(trainer, "loss")
    Timer(average=True).attach(trainer, step=Events.ITERATION_COMPLETED)
    log = quiet_logger("bench.ignite")
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=50), lambda e: log.info("loss %.4f", e.state.metrics["loss"])
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    with tempfile.TemporaryDirectory() as folder:
        saver = Checkpoint({"model": model}, DiskSaver(folder, require_empty=False))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
        return timed(lambda batches: trainer.run(batches, max_epochs=1))


def logging_share() -> dict[str, float]:
    """Iterations of 20 ms, logged every 10th and never."""
    from cv.runner import EpochBasedRunner

    def run(interval: int) -> float:
        model = Tiny()
        with tempfile.TemporaryDirectory() as folder:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            runner = EpochBasedRunner(
                model, optimizer=optimizer, work_dir=folder, logger=quiet_logger("bench.log"), max_epochs=1
            )
            log = {"interval": interval, "hooks": [{"type": "TextLoggerHook"}]}
            runner.register_training_hooks({"policy": "fixed"}, {}, None, log)
            return timed(lambda batches: runner.run([batches], [("train", 1)]), Batches(100, 0.02)).wall

    return {"every 10th logged": statistics.median(run(10) for _ in range(3)),
            "none logged": statistics.median(run(10**9) for _ in range(3))}  # fmt: skip


def import_seconds(statement: str) -> float:
    """Median seconds that a statement takes in a fresh interpreter after torch's import, byte code cached."""
    code = f"import torch, time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as cache:
        environment = caching_environment(cache)
        times = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(ROUNDS + 1)
        ]
    return statistics.median(times[1:])  # the first fills the cache


def tenth_percentile(timings: list[Timing]) -> float:
    """Of the blocks of all rounds."""
    blocks = sorted(block for timing in timings for block in timing.blocks)
    return blocks[len(blocks) // 10]


def quiet_logger(name: str) -> logging.Logger:
    """A logger that formats its lines but prints them nowhere."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(io.StringIO()))
        logger.propagate = False
        logger.setLevel(logging.INFO)
    return logger


def stand_in_for_torchvision() -> None:
    """mmcv's runner imports torchvision to look up names of models; nothing of it is used here."""
    if importlib.util.find_spec("torchvision") is None:
        package = types.ModuleType("torchvision")
        package.models = sys.modules["torchvision.models"] = types.ModuleType("torchvision.models")  # type: ignore[attr-defined]
        sys.modules["torchvision"] = package


def installed(*modules: str) -> bool:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # old packages fail in many ways
            print(f"left out: {module} ({error})")
            return False
    return True


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    report = Report("runner", threads=1)
    loops: dict[str, Loop] = {"cv": ours, "bare loop": bare, "written out": written_out}
    if installed("lightning.pytorch"):
        loops["lightning"] = lightning
    if installed("ignite.engine"):
        loops["ignite"] = ignite
    stand_in_for_torchvision()  # after those that ask whether it is there
    if installed("mmcv.runner"):
        loops["mmcv"] = mmcv_runner

    samples: dict[str, list[Timing]] = {name: [] for name in loops}
    for loop in loops.values():
        loop()  # warm up
    for _ in range(ROUNDS):  # in turn, so that a slow moment hits all of them
        for name, loop in loops.items():
            samples[name].append(loop())
    in_loop = {name: tenth_percentile(timings) for name, timings in samples.items()}
    report.add("one iteration, six hooks, tiny model", in_loop)
    less_bare = {name: took - in_loop["bare loop"] for name, took in in_loop.items() if name != "bare loop"}
    floor = less_bare.pop("written out")
    report.add("overhead in the loop, processor time", less_bare, floor=floor)
    for clock in ("process", "wall"):
        took = {name: min(getattr(timing, clock) for timing in timings) for name, timings in samples.items()}
        less_bare = {name: each - took["bare loop"] for name, each in took.items() if name != "bare loop"}
        floor = less_bare.pop("written out")
        what = {"process": "processor time", "wall": "wall clock, sleep left out"}[clock]
        report.add(f"overhead of a run of {ITERATIONS}, {what}", less_bare, floor=floor)
    report.add("20 ms iterations", logging_share())
    report.add(
        "import after torch",
        {
            "cv.runner": import_seconds("import cv.runner"),
            "torch.distributed": import_seconds("import torch.distributed"),
        },
    )
    report.write(args.out)


if __name__ == "__main__":
    main()
