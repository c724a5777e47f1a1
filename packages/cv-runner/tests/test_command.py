"""``python -m cv.runner``, on a small project in a folder of its own."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cv.runner.__main__ import main
from cv.runner.train import optimizer_config
from cv.utils import Config

PROJECT = """
import torch
from torch import nn
from torch.utils.data import Dataset
from cv.cnn import MODELS
from cv.runner.train import DATASETS


@DATASETS.register_module()
class CommandLine_Points(Dataset):
    def __init__(self, size):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(size, 3, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.x[index].sum(0, keepdim=True)}

    def evaluate(self, results, logger=None, scale=1):
        error = sum(abs(r - float(y)) for r, y in zip(results, self.x.sum(1))) / len(results)
        return {"error": error * scale}


@MODELS.register_module()
class CommandLine_Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x, y=None, return_loss=True):
        out = self.layer(x)
        return (out - y).square().mean() if return_loss else [float(v) for v in out]

    def train_step(self, data, optimizer):
        loss = self(**data)
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    val_step = train_step
"""

CONFIG = """
custom_imports = dict(imports=["NAME"])
model = dict(type="CommandLine_Net")
data = dict(
    samples_per_gpu=8,
    train=dict(type="CommandLine_Points", size=64),
    val=dict(type="CommandLine_Points", size=16),
    test=dict(type="CommandLine_Points", size=24),
)
optimizer = dict(type="SGD", lr=0.1)
optimizer_config = dict(grad_clip=dict(max_norm=1.0))
lr_config = dict(policy="step", step=[3])
total_epochs = 4
evaluation = dict(interval=2, save_best="error", scale=2)
log_config = dict(interval=4, hooks=[dict(type="TextLoggerHook")])
checkpoint_config = dict(interval=1)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "toy_project.py").write_text(PROJECT)
    (folder / "config.py").write_text(CONFIG.replace("NAME", "toy_project"))
    return folder


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return project


def test_train_resume_and_test(inside, tmp_path, capsys):
    options = ["--work-dir", str(tmp_path)]
    main(["train", "config.py", *options, "--cfg-options", "total_epochs=2"])
    assert (tmp_path / "latest.pth").readlink().name == "epoch_2.pth"
    main(["train", "config.py", *options, "--resume"])
    checkpoint = torch.load(tmp_path / "epoch_4.pth")
    assert checkpoint["meta"]["epoch"] == 4
    assert "CommandLine_Net" in checkpoint["meta"]["config"]
    assert len(list(tmp_path.glob("best_error_epoch_*.pth"))) == 1
    assert "total_epochs = 4" in (tmp_path / "config.py").read_text()
    capsys.readouterr()
    main(["test", "config.py", str(tmp_path / "latest.pth")])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] < 0.5

    main(["train", "config.py", "--work-dir", str(tmp_path / "whole")])
    whole = torch.load(tmp_path / "whole" / "epoch_4.pth")
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, checkpoint["state_dict"][name])


def test_resume_auto_without_a_checkpoint_begins_anew(inside, tmp_path):
    main(
        [
            "train",
            "config.py",
            "--work-dir",
            str(tmp_path),
            "--resume",
            "auto",
            "--cfg-options",
            "total_epochs=1",
        ]
    )
    assert (tmp_path / "epoch_1.pth").exists()


@pytest.mark.parametrize(
    ("options", "dtype", "scaled"),
    [
        (["--amp"], torch.bfloat16, False),  # a CPU has no float16 arithmetic worth the scaling
        (["--amp", "optimizer_config.cumulative_iters=2"], torch.bfloat16, False),
        (["--amp", "optimizer_config.dtype=float16"], torch.float16, True),
        (["--amp", "optimizer_config.loss_scale=8.0"], torch.float16, True),
        (["--amp", "fp16.loss_scale=8.0"], torch.float16, True),  # the config's own word
        (["fp16.loss_scale=dynamic"], torch.float16, True),
        (["--amp", "fp16.dtype=bfloat16"], torch.bfloat16, False),
    ],
)
def test_mixed_precision_on_a_cpu(inside, tmp_path, monkeypatch, options, dtype, scaled):
    monkeypatch.setattr("cv.runner.train._device", lambda: torch.device("cpu"))
    seen = set()
    forward = nn.Linear.forward

    def watched(self, x):
        out = forward(self, x)
        seen.add(out.dtype)
        return out

    monkeypatch.setattr(nn.Linear, "forward", watched)
    changes = [option for option in options if "=" in option]
    flags = [option for option in options if "=" not in option]
    run = ["--work-dir", str(tmp_path), *flags, "--cfg-options", "log_config.interval=1", *changes]
    main(["train", "config.py", *run, "total_epochs=1", "evaluation.interval=5"])
    assert seen == {dtype}
    assert ("fp16" in torch.load(tmp_path / "epoch_1.pth")["meta"]) is scaled
    if not scaled:
        (log,) = tmp_path.glob("*.log.json")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        norms = [line["grad_norm"] for line in lines if "grad_norm" in line]
        assert norms
        assert all(math.isfinite(norm) for norm in norms)


def test_mixed_precision_on_a_gpu_is_float16(monkeypatch):
    monkeypatch.setattr("cv.runner.train._device", lambda: torch.device("cuda", 0))
    assert optimizer_config(Config(), amp=True) == {"type": "Fp16OptimizerHook", "loss_scale": "dynamic"}


def test_iterations(inside, tmp_path):
    options = ["runner.type=IterBasedRunner", "runner.max_iters=6", "checkpoint_config.interval=3"]
    main(["train", "config.py", "--work-dir", str(tmp_path), "--cfg-options", *options])
    assert (tmp_path / "iter_6.pth").exists()


def test_help_and_errors(capsys):
    with pytest.raises(SystemExit):
        main(["train"])
    assert "the following arguments are required: config" in capsys.readouterr().err


def test_two_ranks_under_torchrun(project, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run(
        [*command, "cv.runner", "train", "config.py", "--launcher", "pytorch", "--work-dir", str(tmp_path)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "latest.pth")["resume"]["world_size"] == 2


def test_sharded_over_two_ranks_and_tested_by_one(project, tmp_path, capsys, monkeypatch):
    """The same config in three ways: sharded, gone on from the folder in one process, and merged."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    options = ["--work-dir", str(tmp_path), "--cfg-options", "parallel.type=FSDP", "total_epochs=2"]
    done = subprocess.run(
        [*command, "cv.runner", "train", "config.py", "--launcher", "pytorch", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "latest.pth").is_dir()

    monkeypatch.chdir(project)
    main(["merge", str(tmp_path / "epoch_2.pth"), str(tmp_path / "merged.pth")])
    metrics = []
    for checkpoint in ("epoch_2.pth", "merged.pth"):
        main(["test", "config.py", str(tmp_path / checkpoint), "--cfg-options", "parallel.type=FSDP"])
        metrics.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert metrics[0] == metrics[1]
    main(["train", "config.py", "--resume", *options[:-1], "total_epochs=3"])
    assert torch.load(tmp_path / "epoch_3.pth")["meta"]["epoch"] == 3

    with pytest.raises(ValueError, match="parallel must have the type 'DDP' or 'FSDP', got 'fsdp2'"):
        main(["train", "config.py", *options[:-2], "parallel.type=fsdp2"])
