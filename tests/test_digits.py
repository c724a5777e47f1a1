"""The example project end to end, in small: every package at work, and a killed training that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

for module in ("sklearn", "skimage", "matplotlib", "tensorboard"):
    pytest.importorskip(module, reason=f"the digits example needs {module}")

ROOT = Path(__file__).parents[1]
SMALL = (
    *("total_epochs=2", "log_config.interval=2", "video.seconds=0.4"),
    *("data.train.length=24", "data.val.length=4", "data.test.length=15"),
    *("data.samples_per_gpu=4", "data.workers_per_gpu=0"),
)


def start(work_dir: Path, *flags: str) -> subprocess.Popen[str]:
    """Start the example with a training of a few seconds."""
    command = [
        sys.executable,
        "examples/digits/main.py",
        "--work-dir",
        str(work_dir),
        *flags,
        "--cfg-options",
        *SMALL,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread: the same sums in the same order
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the example to end well and return what it printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The work directory of an undisturbed run, and its output."""
    folder = tmp_path_factory.mktemp("digits") / "whole"
    return folder, finish(start(folder))


def test_it_leaves_what_it_promises(whole: tuple[Path, str]) -> None:
    import cv.image
    import cv.video

    folder, output = whole
    assert "AP50 on 15 test scenes" in output
    assert cv.image.imread(folder / "detections.png").shape == (3 * 262, 5 * 262, 3)
    assert cv.image.imread(folder / "curves.png").size
    assert list((folder / "tf_logs").glob("events.*"))
    with cv.video.VideoReader(str(folder / "annotated.mp4")) as video:
        assert len(video) == 6
        assert video.resolution == (640, 480)
    records = [json.loads(line) for line in next(folder.glob("*.log.json")).read_text().splitlines()]
    assert [r["epoch"] for r in records if "AP50" in r] == [1, 2]
    assert {"loss", "lr", "grad_norm"} <= next(r for r in records if r.get("mode") == "train").keys()


def test_a_killed_training_goes_on_to_the_same_end(whole: tuple[Path, str], tmp_path: Path) -> None:
    process = start(tmp_path)
    give_up = time.monotonic() + 300
    while not (tmp_path / "latest.pth").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "epoch_2.pth").exists(), "the kill came too late to test anything"

    finish(start(tmp_path, "--resume"))
    assert_same(load(whole[0] / "epoch_2.pth"), load(tmp_path / "epoch_2.pth"))


def load(path: Path) -> dict[str, Any]:
    """Weights and optimizer state of a checkpoint."""
    import torch

    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    return {"state_dict": checkpoint["state_dict"], "optimizer": checkpoint["optimizer"]}


def assert_same(wanted: Any, found: Any) -> None:
    """Equality to the last bit, through nested containers."""
    import torch

    if isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    elif isinstance(wanted, dict):
        assert wanted.keys() == found.keys()
        for key in wanted:
            assert_same(wanted[key], found[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(wanted) == len(found)
        for one, other in zip(wanted, found, strict=True):
            assert_same(one, other)
    else:
        assert wanted == found
