"""Hook-driven training loops that stop and resume exactly."""

from cv.runner.base_module import BaseModule, ModuleDict, ModuleList, Sequential
from cv.runner.base_runner import BaseRunner
from cv.runner.builder import RUNNER_BUILDERS, RUNNERS, build_runner
from cv.runner.checkpoint import (
    CheckpointLoader,
    _load_checkpoint,
    _load_checkpoint_with_prefix,
    load_checkpoint,
    load_state_dict,
    save_checkpoint,
    save_safetensors,
    weights_to_cpu,
)
from cv.runner.default_constructor import DefaultRunnerConstructor
from cv.runner.dist_utils import allreduce_grads, allreduce_params, get_dist_info, init_dist, master_only
from cv.runner.epoch_based_runner import EpochBasedRunner, Runner
from cv.runner.fp16_utils import LossScaler, auto_fp16, force_fp32, wrap_fp16_model
from cv.runner.hooks import *  # noqa: F403 - the export list of hooks is part of this one
from cv.runner.hooks import __all__ as _hooks
from cv.runner.interrupt import TrainingInterrupted
from cv.runner.iter_based_runner import IterBasedRunner, IterLoader
from cv.runner.log_buffer import LogBuffer
from cv.runner.optimizer import (
    OPTIMIZER_BUILDERS,
    OPTIMIZERS,
    DefaultOptimizerConstructor,
    build_optimizer,
    build_optimizer_constructor,
)
from cv.runner.priority import Priority, get_priority
from cv.runner.sharded_checkpoint import merge_sharded_checkpoint, save_sharded_checkpoint
from cv.runner.utils import get_host_info, get_time_str, obj_from_dict, set_random_seed

__all__ = [
    # runners
    "BaseRunner",
    "DefaultRunnerConstructor",
    "EpochBasedRunner",
    "IterBasedRunner",
    "IterLoader",
    "LogBuffer",
    "RUNNERS",
    "RUNNER_BUILDERS",
    "Runner",
    "TrainingInterrupted",
    "build_runner",
    # hooks
    *_hooks,
    "Priority",
    "get_priority",
    # checkpoints
    "CheckpointLoader",
    "_load_checkpoint",
    "_load_checkpoint_with_prefix",
    "load_checkpoint",
    "load_state_dict",
    "merge_sharded_checkpoint",
    "save_checkpoint",
    "save_sharded_checkpoint",
    "save_safetensors",
    "weights_to_cpu",
    # modules
    "BaseModule",
    "ModuleDict",
    "ModuleList",
    "Sequential",
    # optimizers
    "DefaultOptimizerConstructor",
    "OPTIMIZERS",
    "OPTIMIZER_BUILDERS",
    "build_optimizer",
    "build_optimizer_constructor",
    # mixed precision
    "LossScaler",
    "auto_fp16",
    "force_fp32",
    "wrap_fp16_model",
    # distributed
    "allreduce_grads",
    "allreduce_params",
    "get_dist_info",
    "init_dist",
    "master_only",
    # other
    "get_host_info",
    "get_time_str",
    "obj_from_dict",
    "set_random_seed",
]
