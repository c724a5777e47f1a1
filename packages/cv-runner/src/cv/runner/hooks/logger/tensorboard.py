"""Log to TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class TensorboardLoggerHook(LoggerHook):
    """Writes event files for TensorBoard.

    Args:
        log_dir: their folder; by default ``tf_logs`` in the runner's ``work_dir``.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        by_epoch: the runner is epoch-based.

    Raises:
        ImportError: when the run starts, if the extra is not installed.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.log_dir = log_dir
        self.writer: Any = None

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Open the event file."""
        super().before_run(runner)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorboardLoggerHook needs tensorboard: pip install cv-runner[tensorboard]"
            ) from error
        if self.log_dir is None:
            self.log_dir = str(Path(runner.work_dir or ".", "tf_logs"))
        self.writer = SummaryWriter(self.log_dir)
        runner.at_exit(self.writer.close)

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Write scalars and texts."""
        for tag, value in self.get_loggable_tags(runner, allow_text=True).items():
            if isinstance(value, str):
                self.writer.add_text(tag, value, self.get_iter(runner))
            else:
                self.writer.add_scalar(tag, value, self.get_iter(runner))
