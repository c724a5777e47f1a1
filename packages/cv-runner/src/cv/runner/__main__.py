"""``python -m cv.runner train CONFIG``, ``… test CONFIG CHECKPOINT`` and ``… merge FOLDER FILE``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import distributed as dist

from cv.runner.dist_utils import init_dist
from cv.runner.sharded_checkpoint import merge_sharded_checkpoint
from cv.runner.train import test_from_config, train_from_config
from cv.utils import Config, DictAction


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    if args.command == "merge":
        merge_sharded_checkpoint(args.folder, args.file)
        return
    # Modules that the config names in custom_imports are found beside where the command is run.
    sys.path.insert(0, str(Path.cwd()))
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if args.launcher != "none":
        init_dist(args.launcher, **cfg.get("dist_params", {}))
    if args.command == "train":
        _train(cfg, args)
    else:
        metrics = test_from_config(cfg, args.checkpoint)
        if metrics is not None:
            print()  # noqa: T201 - after the progress bar
            print(json.dumps(metrics, default=float))  # noqa: T201 - the command's result
    if args.launcher != "none":
        dist.destroy_process_group()


def _train(cfg: Config, args: argparse.Namespace) -> None:
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs", Path(args.config).stem))
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    cfg.dump(str(Path(cfg.work_dir, Path(args.config).name)))
    train_from_config(cfg, resume=args.resume, amp=args.amp)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cv.runner", description="Train and test from a config.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model")
    train.add_argument("config", help="config file (.py, .json or .yaml)")
    train.add_argument("--work-dir", help="folder for logs and checkpoints; work_dirs/<config's name>")
    train.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from a checkpoint; alone or with 'auto', from the latest in the work dir, if any",
    )
    train.add_argument(
        "--amp",
        action="store_true",
        help="train in mixed precision: float16 with a dynamic loss scale on a GPU, bfloat16 without one on"
        " a CPU; the config's fp16 comes first",
    )
    test = commands.add_parser("test", help="evaluate a checkpoint on the test split")
    test.add_argument("config", help="config file (.py, .json or .yaml)")
    test.add_argument("checkpoint", help="path or URI of the checkpoint")
    merge = commands.add_parser("merge", help="write a sharded checkpoint as one ordinary file")
    merge.add_argument("folder", help="the sharded checkpoint")
    merge.add_argument("file", help="path or URI of the file")
    for command in (train, test):
        command.add_argument(
            "--cfg-options",
            nargs="+",
            action=DictAction,
            metavar="KEY=VALUE",
            help="change the config: optimizer.lr=0.001 data.samples_per_gpu=8",
        )
        command.add_argument(
            "--launcher",
            choices=["none", "pytorch", "slurm", "mpi"],
            default="none",
            help="what started this process as one of several",
        )
    return parser


if __name__ == "__main__":
    main()
