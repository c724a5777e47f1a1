"""Log to Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class WandbLoggerHook(LoggerHook):
    """Logs metrics to a Weights & Biases run.

    Args:
        init_kwargs: arguments of ``wandb.init``.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        commit: save the metrics at once.
        by_epoch: the runner is epoch-based.
        with_step: give metrics the iteration as their step; else it is a metric, ``<mode>/step``.

    Raises:
        ImportError: if wandb is not installed.
    """

    def __init__(
        self,
        init_kwargs: dict[str, Any] | None = None,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        commit: bool = True,
        by_epoch: bool = True,
        with_step: bool = True,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.import_wandb()
        self.init_kwargs = init_kwargs
        self.commit = commit
        self.with_step = with_step

    def import_wandb(self) -> None:
        """Import the package, or say how to install it."""
        try:
            import wandb
        except ImportError as error:
            raise ImportError("WandbLoggerHook needs wandb: pip install cv-runner[wandb]") from error
        self.wandb: Any = wandb

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Start the run."""
        super().before_run(runner)
        self.wandb.init(**(self.init_kwargs or {}))

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Log numbers."""
        tags = self.get_loggable_tags(runner)
        if not tags:
            return
        if self.with_step:
            self.wandb.log(tags, step=self.get_iter(runner), commit=self.commit)
        else:
            tags[f"{self.get_mode(runner)}/step"] = self.get_iter(runner)
            self.wandb.log(tags, commit=self.commit)

    @master_only
    def after_run(self, runner: BaseRunner) -> None:
        """Finish the run."""
        self.wandb.finish()
