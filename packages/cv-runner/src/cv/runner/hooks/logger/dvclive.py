"""Log to DVCLive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class DvcliveLoggerHook(LoggerHook):
    """Logs metrics with DVCLive.

    Args:
        path: folder in which DVCLive writes its TSV files.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        by_epoch: the runner is epoch-based.
        init_kwargs: further arguments of ``dvclive.Live``.

    Raises:
        ImportError: if DVCLive is not installed.
    """

    def __init__(
        self,
        path: str,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = True,
        by_epoch: bool = True,
        *,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.path = path
        self.init_kwargs = init_kwargs
        self.import_dvclive()
        self.live: Any = None

    def import_dvclive(self) -> None:
        """Import the package, or say how to install it."""
        try:
            import dvclive
        except ImportError as error:
            raise ImportError("DvcliveLoggerHook needs dvclive: pip install cv-runner[dvclive]") from error
        self.dvclive: Any = dvclive

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Open the folder."""
        super().before_run(runner)
        self.live = self.dvclive.Live(self.path, **(self.init_kwargs or {}))

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Log numbers."""
        tags = self.get_loggable_tags(runner)
        if tags:
            self.live.step = self.get_iter(runner)
            for name, value in tags.items():
                self.live.log_metric(name, float(value))

    @master_only
    def after_run(self, runner: BaseRunner) -> None:
        """Write the summary."""
        self.live.end()
