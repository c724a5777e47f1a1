"""Loggers: text, TensorBoard and metrics services."""

from cv.runner.hooks.logger.base import LoggerHook
from cv.runner.hooks.logger.tensorboard import TensorboardLoggerHook
from cv.runner.hooks.logger.text import TextLoggerHook

__all__ = ["LoggerHook", "TensorboardLoggerHook", "TextLoggerHook"]
