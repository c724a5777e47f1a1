"""What all logger hooks share."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cv.runner.hooks.hook import Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


class LoggerHook(Hook):
    """Base class of logger hooks; a logger implements ``log(runner)``, called when there is something.

    Args:
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        by_epoch: the runner is epoch-based.
    """

    def __init__(
        self, interval: int = 10, ignore_last: bool = True, reset_flag: bool = False, by_epoch: bool = True
    ) -> None:
        self.interval = interval
        self.ignore_last = ignore_last
        self.reset_flag = reset_flag
        self.by_epoch = by_epoch

    @abstractmethod
    def log(self, runner: BaseRunner) -> Any:
        """Write what is in ``runner.log_buffer.output``."""

    @staticmethod
    def is_scalar(val: Any, include_np: bool = True, include_torch: bool = True) -> bool:
        """Tell whether a value is a scalar.

        Args:
            val: the value.
            include_np: a 0-d ``np.ndarray`` is one.
            include_torch: a tensor with one element is one.
        """
        if isinstance(val, numbers.Number):
            return True
        if include_np and isinstance(val, np.ndarray) and val.ndim == 0:
            return True
        return bool(include_torch and isinstance(val, torch.Tensor) and val.numel() == 1)

    def get_mode(self, runner: BaseRunner) -> str:
        """``'train'``, or ``'val'`` for validation and for what an evaluation hook put into the log."""
        if runner.mode == "train":
            return "train" if "time" in runner.log_buffer.output else "val"
        if runner.mode == "val":
            return "val"
        raise ValueError(f"runner mode should be 'train' or 'val', but got {runner.mode}")

    def get_epoch(self, runner: BaseRunner) -> int:
        """The epoch to log, counted from 1; validation follows an epoch that has been counted."""
        if runner.mode == "train":
            return runner.epoch + 1
        if runner.mode == "val":
            return runner.epoch
        raise ValueError(f"runner mode should be 'train' or 'val', but got {runner.mode}")

    def get_iter(self, runner: BaseRunner, inner_iter: bool = False) -> int:
        """Get the current training iteration step, counted from 1.

        Args:
            runner: the runner.
            inner_iter: within the epoch, if the runner is epoch-based.
        """
        return (runner.inner_iter if self.by_epoch and inner_iter else runner.iter) + 1

    def get_lr_tags(self, runner: BaseRunner) -> dict[str, float]:
        """``learning_rate`` of the first group; ``learning_rate/<name>`` for several optimizers."""
        return _first_group_tags("learning_rate", runner.current_lr())

    def get_momentum_tags(self, runner: BaseRunner) -> dict[str, float]:
        """``momentum`` of the first group; ``momentum/<name>`` for several optimizers."""
        return _first_group_tags("momentum", runner.current_momentum())

    def get_loggable_tags(
        self,
        runner: BaseRunner,
        allow_scalar: bool = True,
        allow_text: bool = False,
        add_mode: bool = True,
        tags_to_skip: tuple[str, ...] = ("time", "data_time"),
    ) -> dict[str, Any]:
        """What a metrics service gets: values of the log buffer, learning rate, momentum.

        Args:
            runner: the runner.
            allow_scalar: include numbers.
            allow_text: include texts.
            add_mode: put ``train/`` or ``val/`` before names.
            tags_to_skip: names to leave out.
        """
        tags: dict[str, Any] = {}
        for name, value in runner.log_buffer.output.items():
            if name in tags_to_skip:
                continue
            if self.is_scalar(value):
                if not allow_scalar:
                    continue
            elif not (allow_text and isinstance(value, str)):
                continue
            tags[f"{self.get_mode(runner)}/{name}" if add_mode else name] = value
        tags.update(self.get_lr_tags(runner))
        tags.update(self.get_momentum_tags(runner))
        return tags

    def before_run(self, runner: BaseRunner) -> None:
        """The last of the loggers clears the averages, if any of them wants that."""
        for hook in runner.hooks[::-1]:
            if isinstance(hook, LoggerHook):
                hook.reset_flag = True
                break

    def before_epoch(self, runner: BaseRunner) -> None:
        """Begin a new history."""
        runner.log_buffer.clear()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Average and log, when it is time or something else is waiting."""
        buffer = runner.log_buffer
        done = (runner._inner_iter if self.by_epoch else runner._iter) + 1
        due = self.interval > 0 and done % self.interval == 0
        # Nothing to average: an evaluation hook of somebody else cleared it and has logged its own.
        if buffer.val_history and (due or (not self.ignore_last and self.end_of_epoch(runner))):
            buffer.average(self.interval)
        if buffer.ready:
            self._log_if_ready(runner)

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Log what other hooks left after the epoch: evaluation results, for one."""
        self._log_if_ready(runner)

    def after_val_epoch(self, runner: BaseRunner) -> None:
        """Log the averages over the validation epoch."""
        runner.log_buffer.average()
        self._log_if_ready(runner)

    def _log_if_ready(self, runner: BaseRunner) -> None:
        if runner.log_buffer.ready:
            self.log(runner)
            if self.reset_flag:
                runner.log_buffer.clear_output()


def _first_group_tags(name: str, values: list[float] | dict[str, list[float]]) -> dict[str, float]:
    if isinstance(values, dict):
        return {f"{name}/{optimizer}": per_group[0] for optimizer, per_group in values.items()}
    return {name: values[0]}
