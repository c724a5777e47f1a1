"""Momentum hooks: one per policy, each a thin layer over :mod:`cv.runner.schedules`.

The momentum is ``momentum`` of a parameter group or, for Adam's kin, the first of its ``betas``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from cv.runner import schedules, validate
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.schedule import Cyclic, ScheduleHook, Steps, ToTarget, Values, format_param, of_all

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

__all__ = [
    "CosineAnnealingMomentumUpdaterHook",
    "CyclicMomentumUpdaterHook",
    "LinearAnnealingMomentumUpdaterHook",
    "MomentumUpdaterHook",
    "OneCycleMomentumUpdaterHook",
    "StepMomentumUpdaterHook",
]


class MomentumUpdaterHook(ScheduleHook):
    """Base class of momentum hooks; a policy implements ``get_momentum(runner, base_momentum)``.

    Args:
        by_epoch: the momentum changes epoch by epoch, else iteration by iteration.
        warmup: None, ``'constant'``, ``'linear'`` or ``'exp'``.
        warmup_iters: iterations that warm-up lasts.
        warmup_ratio: the momentum at the beginning of warm-up is ``regular / warmup_ratio``.

    Raises:
        ValueError: an unknown kind of warm-up.
        AssertionError: ``warmup_iters`` or ``warmup_ratio`` is out of range.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.9,
    ) -> None:
        super().__init__(by_epoch, warmup, warmup_iters, warmup_ratio)
        #: What every parameter group was built with.
        self.base_momentum: Values = []
        #: What it would be now without warm-up.
        self.regular_mom: Values = []

    def get_momentum(self, runner: BaseRunner, base_momentum: float) -> float:
        """The momentum at the runner's progress for a group that was built with ``base_momentum``."""
        raise TypeError(f"{type(self).__name__} must implement get_momentum(runner, base_momentum)")

    def get_regular_momentum(self, runner: BaseRunner) -> Values:
        """The momenta of all groups at the runner's progress, without warm-up."""
        return of_all(self.base_momentum, lambda momentum: self.get_momentum(runner, momentum))

    def get_warmup_momentum(self, cur_iters: int) -> Values:
        """The momenta of all groups while warming up, after ``cur_iters`` iterations."""
        return self.warmup_values(self.regular_mom, cur_iters)

    def before_run(self, runner: BaseRunner) -> None:
        """Note what every group was built with; a resumed optimizer knows."""
        self.base_momentum = self.initial_values(runner)

    def initial_key(self) -> str:
        """``'initial_momentum'``."""
        return "initial_momentum"

    def read(self, group: dict[str, Any]) -> float | None:
        """The group's momentum; None where it has none."""
        if "momentum" in group:
            return group["momentum"]  # type: ignore[no-any-return]
        return group["betas"][0] if "betas" in group else None

    def write(self, group: dict[str, Any], value: float) -> None:
        """Set the group's momentum."""
        if "momentum" in group:
            group["momentum"] = value
        elif "betas" in group:
            group["betas"] = (value, *group["betas"][1:])

    def warmed(self, value: float, factor: float) -> float:
        """Warm-up begins with a larger momentum."""
        return value / factor

    def regular_values(self, runner: BaseRunner) -> Values:
        """See :meth:`get_regular_momentum`."""
        return self.get_regular_momentum(runner)

    def keep_regular(self, values: Values) -> None:
        """Keep them as ``regular_mom``."""
        self.regular_mom = values

    def _set(self, optimizer: Optimizer, values: list[float]) -> None:
        groups = [group for group in optimizer.param_groups if self.read(group) is not None]
        for group, value in zip(groups, values, strict=True):
            self.write(group, value)


@HOOKS.register_module()
class StepMomentumUpdaterHook(Steps, MomentumUpdaterHook):
    """Falls by a factor at milestones.

    Args:
        step: milestones, or the length of a period.
        gamma: the factor.
        min_momentum: never lower than this.
        **kwargs: see :class:`MomentumUpdaterHook`.
    """

    def __init__(
        self, step: int | list[int], gamma: float = 0.5, min_momentum: float | None = None, **kwargs: Any
    ) -> None:
        self.set_steps(step, gamma)
        self.min_momentum = min_momentum
        super().__init__(**kwargs)

    def get_momentum(self, runner: BaseRunner, base_momentum: float) -> float:
        """``base_momentum · gamma^(milestones reached)``."""
        return self.on_steps(runner, base_momentum, self.min_momentum)


class _ToTarget(ToTarget, MomentumUpdaterHook):
    """A policy that ends at ``min_momentum``, or a part of what each group began with."""

    def __init__(
        self, min_momentum: float | None = None, min_momentum_ratio: float | None = None, **kwargs: Any
    ) -> None:
        self.set_target("momentum", min_momentum, min_momentum_ratio)
        self.min_momentum = min_momentum
        self.min_momentum_ratio = min_momentum_ratio
        super().__init__(**kwargs)


@HOOKS.register_module()
class CosineAnnealingMomentumUpdaterHook(_ToTarget):
    """Changes along half a cosine over the whole run.

    Args:
        min_momentum: the momentum at the end; or else
        min_momentum_ratio: what part of its first value it ends at.
        **kwargs: see :class:`MomentumUpdaterHook`.

    Raises:
        AssertionError: both or neither of the two are given.
    """

    def get_momentum(self, runner: BaseRunner, base_momentum: float) -> float:
        """On the cosine from ``base_momentum`` to the target."""
        return self.on_cosine(runner, base_momentum)


