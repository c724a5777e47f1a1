"""The base class of hooks and their registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from cv.utils import Registry

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

HOOKS = Registry("hook", entry_point_group="cv.runner.hooks")

# A stage and the general one that it calls unless a hook overrides it.
_FALLBACKS = {
    "before_train_epoch": "before_epoch",
    "before_val_epoch": "before_epoch",
    "after_train_epoch": "after_epoch",
    "after_val_epoch": "after_epoch",
    "before_train_iter": "before_iter",
    "before_val_iter": "before_iter",
    "after_train_iter": "after_iter",
    "after_val_iter": "after_iter",
}

Stage = TypeVar("Stage", bound=Callable[..., None])


def acts_if(condition: Callable[[Any], bool]) -> Callable[[Stage], Stage]:
    """Say of a hook's method when it does something, so that the loop need not call it where it would not.

    It is asked as an epoch begins, by an ``IterBasedRunner`` as the run begins. A subclass that overrides the
    method is always called.

    Args:
        condition: called with the hook, tells from its settings.
    """

    def mark(method: Stage) -> Stage:
        method.__dict__["acts_if"] = condition
        return method

    return mark


class Hook:
    """Something that a runner calls at every stage of the loop.

    Override the stages you want; a hook sees the whole runner. ``before_epoch``/``after_epoch`` and
    ``before_iter``/``after_iter`` are called for training and validation unless the stage with the
    mode in its name is overridden.

    A hook with state of its own that a resumed run needs returns it from :meth:`state_dict`; the
    runner puts it into checkpoints and hands it to :meth:`load_state_dict` on resume.
    """

    stages: ClassVar[tuple[str, ...]] = (
        "before_run",
        "before_train_epoch",
        "before_train_iter",
        "after_train_iter",
        "after_train_epoch",
        "before_val_epoch",
        "before_val_iter",
        "after_val_iter",
        "after_val_epoch",
        "after_run",
    )
    #: The number of the priority that the hook was registered with; set by the runner.
    priority: int

    def before_run(self, runner: BaseRunner) -> None:
        """Called once, before the first epoch or iteration."""

    def after_run(self, runner: BaseRunner) -> None:
        """Called once, after the last epoch or iteration."""

    def before_epoch(self, runner: BaseRunner) -> None:
        """Called before every epoch of any mode."""

    def after_epoch(self, runner: BaseRunner) -> None:
        """Called after every epoch of any mode."""

    def before_iter(self, runner: BaseRunner) -> None:
        """Called before every iteration of any mode."""

    def after_iter(self, runner: BaseRunner) -> None:
        """Called after every iteration of any mode."""

    def before_train_epoch(self, runner: BaseRunner) -> None:
        """Called before every training epoch."""
        self.before_epoch(runner)

    def before_val_epoch(self, runner: BaseRunner) -> None:
        """Called before every validation epoch."""
        self.before_epoch(runner)

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Called after every training epoch; ``runner.epoch`` does not count it yet."""
        self.after_epoch(runner)

    def after_val_epoch(self, runner: BaseRunner) -> None:
        """Called after every validation epoch."""
        self.after_epoch(runner)

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Called before every training iteration."""
        self.before_iter(runner)

    def before_val_iter(self, runner: BaseRunner) -> None:
        """Called before every validation iteration."""
        self.before_iter(runner)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Called after every training iteration; ``runner.iter`` does not count it yet."""
        self.after_iter(runner)

    def after_val_iter(self, runner: BaseRunner) -> None:
        """Called after every validation iteration."""
        self.after_iter(runner)

    def before_load(self, runner: BaseRunner) -> None:
        """Called when the runner resumes, before the weights are loaded."""

    def after_load(self, runner: BaseRunner, checkpoint: dict[str, Any]) -> None:
        """Called when the runner resumes, after weights, optimizers and counters are in place."""

    def before_save(self, runner: BaseRunner) -> None:
        """Called before the weights are read for a checkpoint or an evaluation."""

    def after_save(self, runner: BaseRunner) -> None:
        """Called after the weights were read for a checkpoint or an evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of this hook: tensors and plain values. Empty by default."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""

    def get_triggered_stages(self) -> list[str]:
        """The stages, in calling order, at which this hook does something."""
        return [stage for stage in self.stages if self.overrides(stage)]

    def overrides(self, stage: str) -> bool:
        """Whether the hook, or the general stage it falls back to, is more than the empty default."""
        return self._differs(stage) or self._differs(_FALLBACKS.get(stage, stage))

    def _differs(self, name: str) -> bool:
        replaced = name in self.__dict__  # on the instance
        return replaced or getattr(type(self), name, None) is not getattr(Hook, name, None)

    def method_at(self, stage: str) -> str | None:
        """The name of the method that does this hook's work at a stage; None where there is nothing to do."""
        if not self.overrides(stage):
            return None
        name = stage if self._differs(stage) else _FALLBACKS[stage]
        condition = getattr(getattr(self, name), "acts_if", None)
        return name if condition is None or condition(self) else None

    def get_iter(self, runner: BaseRunner, inner_iter: bool = False) -> int:
        """The number of the current iteration, counted from 1."""
        return (runner.inner_iter if inner_iter else runner.iter) + 1

    def every_n_epochs(self, runner: BaseRunner, n: int) -> bool:
        """Whether the current epoch is an n-th one; never for n ≤ 0."""
        return n > 0 and (runner.epoch + 1) % n == 0

    def every_n_inner_iters(self, runner: BaseRunner, n: int) -> bool:
        """Whether the current iteration within the epoch is an n-th one; never for n ≤ 0."""
        return n > 0 and (runner.inner_iter + 1) % n == 0

    def every_n_iters(self, runner: BaseRunner, n: int) -> bool:
        """Whether the current iteration is an n-th one; never for n ≤ 0."""
        return n > 0 and (runner.iter + 1) % n == 0

    def end_of_epoch(self, runner: BaseRunner) -> bool:
        """Whether the current iteration is the last of its epoch."""
        return runner.inner_iter + 1 == len(runner.data_loader)

    def is_last_epoch(self, runner: BaseRunner) -> bool:
        """Whether the current epoch is the last of the run."""
        return runner.epoch + 1 == runner._max_epochs

    def is_last_iter(self, runner: BaseRunner) -> bool:
        """Whether the current iteration is the last of the run."""
        return runner.iter + 1 == runner._max_iters
