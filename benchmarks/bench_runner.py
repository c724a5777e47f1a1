"""What the runner costs per iteration, and what logging and importing cost.

``python benchmarks/bench_runner.py``. Peers are timed where they are installed: a bare PyTorch loop always,
Lightning's Trainer (``pip install lightning``), Ignite (``pip install pytorch-ignite``), and the runner of
mmcv 1.3.15 (its source archive unpacked on the path, with ``addict`` and ``yapf``; torchvision, which it
imports for its list of models, is stood in for where it is missing).
A row's figure is the processor time of one whole iteration of a tiny model; ``overhead`` is what is left when
the bare loop's, timed beside it, is taken away. Where it goes: ``bench_runner_overhead.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import Report, arguments, caching_environment
from torch import nn
from torch.utils.data import DataLoader

ITERATIONS = 2000
ROUNDS = 5

Loop = Callable[[], float]


class Tiny(nn.Module):
    """A linear model: an iteration costs as little as it can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).square().mean()

    def train_step(self, x: torch.Tensor, optimizer: Any) -> dict[str, Any]:
        loss = self(x)
        return {"loss": loss, "log_vars": {"loss": float(loss.detach())}, "num_samples": len(x)}


class Batches:
    """The same batch again and again: no data loader is timed."""

    def __init__(self, length: int, wait: float = 0.0) -> None:
        self.batch = torch.ones(8, 4)
        self.length = length
        self.wait = wait

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(self.length):
            if self.wait:
                time.sleep(self.wait)
            yield self.batch


def seconds_per_iteration(
    run: Callable[[], object],
    iterations: int = ITERATIONS,
    clock: Callable[[], float] = time.process_time,
) -> float:
    start = clock()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    return (clock() - start) / iterations


def bare() -> float:
    """The loop that everybody writes, reading the loss as the others do."""
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def run() -> None:
        model.train()
        for batch in Batches(ITERATIONS):
            loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())

    return seconds_per_iteration(run)


def ours(log_interval: int = 50) -> float:
    """With the usual six hooks: learning rate, optimizer, checkpoint, timer, text log, sampler seed."""
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
            {"interval": log_interval, "hooks": [{"type": "TextLoggerHook"}]},
            custom_hooks_config={"type": "EmptyCacheHook"},
        )
        return seconds_per_iteration(lambda: runner.run([Batches(ITERATIONS)], [("train", 1)]))


def mmcv_runner() -> float:
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
        return seconds_per_iteration(lambda: runner.run([Batches(ITERATIONS)], [("train", 1)]))


def lightning() -> float:
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
        loader = DataLoader(torch.ones(ITERATIONS, 8, 4), batch_size=None)
        return seconds_per_iteration(lambda: trainer.fit(Module(), loader))


def ignite() -> float:
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
        return seconds_per_iteration(lambda: trainer.run(Batches(ITERATIONS), max_epochs=1))


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
            loaders = [Batches(100, 0.02)]
            return seconds_per_iteration(lambda: runner.run(loaders, [("train", 1)]), 100, time.perf_counter)

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
    loops: dict[str, Loop] = {"cv": ours, "bare loop": bare}
    if installed("lightning.pytorch"):
        loops["lightning"] = lightning
    if installed("ignite.engine"):
        loops["ignite"] = ignite
    stand_in_for_torchvision()  # after those that ask whether it is there
    if installed("mmcv.runner"):
        loops["mmcv"] = mmcv_runner

    samples: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop()  # warm up
    for _ in range(ROUNDS):  # in turn, so that a slow moment hits all of them
        for name, loop in loops.items():
            samples[name].append(loop())
    times = {name: statistics.median(values) for name, values in samples.items()}
    report.add("one iteration, six hooks, tiny model", times)
    overhead = {
        name: statistics.median(ours - bare for ours, bare in zip(values, samples["bare loop"], strict=True))
        for name, values in samples.items()
        if name != "bare loop"
    }
    report.add("overhead over the bare loop", overhead)
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
