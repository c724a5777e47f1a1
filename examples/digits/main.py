"""Train, evaluate and use a detector of handwritten digits: ``python examples/digits/main.py``.

It goes through every package as a project of its users would; ``README.md`` beside this file tells how.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from digits import pictures
from digits.detector import Detections
from digits.scenes import MEAN, STD
from numpy.typing import NDArray
from torch import nn

import cv.image
from cv.engine import single_gpu_test
from cv.runner import load_checkpoint
from cv.runner.train import build_loader, train_from_config
from cv.utils import Config, DictAction

HERE = Path(__file__).parent


def main() -> None:
    args = parse_arguments()
    start = time.time()
    cfg = Config.fromfile(str(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = str(args.work_dir)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    cfg.dump(str(args.work_dir / "config.py"))
    runner = train_from_config(cfg, resume="auto" if args.resume else None)
    trained = time.time()

    # What counts is the checkpoint that was best in validation, read back as a user would, on the test split.
    checkpoint = runner.meta["hook_msgs"]["best_ckpt"]
    model = runner.model
    load_checkpoint(model, checkpoint, map_location="cpu")
    test_loader = build_loader(cfg, "test")
    results: list[Detections] = single_gpu_test(model, test_loader)
    ap = test_loader.dataset.evaluate(results)["AP50"]

    print("\ndetecting digits in a video")
    pictures.grid(test_loader.dataset, results, args.work_dir / "detections.png")
    logs = sorted(args.work_dir.glob("*.log.json" if args.resume else f"{runner.timestamp}.log.json"))
    pictures.curves(logs, args.work_dir / "curves.png")
    pictures.moving_digits(args.work_dir / "moving.mp4", **cfg.video)
    middle = pictures.annotate_video(
        args.work_dir / "moving.mp4", args.work_dir / "annotated.mp4", lambda frame: detect(model, frame)
    )
    cv.image.imwrite(middle, args.work_dir / "annotated_frame.png")

    print(f"AP50 on {len(results)} test scenes: {ap:.4f}  ({Path(checkpoint).name})")
    print(f"time: {trained - start:.0f} s of training, {time.time() - start:.0f} s in all")
    for name in ("detections.png", "curves.png", "annotated.mp4", "annotated_frame.png", logs[-1].name):
        print(f"  {args.work_dir / name}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=HERE / "config.py")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/digits"), help="where everything goes"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of the work dir"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="change the config: optimizer.lr=0.001 total_epochs=2",
    )
    return parser.parse_args()


@torch.no_grad()
def detect(model: nn.Module, image: NDArray[np.uint8]) -> Detections:
    """Detections in one BGR picture whose sides are multiples of 8."""
    pixels = cv.image.imnormalize(image, MEAN, STD, to_rgb=True)
    batch = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    model.eval()
    found: list[Detections] = model(img=batch, return_loss=False)
    return found[0]


if __name__ == "__main__":
    main()
