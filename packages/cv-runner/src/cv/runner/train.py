"""Train and test from a config: the script that every project writes, once.

The config has the keys that projects for mmcv 1.x use: ``model``, ``data`` (``samples_per_gpu``,
``workers_per_gpu``, ``train``, ``val``, ``test``), ``optimizer``, ``optimizer_config``, ``lr_config``,
``momentum_config``, ``checkpoint_config``, ``log_config``, ``custom_hooks``, ``evaluation``, ``runner`` (or
``total_epochs``), ``workflow``, ``fp16``, ``seed``, ``deterministic``, ``work_dir``, ``load_from``,
``resume_from``, ``find_unused_parameters``, ``log_level`` (of the log; a name such as ``'INFO'``). Models
are built from ``cv.cnn.MODELS``, datasets from :data:`DATASETS`; ``custom_imports`` names the modules that
register them.

How ranks share the work is ``parallel``: by default, every rank has the whole model
(:class:`~cv.parallel.MMDistributedDataParallel`). ``parallel=dict(type='FSDP', wrap=['Bottleneck'])`` shards
it over them (:class:`~cv.parallel.MMFullyShardedDataParallel`, whose arguments are the other keys);
checkpoints are then folders that all ranks write. A single process without a launcher trains the same config
with the whole model.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from cv.cnn import MODELS, build_model_from_cfg
from cv.engine import multi_gpu_test, single_gpu_test
from cv.parallel import MMDataParallel, MMDistributedDataParallel, MMFullyShardedDataParallel, collate
from cv.runner.builder import build_runner
from cv.runner.checkpoint import load_checkpoint
from cv.runner.dist_utils import get_dist_info
from cv.runner.hooks import DistEvalHook, DistSamplerSeedHook, EvalHook
from cv.runner.optimizer import build_optimizer
from cv.runner.utils import set_random_seed
from cv.utils import Config, Registry, get_logger

#: Datasets by name, for the command line.
DATASETS = Registry("dataset", entry_point_group="cv.runner.datasets")


def train_from_config(cfg: Config, *, resume: str | None = None, amp: bool = False) -> Any:
    """Train as a config says; in a distributed job, call it on every rank.

    Args:
        cfg: the config, with ``work_dir``.
        resume: checkpoint to go on from; ``'auto'`` takes the latest in the work dir, if there is one.
        amp: train in mixed precision: on a GPU in float16 with a dynamic loss scale, on a CPU in bfloat16,
            which needs none. What the config's ``fp16`` or ``optimizer_config`` says comes first.

    Returns:
        The runner, when training is over.
    """
    distributed = get_dist_info()[1] > 1
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    timestamp = time.strftime("%Y%m%d_%H%M%S")
    logger = get_logger(
        "cv.runner", log_file=Path(cfg.work_dir, f"{timestamp}.log"), log_level=cfg.get("log_level", "INFO")
    )
    seed = cfg.get("seed", 0)
    set_random_seed(seed, deterministic=cfg.get("deterministic", False))
    model = build_model(cfg)
    wrapped = wrap_model(model, cfg)  # before the optimizer is built: sharding makes other parameters
    runner = build_runner(
        cfg.get("runner") or {"type": "EpochBasedRunner", "max_epochs": cfg.total_epochs},
        {
            "model": wrapped,
            "optimizer": build_optimizer(model, cfg.optimizer),
            "work_dir": cfg.work_dir,
            "logger": logger,
            "meta": {"seed": seed, "config": cfg.pretty_text, "exp_name": Path(cfg.work_dir).name},
        },
    )
    runner.timestamp = timestamp
    runner.register_training_hooks(
        cfg.get("lr_config"),
        optimizer_config(cfg, amp=amp),
        cfg.get("checkpoint_config", {"interval": 1}),
        cfg.get("log_config", {"interval": 50, "hooks": [{"type": "TextLoggerHook"}]}),
        cfg.get("momentum_config"),
        custom_hooks_config=cfg.get("custom_hooks"),
    )
    if distributed:
        runner.register_hook(DistSamplerSeedHook())
    if "evaluation" in cfg and "val" in cfg.data:
        hook = DistEvalHook if distributed else EvalHook
        by_epoch = type(runner).__name__ != "IterBasedRunner"
        options = {"by_epoch": by_epoch, **cfg.evaluation}
        runner.register_hook(hook(build_loader(cfg, "val"), **options), "LOW")
    _begin_from(runner, cfg, resume, logger)
    workflow = [tuple(entry) for entry in cfg.get("workflow", [("train", 1)])]
    loaders = [build_loader(cfg, mode) for mode, _ in workflow]
    set_random_seed(seed, use_rank_shift=True)  # ranks augment differently; their weights are equal
    runner.run(loaders, workflow)
    return runner


def test_from_config(cfg: Config, checkpoint: str) -> dict[str, Any] | None:
    """Evaluate a checkpoint on the test split; in a distributed job, call it on every rank.

    Args:
        cfg: the config.
        checkpoint: path or URI of the checkpoint.

    Returns:
        What the dataset's ``evaluate`` returns, on rank 0.
    """
    model = build_model(cfg)
    load_checkpoint(model, checkpoint, map_location="cpu")
    wrapped = wrap_model(model, cfg)
    loader = build_loader(cfg, "test")
    if get_dist_info()[1] > 1:
        results = multi_gpu_test(wrapped, loader)
    else:
        results = single_gpu_test(wrapped, loader)
    if results is None:
        return None
    options = {k: v for k, v in cfg.get("evaluation", {}).items() if k not in _HOOK_OPTIONS}
    metrics: dict[str, Any] = loader.dataset.evaluate(results, **options)  # type: ignore[attr-defined]
    return metrics


# What `evaluation` holds for the hook, and not for the dataset.
_HOOK_OPTIONS = frozenset(
    [
        "interval",
        "start",
        "by_epoch",
        "save_best",
        "rule",
        "greater_keys",
        "less_keys",
        "tmpdir",
        "gpu_collect",
    ]
)


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, with its weights initialised, on this process's device."""
    model: nn.Module = build_model_from_cfg(cfg.model, MODELS)
    if hasattr(model, "init_weights"):
        model.init_weights()  # type: ignore[operator] # of BaseModule and its kin
    return model.to(_device())


