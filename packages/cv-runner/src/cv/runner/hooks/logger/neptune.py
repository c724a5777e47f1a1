"""Log to Neptune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class NeptuneLoggerHook(LoggerHook):
    """Logs metrics to a Neptune run.

    Args:
        init_kwargs: arguments of ``neptune.init_run``: ``project`` (default: the environment variable
            ``NEPTUNE_PROJECT``), ``api_token`` (better: ``NEPTUNE_API_TOKEN``), ``name``, ``mode`` …
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        with_step: give metrics the iteration as their step; else it is a metric, ``<mode>/step``.
        by_epoch: the runner is epoch-based.

    Raises:
        ImportError: if Neptune's client is not installed.
    """

    def __init__(
        self,
        init_kwargs: dict[str, Any] | None = None,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = True,
        with_step: bool = True,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.import_neptune()
        self.init_kwargs = init_kwargs
        self.with_step = with_step
        self.run: Any = None

    def import_neptune(self) -> None:
        """Import the package, or say how to install it."""
        try:
            import neptune
        except ImportError as error:
            raise ImportError("NeptuneLoggerHook needs neptune: pip install cv-runner[neptune]") from error
        self.neptune: Any = neptune

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Start the run."""
        super().before_run(runner)
        self.run = self.neptune.init_run(**(self.init_kwargs or {}))

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Log numbers."""
        tags = self.get_loggable_tags(runner)
        step = self.get_iter(runner)
        if tags and not self.with_step:
            tags[f"{self.get_mode(runner)}/step"] = step
        for name, value in tags.items():
            self.run[name].append(float(value), **({"step": step} if self.with_step else {}))

    @master_only
    def after_run(self, runner: BaseRunner) -> None:
        """Finish the run."""
        self.run.stop()
