"""Log to Pavi, whose client is not public: written against the interface that its users know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv.parallel.registry import unwrap
from cv.runner.dist_utils import master_only
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class PaviLoggerHook(LoggerHook):
    """Logs metrics to Pavi. The package ``pavi`` is not on a public index; this hook could not be tried
    against its service.

    Args:
        init_kwargs: arguments of ``pavi.SummaryWriter``; ``session_text`` is filled from the run's
            configuration.
        add_graph: also the model's graph.
        add_last_ckpt: upload the last checkpoint when the run ends.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        by_epoch: the runner is epoch-based.
        img_key: the key of the image in a batch, for the graph.
    """

    def __init__(
        self,
        init_kwargs: dict[str, Any] | None = None,
        add_graph: bool = False,
        add_last_ckpt: bool = False,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        by_epoch: bool = True,
        img_key: str = "img_info",
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.init_kwargs = init_kwargs
        self.add_graph = add_graph
        self.add_last_ckpt = add_last_ckpt
        self.img_key = img_key
        self.writer: Any = None

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Open the session, with the run's meta data as its text."""
        super().before_run(runner)
        try:
            from pavi import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "PaviLoggerHook needs the package pavi, which is not on a public index"
            ) from error
        options = dict(self.init_kwargs or {})
        options.setdefault("name", Path(runner.work_dir or ".").name)
        options["task"] = options.get("task", options["name"])
        options["model"] = options.get("model", runner.model_name)
        if runner.meta is not None:
            text = runner.meta.get("config_dict", runner.meta)
            options["session_text"] = json.dumps(text, default=str)
        self.writer = SummaryWriter(**options)

    def get_step(self, runner: BaseRunner) -> int:
        """Get the total training step/epoch."""
        if self.get_mode(runner) == "val" and self.by_epoch:
            return self.get_epoch(runner)
        return self.get_iter(runner)

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Log numbers."""
        tags = self.get_loggable_tags(runner, add_mode=False)
        if tags:
            self.writer.add_scalars(self.get_mode(runner), tags, self.get_step(runner))

    @master_only
    def before_epoch(self, runner: BaseRunner) -> None:
        """Add the model's graph, before the first epoch."""
        super().before_epoch(runner)
        if runner.epoch == 0 and self.add_graph:
            image = next(iter(runner.data_loader))[self.img_key][0:1]
            self.writer.add_graph(unwrap(runner.model), image)

    @master_only
    def after_run(self, runner: BaseRunner) -> None:
        """Upload the last checkpoint, if asked to."""
        if self.add_last_ckpt and runner.work_dir is not None:
            latest = Path(runner.work_dir, "latest.pth")
            if latest.exists():
                self.writer.add_snapshot_file(
                    tag=Path(runner.work_dir).name,
                    snapshot_file_path=str(latest.resolve()),
                    iteration=runner.iter,
                )
        self.writer.close()
