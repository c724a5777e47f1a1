"""What the learning-rate and the momentum hooks share: when a value is set, and warm-up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from cv.runner import schedules
from cv.runner.hooks.hook import Hook, acts_if

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
        #: Whether no iteration of this epoch is warm-up any more.
        self._warmed_up = False
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
        return of_all(regular, lambda value: self.warmed(value, factor))

    def before_train_epoch(self, runner: BaseRunner) -> None:
        """Set the value of the epoch."""
        if self.warmup_iters is None:
            assert self.warmup_epochs is not None
            self.warmup_iters = self.warmup_epochs * len(runner.data_loader)
        self._warmed_up = runner.iter > self.warmup_iters
        if self.by_epoch:
            regular = self.regular_values(runner)
            self.keep_regular(regular)
            self.set_values(runner, regular)

    @acts_if(lambda hook: not hook.by_epoch or (hook.warmup is not None and not hook._warmed_up))
    def before_train_iter(self, runner: BaseRunner) -> None:
        """Set the value of the iteration, where it changes by iteration or while warming up."""
        if self.by_epoch and self.warmup is None:
            return
        if self.warmup_iters is None:  # a runner without epochs
            assert self.warmup_epochs is not None
            self.warmup_iters = self.warmup_epochs * len(runner.data_loader)
        done = runner._iter
        if self.by_epoch and done > self.warmup_iters:
            return
        warming = self.warmup is not None and done < self.warmup_iters
        regular = self.regular_values(runner)
        self.keep_regular(regular)
        self.set_values(runner, self.warmup_values(regular, done) if warming else regular)


class Steps(ScheduleHook):
    """A policy that falls by a factor at milestones."""

    def set_steps(self, step: int | list[int], gamma: float) -> None:
        """Validate milestones (or the length of a period), and keep them with the factor.

        Raises:
            TypeError: neither an int nor a list of ints.
            AssertionError: one that is not positive.
        """
        schedules.check_steps(step)
        self.step = step
        self.gamma = gamma

    def on_steps(self, runner: BaseRunner, base: float, minimum: float | None) -> float:
        """``base · gamma^(milestones reached)``, never below the minimum."""
        return schedules.step(base, self.progress(runner), self.step, self.gamma, minimum)


class ToTarget(ScheduleHook):
    """A policy that ends at a value, or at a part of what each group began with."""

    def set_target(self, name: str, minimum: float | None, ratio: float | None) -> None:
        """Settle it: exactly one of the two, which the families call ``min_<name>`` and ``min_<name>_ratio``.

        Raises:
            AssertionError: both or neither are given.
        """
        schedules.check_target(minimum, ratio, name)
        self._target = minimum, ratio

    def target(self, base: float) -> float:
        """Where a group that began with ``base`` ends."""
        return schedules.target(base, *self._target)

    def on_cosine(self, runner: BaseRunner, base: float) -> float:
        """The value on half a cosine from ``base`` to the target."""
        return schedules.cosine(base, self.progress(runner), self.max_progress(runner), self.target(base))

    def on_line(self, runner: BaseRunner, base: float) -> float:
        """The value on a line from ``base`` to the target."""
        return schedules.linear(base, self.progress(runner), self.max_progress(runner), self.target(base))


class Cyclic(ScheduleHook):
    """A policy of equal cycles over the run, by iteration."""

    def set_cycles(
        self,
        by_epoch: bool,
        target_ratio: float | Sequence[float],
        cyclic_times: int,
        step_ratio_up: float,
        anneal_strategy: str,
        gamma: float,
    ) -> None:
        """Validate the arguments that both families document, and keep them.

        Raises:
            AssertionError: an argument is out of range.
            ValueError: an unknown ``anneal_strategy``.
        """
        self.target_ratio = check_cyclic(by_epoch, target_ratio, step_ratio_up, gamma)
        self.cyclic_times = cyclic_times
        self.step_ratio_up = step_ratio_up
        self.gamma = gamma
        self.anneal_func = schedules.anneal_function(anneal_strategy)

    def on_cycle(self, runner: BaseRunner, base: float) -> float:
        """The value on the current cycle."""
        length = self.max_progress(runner) // self.cyclic_times
        up_length = int(self.step_ratio_up * length)
        return schedules.cyclic(
            base, runner.iter, length, up_length, self.target_ratio, self.gamma, self.anneal_func
        )


def of_all(values: Values, change: Callable[[float], float]) -> Values:
    """Every group's value changed."""
    if isinstance(values, dict):
        return {name: [change(value) for value in each] for name, each in values.items()}
    return [change(value) for value in values]


def format_param(name: str, optimizer: Optimizer, param: float | Sequence[float]) -> list[float]:
    """One value per parameter group of an optimizer.

    Args:
        name: of the parameter, for the error.
        optimizer: the optimizer.
        param: a number for all groups, or a list or tuple with one per group.

    Raises:
        ValueError: there are not as many values as groups.
    """
    groups = len(optimizer.param_groups)
    if isinstance(param, (int, float)):
        return [param] * groups
    if isinstance(param, (list, tuple)):
        if len(param) != groups:
            raise ValueError(f"expected {groups} values for {name}, got {len(param)}")
        return list(param)
    raise TypeError(f"{name} must be a number, list or tuple, got {type(param).__name__}")


def check_cyclic(
    by_epoch: bool, target_ratio: float | Sequence[float], step_ratio_up: float, gamma: float
) -> tuple[float, float]:
    """Validate the arguments of a cyclic policy; the target ratios as a pair.

    Raises:
        AssertionError: an argument is out of range (the documented type of that error).
        ValueError: ``target_ratio`` is neither a number nor a pair.
    """
    if by_epoch:
        raise AssertionError("currently only by_epoch=False is supported by the cyclic policy")
    if isinstance(target_ratio, (int, float)):
        pair: tuple[float, ...] = (target_ratio, target_ratio / 1e5)
    elif isinstance(target_ratio, (tuple, list)):
        pair = (target_ratio[0], target_ratio[0] / 1e5) if len(target_ratio) == 1 else tuple(target_ratio)
    else:
        raise ValueError(f"target_ratio must be a number or a pair, got {type(target_ratio).__name__}")
    if len(pair) != 2:
        raise AssertionError(f"target_ratio must have one or two elements, got {target_ratio}")
    if not 0 <= step_ratio_up < 1:
        raise AssertionError(f"step_ratio_up must be in [0, 1), got {step_ratio_up}")
    if not 0 < gamma <= 1:
        raise AssertionError(f"gamma must be in (0, 1], got {gamma}")
    return pair[0], pair[1]
