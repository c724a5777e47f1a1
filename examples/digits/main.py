"""Train, evaluate and use a detector of handwritten digits: ``python examples/digits/main.py``.

It goes through every package as a project of its users would; ``README.md`` beside this file tells how.
"""

from __future__ import annotations

import argparse
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits import pictures
from digits.detector import Detections
from digits.scenes import CLASSES, DATASETS, MEAN, STD
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

import cv.image
from cv.cnn import MODELS, build_model_from_cfg
from cv.engine import single_gpu_test
from cv.parallel import MMDataParallel, collate
from cv.runner import EvalHook, build_optimizer, build_runner, load_checkpoint, set_random_seed
from cv.utils import Config, DictAction, build_from_cfg, get_logger

HERE = Path(__file__).parent


def main() -> None:
    args = parse_arguments()
    start = time.time()
    cfg = Config.fromfile(str(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    args.work_dir.mkdir(parents=True, exist_ok=True)
    cfg.dump(str(args.work_dir / "config.py"))
    set_random_seed(cfg.seed)
    timestamp = time.strftime("%Y%m%d_%H%M%S")
    logger = get_logger("digits", log_file=str(args.work_dir / f"{timestamp}.log"))

    device_ids = [0] if torch.cuda.is_available() else [-1]
    model = build_model_from_cfg(cfg.model, MODELS)
    model.init_weights()
    model.CLASSES = CLASSES
    model = MMDataParallel(model.to("cuda:0" if device_ids == [0] else "cpu"), device_ids=device_ids)
    train(model, cfg, args, logger, timestamp)
    trained = time.time()

    # What counts is the checkpoint that was best in validation, read back as a user would, on the test split.
    checkpoint = max(args.work_dir.glob("best_AP50_epoch_*.pth"), key=lambda path: path.stat().st_mtime)
    load_checkpoint(model.module, str(checkpoint), map_location="cpu")
    test_loader = make_loader(cfg, "test")
    results: list[Detections] = single_gpu_test(model, test_loader)
    print()
    ap = test_loader.dataset.evaluate(results)["AP50"]
    pictures.grid(test_loader.dataset, results, args.work_dir / "detections.png")
    logs = (
        sorted(args.work_dir.glob("*.log.json")) if args.resume else [args.work_dir / f"{timestamp}.log.json"]
    )
    pictures.curves(logs, args.work_dir / "curves.png")
    pictures.moving_digits(args.work_dir / "moving.mp4", **cfg.video)
    middle = pictures.annotate_video(
        args.work_dir / "moving.mp4", args.work_dir / "annotated.mp4", lambda frame: detect(model, frame)
    )
    cv.image.imwrite(middle, args.work_dir / "annotated_frame.png")

    print(f"AP50 on {len(results)} test scenes: {ap:.4f}  ({checkpoint.name})")
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
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE",
                        help="change the config: optimizer.lr=0.001 total_epochs=2")  # fmt: skip
    return parser.parse_args()


def make_loader(cfg: Config, split: str) -> DataLoader[dict[str, Any]]:
    """Batches of one split; shuffled for training."""
    batch = cfg.data.samples_per_gpu
    return DataLoader(
        build_from_cfg(cfg.data[split], DATASETS),
        batch_size=batch,
        shuffle=split == "train",
        num_workers=cfg.data.workers_per_gpu,
        persistent_workers=cfg.data.workers_per_gpu > 0,
        collate_fn=partial(collate, samples_per_gpu=batch),
    )


def train(
    model: nn.Module,
    cfg: Config,
    args: argparse.Namespace,
    logger: logging.Logger,
    timestamp: str,
) -> None:
    """Train to the end, resuming if asked."""
    runner = build_runner(
        dict(type="EpochBasedRunner", max_epochs=cfg.total_epochs),
        default_args=dict(
            model=model,
            optimizer=build_optimizer(model, cfg.optimizer),
            work_dir=str(args.work_dir),
            logger=logger,
            meta=dict(seed=cfg.seed, config=cfg.pretty_text),
        ),
    )
    runner.timestamp = timestamp
    runner.register_training_hooks(cfg.lr_config, cfg.optimizer_config, cfg.checkpoint_config, cfg.log_config)
    runner.register_hook(EvalHook(make_loader(cfg, "val"), **cfg.evaluation), priority="LOW")
    if args.resume:
        runner.resume(str(args.work_dir / "latest.pth"))
    runner.run([make_loader(cfg, "train")], cfg.workflow)


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
