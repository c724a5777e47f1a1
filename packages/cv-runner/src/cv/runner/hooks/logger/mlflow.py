"""Log to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv.parallel.registry import unwrap
from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class MlflowLoggerHook(LoggerHook):
    """Logs metrics and, at the end, the model to MLflow.

    Args:
        exp_name: the experiment; made if need be. Default: MLflow's current one.
        tags: tags of the run.
        log_model: log the model as an artifact when the run ends.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        by_epoch: the runner is epoch-based.

    Raises:
        ImportError: if MLflow is not installed.
    """

    def __init__(
        self,
        exp_name: str | None = None,
        tags: dict[str, Any] | None = None,
        log_model: bool = True,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.import_mlflow()
        self.exp_name = exp_name
        self.tags = tags
        self.log_model = log_model

    def import_mlflow(self) -> None:
        """Import the package, or say how to install it."""
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("MlflowLoggerHook needs mlflow: pip install cv-runner[mlflow]") from error
        self.mlflow: Any = mlflow

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Choose the experiment and set the tags."""
        super().before_run(runner)
        if self.exp_name is not None:
            self.mlflow.set_experiment(self.exp_name)
        if self.tags is not None:
            self.mlflow.set_tags(self.tags)

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Log numbers."""
        tags = self.get_loggable_tags(runner)
        if tags:
            self.mlflow.log_metrics({k: float(v) for k, v in tags.items()}, step=self.get_iter(runner))

    @master_only
    def after_run(self, runner: BaseRunner) -> None:
        """Log the model, if asked to."""
        if self.log_model:
            from mlflow import pytorch

            pytorch.log_model(unwrap(runner.model), name="models")
