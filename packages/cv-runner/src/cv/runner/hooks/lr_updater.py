"""Learning-rate hooks: one per policy, each a thin layer over :mod:`cv.runner.schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from cv.runner import schedules, validate
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.schedule import Cyclic, ScheduleHook, Steps, ToTarget, Values, format_param, of_all
from cv.runner.schedules import annealing_cos, annealing_linear

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

__all__ = [
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
    "annealing_cos",
    "annealing_linear",
    "format_param",
]


@HOOKS.register_module()
class LrUpdaterHook(ScheduleHook):
    """Base class of learning-rate hooks; a policy implements ``get_lr(runner, base_lr)``.

    Args:
        by_epoch: the learning rate changes epoch by epoch, else iteration by iteration.
        warmup: None, ``'constant'``, ``'linear'`` or ``'exp'``.
        warmup_iters: iterations (or epochs, see ``warmup_by_epoch``) that warm-up lasts.
        warmup_ratio: the learning rate at the beginning of warm-up is ``warmup_ratio · regular``.
        warmup_by_epoch: ``warmup_iters`` counts epochs.

    Raises:
        ValueError: an unknown kind of warm-up.
        AssertionError: ``warmup_iters`` or ``warmup_ratio`` is out of range.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.1,
        warmup_by_epoch: bool = False,
    ) -> None:
        super().__init__(by_epoch, warmup, warmup_iters, warmup_ratio, warmup_by_epoch)
        #: What every parameter group was built with.
        self.base_lr: Values = []
        #: What it would be now without warm-up.
        self.regular_lr: Values = []

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """The learning rate at the runner's progress for a group that was built with ``base_lr``."""
        raise TypeError(f"{type(self).__name__} must implement get_lr(runner, base_lr)")

    def get_regular_lr(self, runner: BaseRunner) -> Values:
        """The learning rates of all groups at the runner's progress, without warm-up."""
        return of_all(self.base_lr, lambda lr: self.get_lr(runner, lr))

    def get_warmup_lr(self, cur_iters: int) -> Values:
        """The learning rates of all groups while warming up, after ``cur_iters`` iterations."""
        return self.warmup_values(self.regular_lr, cur_iters)

    def before_run(self, runner: BaseRunner) -> None:
        """Note what every group was built with; a resumed optimizer knows."""
        self.base_lr = self.initial_values(runner)

    def initial_key(self) -> str:
        """``'initial_lr'``, as torch's schedulers name it."""
        return "initial_lr"

    def read(self, group: dict[str, Any]) -> float | None:
        """The group's learning rate."""
        return group["lr"]  # type: ignore[no-any-return]

    def write(self, group: dict[str, Any], value: float) -> None:
        """Set the group's learning rate."""
        group["lr"] = value

    def warmed(self, value: float, factor: float) -> float:
        """Warm-up begins with a smaller learning rate."""
        return value * factor

    def regular_values(self, runner: BaseRunner) -> Values:
        """See :meth:`get_regular_lr`."""
        return self.get_regular_lr(runner)

    def keep_regular(self, values: Values) -> None:
        """Keep them as ``regular_lr``."""
        self.regular_lr = values

    def _set_lr(self, runner: BaseRunner, lr_groups: Values) -> None:
        self.set_values(runner, lr_groups)


@HOOKS.register_module()
class FixedLrUpdaterHook(LrUpdaterHook):
    """The learning rate stays what it is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``base_lr``."""
        return base_lr


