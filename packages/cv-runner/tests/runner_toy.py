"""A small training run whose every source of state matters: dropout, batch norm, momentum, shuffling,
random augmentation, gradient accumulation, a moving average, evaluation, a best checkpoint.

:func:`run_in` trains in a folder, in a process of its own that may be killed and begun again.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cv.fileio import atomic_write
from cv.runner import EMAHook, EvalHook, build_optimizer, build_runner, save_checkpoint, set_random_seed
from cv.runner.checkpoint import link_latest


class ToyData(Dataset):
    """23 samples of 4 numbers, augmented with noise from three generators."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        noise = 0.1 * torch.randn(4) + 0.1 * float(np.random.randn()) + 0.1 * random.random()  # noqa: NPY002
        return {"x": torch.full((4,), index / 23) + noise, "y": torch.tensor([float(index % 2)])}

    def evaluate(self, results, logger=None):
        return {"acc": float(np.mean(results))}


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x, y=None, return_loss=True):
        out = self.net(x)
        return ((out - y) ** 2).mean() if return_loss else [float(v) for v in out[:, 0]]

    def train_step(self, data, optimizer):
        loss = self(**data)
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    val_step = train_step


def build(
    work_dir, *, by_epoch=True, workers=0, accumulate=3, interval=1, checkpoint=None, sleep=0.0, amp=None
):
    """A runner, its loaders and its workflow."""
    set_random_seed(0)
    model = ToyModel()
    optimizer = build_optimizer(model, {"type": "SGD", "lr": 0.1, "momentum": 0.9})
    logger = logging.getLogger("toy")
    length = {"max_epochs": 3} if by_epoch else {"max_iters": 14}
    runner = build_runner(
        {"type": "EpochBasedRunner" if by_epoch else "IterBasedRunner", **length},
        {
            "model": model,
            "optimizer": optimizer,
            "work_dir": str(work_dir),
            "meta": {"seed": 0},
            "logger": logger,
        },
    )
    optimizer_config = {
        "type": "GradientCumulativeOptimizerHook",
        "cumulative_iters": accumulate,
        "grad_clip": {"max_norm": 1.0},
    }
    if amp is not None:
        optimizer_config["type"] = "GradientCumulativeFp16OptimizerHook"
        optimizer_config.update(amp)
    steps = {"step": [1] if by_epoch else [5]}
    runner.register_training_hooks(
        {"policy": "step", **steps, "warmup": "linear", "warmup_iters": 3, "warmup_ratio": 0.1},
        optimizer_config,
        {"interval": interval, "by_epoch": False, **(checkpoint or {})},
        {"interval": 2, "hooks": [{"type": "TextLoggerHook"}]},
    )
    runner.register_hook(EMAHook(momentum=0.1, warm_up=10), "ABOVE_NORMAL")
    data = DataLoader(ToyData(), batch_size=5, shuffle=True, num_workers=workers)
    test = DataLoader(ToyData(), batch_size=5)
    runner.register_hook(
        EvalHook(test, interval=1 if by_epoch else 4, by_epoch=by_epoch, save_best="acc"), "LOW"
    )
    if sleep:
        from cv.runner import ClosureHook

        runner.register_hook(ClosureHook("before_train_iter", lambda runner: time.sleep(sleep)))
    return runner, [data, data], [("train", 1 if by_epoch else 3), ("val", 1)]


def final_state(runner):
    """Everything that two equal runs must share, as one nested dict."""
    return {
        "model": runner.model.state_dict(),
        "optimizer": runner.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "best": runner.meta["hook_msgs"].get("best_score"),
        "iter": runner.iter,
        "epoch": runner.epoch,
    }


def run_in(work_dir, resume, started, options):
    """Train to the end, or go on from the latest checkpoint to it; leave the final state in a file."""
    os.environ["CV_LIVE_LINE"] = "0"
    torch.set_num_threads(1)
    log = logging.FileHandler(Path(work_dir, "messages.txt"))
    logging.getLogger("toy").addHandler(log)
    logging.getLogger("toy").setLevel(logging.INFO)
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - progress bars
    runner, loaders, workflow = build(work_dir, **options)
    latest = Path(work_dir, "latest.pth")
    if resume and latest.exists():
        runner.resume(str(latest))
    started.set()
    runner.run(loaders, workflow)
    with atomic_write(Path(work_dir, "final.pt")) as file:  # a kill may come here, too
        torch.save(final_state(runner), file)


def kill_while_saving(folder, in_the_middle, at_most=400):
    """Fork a process that saves without end, kill it, look at every file; again and again.

    Until so many kills came in the middle of a save: how often one does depends on the machine.
    """
    torch.set_num_threads(1)
    choose = random.Random(1)
    cut_short = 0
    save_checkpoint(nn.Linear(1, 1), f"{folder}/../warm_up.pth")
    for _ in range(at_most):
        if cut_short >= in_the_middle:
            break
        child = os.fork()
        if child == 0:
            _save_for_ever(folder)
        time.sleep(choose.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in folder.glob("*.pth"):  # latest.pth is one of them
            loaded = torch.load(path, weights_only=True)
            assert (loaded["state_dict"]["weight"] == loaded["meta"]["number"]).all()
        for left_over in folder.glob(".*.tmp"):
            cut_short += 1
            left_over.unlink()
    assert (folder / "latest.pth").exists()
    Path(folder, "cut_short.txt").write_text(str(cut_short))


def _save_for_ever(folder):
    model = nn.Linear(64, 64)
    number = 0
    while True:
        number += 1
        nn.init.constant_(model.weight, number)
        name = f"epoch_{number % 3}.pth"
        save_checkpoint(model, f"{folder}/{name}", meta={"number": number})
        link_latest(str(folder), name)
