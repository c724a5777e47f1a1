"""Profile some iterations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class ProfilerHook(Hook):
    """Records a part of the training with ``torch.profiler``.

    Args:
        by_epoch: record the first ``profile_iters`` epochs, else as many iterations.
        profile_iters: how many.
        activities: ``'cpu'`` and ``'cuda'``.
        schedule: arguments of ``torch.profiler.schedule`` (``wait``, ``warmup``, ``active`` …).
        on_trace_ready: what to do with the record: a callable that gets the profiler;
            ``dict(type='log_trace', …)`` logs a table with the arguments of ``key_averages().table``;
            ``dict(type='tb_trace', dir_name=…)`` writes files for TensorBoard, by default into the
            runner's ``work_dir``.
        record_shapes: also the shapes of inputs.
        profile_memory: also memory.
        with_stack: also where in the source.
        with_flops: also estimates of floating-point operations.
        json_trace_path: where to write a Chrome trace at the end.

    Raises:
        AssertionError: an argument of a wrong type.
        ValueError: an activity that does not exist, or ``profile_iters`` less than one.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        profile_iters: int = 1,
        activities: list[str] = ["cpu", "cuda"],  # noqa: B006 - documented default
        schedule: dict[str, Any] | None = None,
        on_trace_ready: Callable[..., Any] | dict[str, Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        json_trace_path: str | None = None,
    ) -> None:
        if not isinstance(by_epoch, bool):
            raise AssertionError(f"by_epoch must be a bool, got {by_epoch!r}")
        if profile_iters < 1:
            raise ValueError(f"profile_iters should be greater than 0, got {profile_iters}")
        if not isinstance(activities, list):
            raise AssertionError(f"activities must be a list, got {type(activities).__name__}")
        if schedule is not None and not isinstance(schedule, dict):
            raise AssertionError(f"schedule must be a dict, got {type(schedule).__name__}")
        self.by_epoch = by_epoch
        self.profile_iters = profile_iters
        self.activities = [_activity(name) for name in activities]
        self.schedule = None if schedule is None else _schedule(schedule)
        self.on_trace_ready = on_trace_ready
        self.record_shapes = record_shapes
        self.profile_memory = profile_memory
        self.with_stack = with_stack
        self.with_flops = with_flops
        self.json_trace_path = json_trace_path
        self.profiler: Any = None

    def before_run(self, runner: BaseRunner) -> None:
        """Start recording.

        Raises:
            ValueError: the run is shorter than what should be recorded, or ``on_trace_ready`` is unknown.
        """
        total = runner.max_epochs if self.by_epoch else runner.max_iters
        if total is not None and total < self.profile_iters:
            raise ValueError(
                f"profile_iters should not be greater than the run's length {total}, got {self.profile_iters}"
            )
        self.profiler = profile(
            activities=self.activities,
            schedule=self.schedule,
            on_trace_ready=self._handler(runner),
            record_shapes=self.record_shapes,
            profile_memory=self.profile_memory,
            with_stack=self.with_stack,
            with_flops=self.with_flops,
        )
        self.profiler.__enter__()
        runner.logger.info("profiler is profiling...")

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Stop after the last epoch to be recorded."""
        if self.by_epoch and runner.epoch == self.profile_iters - 1:
            self._stop(runner)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """One step of the profiler; stop after the last iteration to be recorded."""
        if self.profiler is None:
            return
        self.profiler.step()
        if not self.by_epoch and runner.iter == self.profile_iters - 1:
            self._stop(runner)

    def after_run(self, runner: BaseRunner) -> None:
        """Stop, if the run was shorter."""
        if self.profiler is not None:
            self._stop(runner)

    def _stop(self, runner: BaseRunner) -> None:
        runner.logger.info("profiler may take a few minutes...")
        profiler, self.profiler = self.profiler, None
        profiler.__exit__(None, None, None)
        if self.json_trace_path is not None:
            profiler.export_chrome_trace(self.json_trace_path)

    def _handler(self, runner: BaseRunner) -> Callable[..., Any] | None:
        if self.on_trace_ready is None or callable(self.on_trace_ready):
            return self.on_trace_ready
        if not isinstance(self.on_trace_ready, dict):
            raise ValueError(f"on_trace_ready must be a callable or a dict, got {self.on_trace_ready!r}")
        options = dict(self.on_trace_ready)
        kind = options.pop("type")
        if kind == "log_trace":
            return lambda profiler: runner.logger.info("%s", profiler.key_averages().table(**options))
        if kind == "tb_trace":
            folder = options.pop("dir_name", None) or str(Path(runner.work_dir or ".", "tf_tracing_logs"))
            handler: Callable[..., Any] = tensorboard_trace_handler(folder, **options)
            return handler
        raise ValueError(f"on_trace_ready's type must be 'log_trace' or 'tb_trace', got {kind!r}")


def _activity(name: str) -> ProfilerActivity:
    known = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA}
    if str(name).lower() not in known:
        raise ValueError(f"activity should be 'cpu' or 'cuda', got {name!r}")
    return known[name.lower()]


def _schedule(options: dict[str, Any]) -> Callable[[int], Any]:
    made: Callable[[int], Any] = schedule(**options)
    return made