@HOOKS.register_module()
class StepLrUpdaterHook(Steps, LrUpdaterHook):
    """Falls by a factor at milestones.

    Args:
        step: milestones, or the length of a period.
        gamma: the factor.
        min_lr: never lower than this.
        **kwargs: see :class:`LrUpdaterHook`.
    """

    def __init__(
        self, step: int | list[int], gamma: float = 0.1, min_lr: float | None = None, **kwargs: Any
    ) -> None:
        self.set_steps(step, gamma)
        self.min_lr = min_lr
        super().__init__(**kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``base_lr · gamma^(milestones reached)``."""
        return self.on_steps(runner, base_lr, self.min_lr)


@HOOKS.register_module()
class ExpLrUpdaterHook(LrUpdaterHook):
    """Falls by a factor every time.

    Args:
        gamma: the factor.
        **kwargs: see :class:`LrUpdaterHook`.
    """

    def __init__(self, gamma: float, **kwargs: Any) -> None:
        self.gamma = gamma
        super().__init__(**kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``base_lr · gamma^progress``."""
        return schedules.exp(base_lr, self.progress(runner), self.gamma)


@HOOKS.register_module()
class PolyLrUpdaterHook(LrUpdaterHook):
    """Falls to ``min_lr`` along a power of what is left of the run.

    Args:
        power: the power.
        min_lr: the learning rate at the end.
        **kwargs: see :class:`LrUpdaterHook`.
    """

    def __init__(self, power: float = 1.0, min_lr: float = 0.0, **kwargs: Any) -> None:
        self.power = power
        self.min_lr = min_lr
        super().__init__(**kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``(base_lr - min_lr) · (1 - progress / max_progress)^power + min_lr``."""
        return schedules.poly(
            base_lr, self.progress(runner), self.max_progress(runner), self.power, self.min_lr
        )


@HOOKS.register_module()
class InvLrUpdaterHook(LrUpdaterHook):
    """Falls as the inverse of a power of the progress.

    Args:
        gamma: how fast.
        power: the power.
        **kwargs: see :class:`LrUpdaterHook`.
    """

    def __init__(self, gamma: float, power: float = 1.0, **kwargs: Any) -> None:
        self.gamma = gamma
        self.power = power
        super().__init__(**kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``base_lr · (1 + gamma · progress)^-power``."""
        return schedules.inv(base_lr, self.progress(runner), self.gamma, self.power)


class _ToTarget(ToTarget, LrUpdaterHook):
    """A policy that ends at ``min_lr``, or at ``min_lr_ratio`` times what each group began with."""

    def __init__(self, min_lr: float | None = None, min_lr_ratio: float | None = None, **kwargs: Any) -> None:
        self.set_target("lr", min_lr, min_lr_ratio)
        self.min_lr = min_lr
        self.min_lr_ratio = min_lr_ratio
        super().__init__(**kwargs)


@HOOKS.register_module()
class CosineAnnealingLrUpdaterHook(_ToTarget):
    """Falls along half a cosine over the whole run.

    Args:
        min_lr: the learning rate at the end; or else
        min_lr_ratio: what part of its first value it ends at.
        **kwargs: see :class:`LrUpdaterHook`.

    Raises:
        AssertionError: both or neither of the two are given.
    """

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """On the cosine from ``base_lr`` to the target."""
        return self.on_cosine(runner, base_lr)


@HOOKS.register_module()
class LinearAnnealingLrUpdaterHook(_ToTarget):
    """Falls along a line over the whole run.

    Args:
        min_lr: the learning rate at the end; or else
        min_lr_ratio: what part of its first value it ends at.
        **kwargs: see :class:`LrUpdaterHook`.

    Raises:
        AssertionError: both or neither of the two are given.
    """

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """On the line from ``base_lr`` to the target."""
        return self.on_line(runner, base_lr)


@HOOKS.register_module()
class FlatCosineAnnealingLrUpdaterHook(_ToTarget):
    """Stays for a part of the run, then falls along half a cosine.

    Args:
        start_percent: the part of the run after which it begins to fall, 0 to 1.
        min_lr: the learning rate at the end; or else
        min_lr_ratio: what part of its first value it ends at.
        **kwargs: see :class:`LrUpdaterHook`.

    Raises:
        ValueError: ``start_percent`` is out of range.
        AssertionError: both or neither of the other two are given.
    """

    def __init__(
        self,
        start_percent: float = 0.75,
        min_lr: float | None = None,
        min_lr_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        validate.fraction("start_percent", start_percent)
        self.start_percent = start_percent
        super().__init__(min_lr, min_lr_ratio, **kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """``base_lr``, later on the cosine to the target."""
        return schedules.flat_cosine(
            base_lr,
            self.progress(runner),
            self.max_progress(runner),
            self.target(base_lr),
            self.start_percent,
        )


@HOOKS.register_module()
class CosineRestartLrUpdaterHook(_ToTarget):
    """Falls along a cosine, again and again (SGDR).

    Args:
        periods: the length of every fall.
        restart_weights: what part of its first value every fall begins at.
        min_lr: the learning rate at the end of every fall; or else
        min_lr_ratio: what part of its first value that is.
        **kwargs: see :class:`LrUpdaterHook`.

    Raises:
        AssertionError: both or neither of ``min_lr`` and ``min_lr_ratio`` are given, or the two lists
            differ in length.
    """

    def __init__(
        self,
        periods: list[int],
        restart_weights: list[float] = [1],  # noqa: B006 - documented default
        min_lr: float | None = None,
        min_lr_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        if len(periods) != len(restart_weights):
            raise AssertionError(
                f"periods and restart_weights must have the same length, got {periods} and {restart_weights}"
            )
        self.periods = periods
        self.restart_weights = restart_weights
        super().__init__(min_lr, min_lr_ratio, **kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """On the cosine of the current period."""
        return schedules.cosine_restart(
            base_lr, self.progress(runner), self.periods, self.restart_weights, self.target(base_lr)
        )


@HOOKS.register_module()
class CyclicLrUpdaterHook(Cyclic, LrUpdaterHook):
    """Rises and falls in equal cycles over the run, by iteration.

    Args:
        by_epoch: must be False.
        target_ratio: the highest and the lowest learning rate as ratios to the first; a number r stands
            for ``(r, r / 1e5)``.
        cyclic_times: number of cycles.
        step_ratio_up: the part of a cycle in which the learning rate rises.
        anneal_strategy: ``'cos'`` or ``'linear'``.
        gamma: factor by which the swing shrinks every cycle, in (0, 1].
        **kwargs: see :class:`LrUpdaterHook`.

    Raises:
        AssertionError: an argument is out of range.
        ValueError: an unknown ``anneal_strategy``.
    """

    def __init__(
        self,
        by_epoch: bool = False,
        target_ratio: float | Sequence[float] = (10, 1e-4),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1,
        **kwargs: Any,
    ) -> None:
        self.set_cycles(by_epoch, target_ratio, cyclic_times, step_ratio_up, anneal_strategy, gamma)
        super().__init__(by_epoch, **kwargs)

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """On the current cycle."""
        return self.on_cycle(runner, base_lr)


@HOOKS.register_module()
class OneCycleLrUpdaterHook(LrUpdaterHook):
    """One rise to ``max_lr`` and one fall over the run, by iteration, as ``torch``'s OneCycleLR.

    Args:
        max_lr: the highest learning rate: one, one per parameter group, or per optimizer's name.
        total_steps: iterations of the cycle; by default those of the run.
        pct_start: the part of the cycle in which it rises.
        anneal_strategy: ``'cos'`` or ``'linear'``.
        div_factor: it begins at ``max_lr / div_factor``.
        final_div_factor: it ends at that value over ``final_div_factor``.
        three_phase: fall back to where it began first, then to the end.
        **kwargs: see :class:`LrUpdaterHook`; ``by_epoch`` must be False.

    Raises:
        AssertionError: ``by_epoch`` is set.
        ValueError: an argument is out of range, or the run is longer than ``total_steps``.
        TypeError: a ``max_lr`` of another kind.
    """

    def __init__(
        self,
        max_lr: float | list[float] | dict[str, float],
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.setdefault("by_epoch", False):
            raise AssertionError("currently only by_epoch=False is supported by the one-cycle policy")
        if not isinstance(max_lr, (int, float, list, dict)):
            raise TypeError(f"max_lr must be a number, a list or a dict, got {type(max_lr).__name__}")
        if total_steps is not None and (total_steps != int(total_steps) or total_steps <= 0):
            raise ValueError(f"total_steps must be a positive int, got {total_steps!r}")
        validate.fraction("pct_start", pct_start)
        self.max_lr = max_lr
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.three_phase = three_phase
        self.anneal_func = schedules.anneal_function(anneal_strategy)
        super().__init__(**kwargs)

    def before_run(self, runner: BaseRunner) -> None:
        """Let every group begin at ``max_lr / div_factor``."""
        run_length = self.max_progress(runner)
        total = run_length if self.total_steps is None else self.total_steps
        if total < run_length:
            raise ValueError(f"total_steps must be at least the run's max_iters {run_length}, got {total}")
        self.lr_phases = schedules.one_cycle_phases(
            total, self.pct_start, 1, self.div_factor, 1 / self.final_div_factor, self.three_phase
        )
        if isinstance(runner.optimizer, dict):
            self.base_lr = {
                name: self._begin(optimizer, self._max_lr_of(name))
                for name, optimizer in runner.optimizer.items()
            }
        else:
            assert runner.optimizer is not None
            self.base_lr = self._begin(runner.optimizer, self.max_lr)

    def _max_lr_of(self, name: str) -> Any:
        return self.max_lr[name] if isinstance(self.max_lr, dict) else self.max_lr

    def _begin(self, optimizer: Optimizer, max_lr: Any) -> list[float]:
        for group, highest in zip(
            optimizer.param_groups, format_param("max_lr", optimizer, max_lr), strict=True
        ):
            # Not setdefault: another hook, or the optimizer's own lr, has no say here.
            group["initial_lr"] = highest / self.div_factor
        return [group["initial_lr"] for group in optimizer.param_groups]

    def get_lr(self, runner: BaseRunner, base_lr: float) -> float:
        """On the cycle."""
        return base_lr * schedules.piecewise(runner.iter, self.lr_phases, self.anneal_func)
