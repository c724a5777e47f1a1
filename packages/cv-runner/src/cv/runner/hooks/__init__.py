"""Hooks: what happens around the loop."""

from cv.runner.hooks.checkpoint import CheckpointHook
from cv.runner.hooks.closure import ClosureHook
from cv.runner.hooks.ema import EMAHook
from cv.runner.hooks.evaluation import DistEvalHook, EvalHook
from cv.runner.hooks.fp16_optimizer import Fp16OptimizerHook, GradientCumulativeFp16OptimizerHook
from cv.runner.hooks.hook import HOOKS, Hook
from cv.runner.hooks.iter_timer import IterTimerHook
from cv.runner.hooks.logger import (
    DvcliveLoggerHook,
    LoggerHook,
    MlflowLoggerHook,
    NeptuneLoggerHook,
    PaviLoggerHook,
    TensorboardLoggerHook,
    TextLoggerHook,
    WandbLoggerHook,
)
from cv.runner.hooks.lr_updater import (
    CosineAnnealingLrUpdaterHook,
    CosineRestartLrUpdaterHook,
    CyclicLrUpdaterHook,
    ExpLrUpdaterHook,
    FixedLrUpdaterHook,
    FlatCosineAnnealingLrUpdaterHook,
    InvLrUpdaterHook,
    LinearAnnealingLrUpdaterHook,
    LrUpdaterHook,
    OneCycleLrUpdaterHook,
    PolyLrUpdaterHook,
    StepLrUpdaterHook,
)
from cv.runner.hooks.memory import EmptyCacheHook
from cv.runner.hooks.momentum_updater import (
    CosineAnnealingMomentumUpdaterHook,
    CyclicMomentumUpdaterHook,
    LinearAnnealingMomentumUpdaterHook,
    MomentumUpdaterHook,
    OneCycleMomentumUpdaterHook,
    StepMomentumUpdaterHook,
)
from cv.runner.hooks.optimizer import GradientCumulativeOptimizerHook, OptimizerHook
from cv.runner.hooks.profiler import ProfilerHook
from cv.runner.hooks.sampler_seed import DistSamplerSeedHook
from cv.runner.hooks.sync_buffer import SyncBuffersHook

__all__ = [
    "HOOKS",
    "Hook",
    "CheckpointHook",
    "ClosureHook",
    "DistEvalHook",
    "DistSamplerSeedHook",
    "EMAHook",
    "EmptyCacheHook",
    "EvalHook",
    "Fp16OptimizerHook",
    "GradientCumulativeFp16OptimizerHook",
    "GradientCumulativeOptimizerHook",
    "IterTimerHook",
    "OptimizerHook",
    "ProfilerHook",
    "SyncBuffersHook",
    # loggers
    "DvcliveLoggerHook",
    "LoggerHook",
    "MlflowLoggerHook",
    "NeptuneLoggerHook",
    "PaviLoggerHook",
    "TensorboardLoggerHook",
    "TextLoggerHook",
    "WandbLoggerHook",
    # learning rate
    "CosineAnnealingLrUpdaterHook",
    "CosineRestartLrUpdaterHook",
    "CyclicLrUpdaterHook",
    "ExpLrUpdaterHook",
    "FixedLrUpdaterHook",
    "FlatCosineAnnealingLrUpdaterHook",
    "InvLrUpdaterHook",
    "LinearAnnealingLrUpdaterHook",
    "LrUpdaterHook",
    "OneCycleLrUpdaterHook",
    "PolyLrUpdaterHook",
    "StepLrUpdaterHook",
    # momentum
    "CosineAnnealingMomentumUpdaterHook",
    "CyclicMomentumUpdaterHook",
    "LinearAnnealingMomentumUpdaterHook",
    "MomentumUpdaterHook",
    "OneCycleMomentumUpdaterHook",
    "StepMomentumUpdaterHook",
]
