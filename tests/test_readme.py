"""The README's examples run as they stand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
IMAGES, LAYERS, TRAINING = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def work_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_images() -> None:
    import cv.image

    rng = np.random.default_rng(0)
    cv.image.imwrite(rng.integers(0, 256, (120, 200, 3), dtype=np.uint8), "photo.jpg")
    names = run(IMAGES, mean=np.array([123.7, 116.3, 103.5]), std=np.array([58.4, 57.1, 57.4]))
    assert names["small"].shape == (800, 1333, 3)
    assert names["batch"].shape == (800, 1344, 3)
    assert cv.image.imread("out/turned.png").shape[0] > 120


def test_layers_and_operators() -> None:
    import torch

    rois = torch.tensor([[0, 8.0, 8.0, 40.0, 56.0], [1, 0.0, 0.0, 20.0, 20.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1])
    names = run(LAYERS, x=torch.randn(2, 64, 8, 8), rois=rois, boxes=boxes, scores=scores, labels=labels)
    assert names["pooled"].shape == (2, 128, 7, 7)
    assert names["kept"].tolist() == [0, 2]
    assert names["detections"].shape == (2, 5)


def test_training() -> None:
    import torch
    from torch import nn

    from cv.utils import get_logger

    Path("config.py").write_text(
        "runner = dict(type='EpochBasedRunner', max_epochs=2)\n"
        "optimizer = dict(type='SGD', lr=0.1)\n"
        "optimizer_config = dict(grad_clip=None)\n"
        "lr_config = dict(policy='step', step=[1])\n"
        "checkpoint_config = dict(interval=1)\n"
        "log_config = dict(interval=1, hooks=[dict(type='TextLoggerHook')])\n"
        "workflow = [('train', 1)]\n"
    )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def train_step(self, data: Any, optimizer: Any) -> dict[str, Any]:
            loss = (self.weight * data).pow(2).sum()
            return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data)}

    model = Model()
    loader = torch.utils.data.DataLoader(torch.ones(4, 3), batch_size=2)
    names = run(TRAINING, model=model, train_loader=loader, logger=get_logger("readme"))
    # Two steps at 0.01, two at 0.001: each takes 2 * 2 * lr * weight off.
    wanted = (1 - 0.04) ** 2 * (1 - 0.004) ** 2
    torch.testing.assert_close(model.weight.detach(), torch.full((3,), wanted))
    assert names["runner"].epoch == 2
    assert Path("work_dirs/mine/latest.pth").exists()


def run(code: str, **names: Any) -> dict[str, Any]:
    """Execute an example in which ``names`` are defined; return everything defined at its end."""
    exec(compile(code, "README.md", "exec"), names)
    return names
