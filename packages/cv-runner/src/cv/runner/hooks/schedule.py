"""What the learning-rate and the momentum hooks share: when a value is set, and warm-up."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from cv.runner import schedules
from cv.runner.hooks.hook import Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

#: One value per parameter group; per name where there are several optimizers.
Values = list[float] | dict[str, list[float]]


class ScheduleHook(Hook):
    """Sets a value of every parameter group by epoch or by iteration, with warm-up.

    Subclasses say which value (:meth:`read`, :meth:`write`), how warm-up changes it (:meth:`warmed`) and
    what it should be (:meth:`regular_values`).
    """

    def __init__(
        self,
        by_epoch: bool = True,
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.1,
        warmup_by_epoch: bool = False,
    ) -> None:
        schedules.check_warmup(warmup, warmup_iters, warmup_ratio)
        self.by_epoch = by_epoch
        self.warmup = warmup
        self.warmup_iters: int | None = warmup_iters
        self.warmup_ratio = warmup_ratio
        self.warmup_by_epoch = warmup_by_epoch
        self.warmup_epochs: int | None = None
        if warmup_by_epoch:  # how many iterations that is, the first epoch tells
            self.warmup_epochs, self.warmup_iters = warmup_iters, None

    @abstractmethod
    def initial_key(self) -> str:
        """The key under which a parameter group keeps the value it was built with."""

    @abstractmethod
    def read(self, group: dict[str, Any]) -> float | None:
        """The value of a parameter group; None where the optimizer has none."""

    @abstractmethod
    def write(self, group: dict[str, Any], value: float) -> None:
        """Set the value of a parameter group."""

    @abstractmethod
    def warmed(self, value: float, factor: float) -> float:
        """A regular value while warming up; ``factor`` grows to 1."""

    @abstractmethod
    def regular_values(self, runner: BaseRunner) -> Values:
        """The values at the runner's progress, without warm-up."""

    @abstractmethod
    def keep_regular(self, values: Values) -> None:
        """Keep the regular values under the documented attribute."""

    def progress(self, runner: BaseRunner) -> int:
        """Finished epochs or iterations, whichever the schedule counts."""
        return runner.epoch if self.by_epoch else runner.iter

    def max_progress(self, runner: BaseRunner) -> int:
        """Epochs or iterations of the whole run."""
        total = runner.max_epochs if self.by_epoch else runner.max_iters
        if total is None:
            unit = "max_epochs" if self.by_epoch else "max_iters"
            raise ValueError(f"{type(self).__name__} with by_epoch={self.by_epoch} needs the runner's {unit}")
        return total

    def initial_values(self, runner: BaseRunner) -> Values:
        """What every group was built with; kept in the group, so that a checkpoint carries it."""

        def initial(optimizer: Optimizer) -> list[float]:
            for group in optimizer.param_groups:
                value = self.read(group)
                if value is not None:
                    group.setdefault(self.initial_key(), value)
            return [g[self.initial_key()] for g in optimizer.param_groups if self.initial_key() in g]

        if isinstance(runner.optimizer, dict):
            return {name: initial(optimizer) for name, optimizer in runner.optimizer.items()}
        assert runner.optimizer is not None, f"{type(self).__name__} needs an optimizer"
        return initial(runner.optimizer)

    def set_values(self, runner: BaseRunner, values: Values) -> None:
        """Write one value per parameter group."""
        if isinstance(runner.optimizer, dict):
            assert isinstance(values, dict)
            for name, optimizer in runner.optimizer.items():
                self._set(optimizer, values[name])
        elif runner.optimizer is not None:
            assert isinstance(values, list)
            self._set(runner.optimizer, values)

    def _set(self, optimizer: Optimizer, values: list[float]) -> None:
        for group, value in zip(optimizer.param_groups, values, strict=True):
            self.write(group, value)

    def warmup_values(self, regular: Values, cur_iters: int) -> Values:
        """The regular values as warm-up changes them after so many iterations."""
        assert self.warmup is not None
        assert self.warmup_iters is not None
        factor = schedules.warmup_factor(self.warmup, cur_iters, self.warmup_iters, self.warmup_ratio)
        if isinstance(regular, dict):
            return {name: [self.warmed(v, factor) for v in values] for name, values in regular.items()}
        return [self.warmed(value, factor) for value in regular]

    def before_train_epoch(self, runner: BaseRunner) -> None:
        """Set the value of the epoch."""
        if self.warmup_iters is None:
            assert self.warmup_epochs is not None
            self.warmup_iters = self.warmup_epochs * len(runner.data_loader)
        if self.by_epoch:
            regular = self.regular_values(runner)
            self.keep_regular(regular)
            self.set_values(runner, regular)

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Set the value of the iteration, where it changes by iteration or while warming up."""
        if self.by_epoch and self.warmup is None:
            return
        if self.warmup_iters is None:  # a runner without epochs
            assert self.warmup_epochs is not None
            self.warmup_iters = self.warmup_epochs * len(runner.data_loader)
        warming = self.warmup is not None and runner.iter < self.warmup_iters
        if self.by_epoch and runner.iter > self.warmup_iters:
            return
        regular = self.regular_values(runner)
        self.keep_regular(regular)
        self.set_values(runner, self.warmup_values(regular, runner.iter) if warming else regular)