@HOOKS.register_module()
class LinearAnnealingMomentumUpdaterHook(_ToTarget):
    """Changes along a line over the whole run.

    Args:
        min_momentum: the momentum at the end; or else
        min_momentum_ratio: what part of its first value it ends at.
        **kwargs: see :class:`MomentumUpdaterHook`.

    Raises:
        AssertionError: both or neither of the two are given.
    """

    def get_momentum(self, runner: BaseRunner, base_momentum: float) -> float:
        """On the line from ``base_momentum`` to the target."""
        return self.on_line(runner, base_momentum)


@HOOKS.register_module()
class CyclicMomentumUpdaterHook(Cyclic, MomentumUpdaterHook):
    """Falls and rises in equal cycles over the run, by iteration: the mirror of the cyclic learning rate.

    Args:
        by_epoch: must be False.
        target_ratio: the lowest and the last momentum as ratios to the first; a number r stands for
            ``(r, r / 1e5)``.
        cyclic_times: number of cycles.
        step_ratio_up: the part of a cycle that goes to the first ratio.
        anneal_strategy: ``'cos'`` or ``'linear'``.
        gamma: factor by which the swing shrinks every cycle, in (0, 1].
        **kwargs: see :class:`MomentumUpdaterHook`.

    Raises:
        AssertionError: an argument is out of range.
        ValueError: an unknown ``anneal_strategy``.
    """

    def __init__(
        self,
        by_epoch: bool = False,
        target_ratio: float | Sequence[float] = (0.85 / 0.95, 1),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1,
        **kwargs: Any,
    ) -> None:
        self.set_cycles(by_epoch, target_ratio, cyclic_times, step_ratio_up, anneal_strategy, gamma)
        super().__init__(by_epoch, **kwargs)

    def get_momentum(self, runner: BaseRunner, base_momentum: float) -> float:
        """On the current cycle."""
        return self.on_cycle(runner, base_momentum)


@HOOKS.register_module()
class OneCycleMomentumUpdaterHook(MomentumUpdaterHook):
    """One fall to ``base_momentum`` and one rise to ``max_momentum``, by iteration.

    Args:
        base_momentum: the lowest momentum: one, one per parameter group, or per optimizer's name.
        max_momentum: where it begins and ends: likewise.
        pct_start: the part of the run in which it falls.
        anneal_strategy: ``'cos'`` or ``'linear'``.
        three_phase: be back at ``max_momentum`` after twice that part.
        **kwargs: see :class:`MomentumUpdaterHook`; ``by_epoch`` must be False.

    Raises:
        AssertionError: ``by_epoch`` is set.
        ValueError: an argument is out of range, or the optimizer has no momentum.
        TypeError: momenta of another kind.
    """

    def __init__(
        self,
        base_momentum: float | list[float] | dict[str, float] = 0.85,
        max_momentum: float | list[float] | dict[str, float] = 0.95,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.setdefault("by_epoch", False):
            raise AssertionError("currently only by_epoch=False is supported by the one-cycle policy")
        for name, value in (("base_momentum", base_momentum), ("max_momentum", max_momentum)):
            if not isinstance(value, (int, float, list, dict)):
                raise TypeError(f"{name} must be a number, a list or a dict, got {type(value).__name__}")
        validate.fraction("pct_start", pct_start)
        super().__init__(**kwargs)
        self.lowest = base_momentum
        self.max_momentum = max_momentum
        self.pct_start = pct_start
        self.three_phase = three_phase
        self.anneal_func = schedules.anneal_function(anneal_strategy)

    def before_run(self, runner: BaseRunner) -> None:
        """Note the lowest and the highest momentum of every group."""
        optimizers = runner.optimizer if isinstance(runner.optimizer, dict) else {None: runner.optimizer}
        for name, optimizer in optimizers.items():
            assert optimizer is not None
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise ValueError("optimizer must support momentum with option enabled")
            lowest = format_param("base_momentum", optimizer, _of(self.lowest, name))
            highest = format_param("max_momentum", optimizer, _of(self.max_momentum, name))
            for group, low, high in zip(optimizer.param_groups, lowest, highest, strict=True):
                self.write(group, high)
                group["base_momentum"], group["max_momentum"] = low, high

    def get_regular_momentum(self, runner: BaseRunner) -> Values:
        """On the cycle, between each group's own bounds."""
        total = self.max_progress(runner)

        def of_groups(optimizer: Optimizer) -> list[float]:
            values = []
            for group in optimizer.param_groups:
                low, high = group["base_momentum"], group["max_momentum"]
                phases = schedules.one_cycle_phases(total, self.pct_start, high, low, high, self.three_phase)
                values.append(schedules.piecewise(runner.iter, phases, self.anneal_func))
            return values

        if isinstance(runner.optimizer, dict):
            return {name: of_groups(optimizer) for name, optimizer in runner.optimizer.items()}
        assert runner.optimizer is not None
        return of_groups(runner.optimizer)


def _of(value: Any, name: str | None) -> Any:
    return value[name] if isinstance(value, dict) else value