def wrap_model(model: nn.Module, cfg: Config) -> nn.Module:
    """The model as it is trained: over ranks where there are several, else on one device."""
    device = _device()
    parallel = dict(cfg.get("parallel") or {"type": "DDP"})
    kind = parallel.pop("type", None)
    if kind not in ("DDP", "FSDP"):
        raise ValueError(f"parallel must have the type 'DDP' or 'FSDP', got {kind!r}")
    if kind == "FSDP" and dist.is_initialized():
        return MMFullyShardedDataParallel(model, **parallel)
    if get_dist_info()[1] > 1:
        ids = [device.index] if device.type == "cuda" else None
        options = {
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **parallel,
        }
        return MMDistributedDataParallel(model, device_ids=ids, **options)
    return MMDataParallel(model, device_ids=[device.index if device.type == "cuda" else -1])


def build_loader(cfg: Config, split: str) -> DataLoader[Any]:
    """Batches of one split (``train``, ``val`` or ``test``); shuffled for training."""
    dataset = DATASETS.build(dict(cfg.data[split]))
    shuffle = split == "train"
    distributed = get_dist_info()[1] > 1
    sampler: DistributedSampler[Any] | None = (
        DistributedSampler(dataset, shuffle=shuffle, seed=cfg.get("seed", 0) or 0) if distributed else None
    )
    batch = cfg.data.samples_per_gpu
    return DataLoader(
        dataset,
        batch_size=batch,
        shuffle=shuffle and sampler is None,
        sampler=sampler,
        num_workers=cfg.data.get("workers_per_gpu", 0),
        collate_fn=partial(collate, samples_per_gpu=batch),
        pin_memory=torch.cuda.is_available(),
    )


def optimizer_config(cfg: Config, *, amp: bool) -> dict[str, Any]:
    """The optimizer hook's config, in mixed precision where ``fp16`` or ``amp`` asks for it."""
    config = dict(cfg.get("optimizer_config") or {})
    fp16 = cfg.get("fp16")
    if fp16 is None and not amp:
        return config
    cumulative = "cumulative_iters" in config
    config["type"] = "GradientCumulativeFp16OptimizerHook" if cumulative else "Fp16OptimizerHook"
    if fp16 is None and config.keys().isdisjoint(["dtype", "loss_scale"]) and _device().type == "cpu":
        return {"dtype": "bfloat16", **config}
    return {"loss_scale": "dynamic", **config, **(fp16 or {})}


def _begin_from(runner: Any, cfg: Config, resume: str | None, logger: logging.Logger) -> None:
    latest = Path(cfg.work_dir, "latest.pth")
    if resume == "auto":
        resume = str(latest) if latest.exists() else None
        if resume is None:
            logger.info("There is no %s to resume from: training begins anew.", latest)
    resume = resume or cfg.get("resume_from")
    if resume:
        runner.resume(resume)
    elif cfg.get("load_from"):
        runner.load_checkpoint(cfg.load_from)


def _device() -> torch.device:
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
