"""Optimizers from configs, with settings per parameter."""

from cv.runner.optimizer.builder import (
    OPTIMIZER_BUILDERS,
    OPTIMIZERS,
    build_optimizer,
    build_optimizer_constructor,
)
from cv.runner.optimizer.default_constructor import DefaultOptimizerConstructor

__all__ = [
    "OPTIMIZER_BUILDERS",
    "OPTIMIZERS",
    "DefaultOptimizerConstructor",
    "build_optimizer",
    "build_optimizer_constructor",
]
