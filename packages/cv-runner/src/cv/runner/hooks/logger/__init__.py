"""Loggers: text, TensorBoard and metrics services."""

from cv.runner.hooks.logger.base import LoggerHook
from cv.runner.hooks.logger.dvclive import DvcliveLoggerHook
from cv.runner.hooks.logger.mlflow import MlflowLoggerHook
from cv.runner.hooks.logger.neptune import NeptuneLoggerHook
from cv.runner.hooks.logger.pavi import PaviLoggerHook
from cv.runner.hooks.logger.tensorboard import TensorboardLoggerHook
from cv.runner.hooks.logger.text import TextLoggerHook
from cv.runner.hooks.logger.wandb import WandbLoggerHook

__all__ = [
    "DvcliveLoggerHook",
    "LoggerHook",
    "MlflowLoggerHook",
    "NeptuneLoggerHook",
    "PaviLoggerHook",
    "TensorboardLoggerHook",
    "TextLoggerHook",
    "WandbLoggerHook",
]
