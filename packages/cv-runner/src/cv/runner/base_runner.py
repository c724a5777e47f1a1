"""What all runners share: hooks, counters, saving and resuming."""

from __future__ import annotations

import logging
import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cv.cnn.checkpoint.dtensor import mesh_of
from cv.cnn.checkpoint.state_dict import load_state_dict, revise_keys_of, state_dict_of
from cv.parallel.registry import is_module_wrapper, unwrap
from cv.runner.checkpoint import load_checkpoint
from cv.runner.dist_utils import get_dist_info
from cv.runner.interrupt import StopRequest, TrainingInterrupted
from cv.runner.log_buffer import LogBuffer
from cv.runner.resume_state import ResumeState
from cv.runner.utils import get_time_str
from cv.utils import get_logger, is_list_of

Workflow = list[tuple[str, int]]
Optimizers = Optimizer | dict[str, Optimizer]


class BaseRunner(ResumeState, metaclass=ABCMeta):
    """A training helper: it owns the loop, hooks do the rest.

    Subclasses implement ``run``, ``train``, ``val`` and ``save_checkpoint``.

    Args:
        model: the model. Its ``train_step(data_batch, optimizer)`` and ``val_step(data_batch, optimizer)``
            return a dict with ``loss``, and ``log_vars`` and ``num_samples`` for the log.
        batch_processor: deprecated: a callable ``(model, data, train_mode) -> dict`` used instead of the
            model's steps.
        optimizer: an optimizer, or a dict of them for models that need several.
        work_dir: folder for checkpoints and logs; made if need be.
        logger: the logger; by default the one called ``cv.runner``.
        meta: facts about the run (environment, seed, configuration) that go into logs and checkpoints.
        max_iters: iterations to train.
        max_epochs: epochs to train; only one of the two can be set.

    Raises:
        TypeError: an argument of a wrong type.
        AssertionError: the model has no ``train_step`` and there is no ``batch_processor``.
        RuntimeError: it has both.
        ValueError: both ``max_epochs`` and ``max_iters`` are set.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_processor: Callable[..., dict[str, Any]] | None = None,
        optimizer: Optimizers | None = None,
        work_dir: str | None = None,
        logger: logging.Logger | None = None,
        meta: dict[str, Any] | None = None,
        max_iters: int | None = None,
        max_epochs: int | None = None,
    ) -> None:
        _check_step(model, batch_processor)
        _check_optimizer(optimizer)
        if logger is not None and not isinstance(logger, logging.Logger):
            raise TypeError(f"logger must be a logging.Logger object, got {type(logger).__name__}")
        if meta is not None and not isinstance(meta, dict):
            raise TypeError(f"meta must be a dict or None, got {type(meta).__name__}")
        if max_epochs is not None and max_iters is not None:
            raise ValueError(
                f"Only one of max_epochs and max_iters can be set, got {max_epochs} and {max_iters}"
            )
        self.model = model
        self.batch_processor = batch_processor
        self.optimizer = optimizer
        self.logger = get_logger("cv.runner") if logger is None else logger
        self.meta = meta
        self.work_dir = _make_work_dir(work_dir)
        self._model_name = type(unwrap(model)).__name__
        self._rank, self._world_size = get_dist_info()
        self.timestamp = get_time_str()
        self.mode: str | None = None
        self.data_loader: Any = None
        #: The batch of the iteration under way.
        self.data_batch: Any = None
        self.outputs: dict[str, Any] | None = None
        self._epoch = 0
        self._iter = 0
        self._inner_iter = 0
        self._max_epochs = max_epochs
        self._max_iters = max_iters
        self.log_buffer = LogBuffer()
        #: Called around every step: a mixed-precision hook puts an autocast there.
        self.step_context: Callable[[], Any] | None = None
        self._at_exit = ExitStack()
        self._stop = StopRequest(self.logger)
        super().__init__()

    @property
    def model_name(self) -> str:
        """Name of the model's class."""
        return self._model_name

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Number of processes in the job."""
        return self._world_size

    @property
    def epoch(self) -> int:
        """Finished training epochs."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Finished training iterations."""
        return self._iter

    @property
    def inner_iter(self) -> int:
        """Iteration within the epoch."""
        return self._inner_iter

    @property
    def max_epochs(self) -> int | None:
        """Epochs to train."""
        return self._max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations to train."""
        return self._max_iters

    @abstractmethod
    def train(self, data_loader: Any, **kwargs: Any) -> None:
        """Train one epoch or iteration."""

    @abstractmethod
    def val(self, data_loader: Any, **kwargs: Any) -> None:
        """Validate one epoch or iteration."""

    @abstractmethod
    def run(self, data_loaders: list[Any], workflow: Workflow, **kwargs: Any) -> None:
        """Run the workflow."""

    @abstractmethod
    def save_checkpoint(
        self,
        out_dir: str,
        filename_tmpl: str,
        save_optimizer: bool = True,
        meta: dict[str, Any] | None = None,
        create_symlink: bool = True,
    ) -> None:
        """Save a checkpoint."""

    def current_lr(self) -> list[float] | dict[str, list[float]]:
        """The learning rates of all parameter groups; per name where there are several optimizers.

        Raises:
            RuntimeError: there is no optimizer.
        """
        return self._per_optimizer(lambda optimizer: [group["lr"] for group in optimizer.param_groups], "lr")

    def current_momentum(self) -> list[float] | dict[str, list[float]]:
        """The momenta (the first beta of Adam's kin) of all parameter groups, as :meth:`current_lr`.

        Raises:
            RuntimeError: there is no optimizer.
        """
        return self._per_optimizer(_momenta, "momentum")

    def _per_optimizer(
        self, read: Callable[[Optimizer], list[float]], what: str
    ) -> list[float] | dict[str, list[float]]:
        if isinstance(self.optimizer, Optimizer):
            return read(self.optimizer)
        if isinstance(self.optimizer, dict):
            return {name: read(optimizer) for name, optimizer in self.optimizer.items()}
        raise RuntimeError(f"{what} is not applicable because optimizer does not exist.")

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = [(r"^module\.", "")],  # noqa: B006 - documented default
    ) -> Any:
        """Load weights into the model, see :func:`cv.runner.load_checkpoint`."""
        mesh = mesh_of(self.model)
        if mesh is not None and Path(filename).is_dir():
            from cv.cnn.checkpoint.sharded import read_sharded_checkpoint

            checkpoint = read_sharded_checkpoint(filename, mesh=mesh)  # each rank its share only
            weights = revise_keys_of(state_dict_of(checkpoint, str(filename)), revise_keys)
            load_state_dict(self.model, weights, strict, self.logger)
            return checkpoint
        return load_checkpoint(
            self.model, filename, map_location, strict, self.logger, revise_keys=revise_keys
        )

    # ------------------------------------------------------------------------------------ the loop

    def run_iter(self, data_batch: Any, train_mode: bool, **kwargs: Any) -> None:
        """Hand one batch to the model; keep its outputs, and its ``log_vars`` in the log buffer.

        Raises:
            TypeError: the model's step does not return a dict.
        """
        if kwargs or self.step_context is not None or self.batch_processor is not None:
            outputs = self._step(data_batch, train_mode, kwargs)
        else:  # the usual case without detours: see bench_runner_overhead.py
            model: Any = self.model
            step = model.train_step if train_mode else model.val_step
            outputs = step(data_batch, self.optimizer)
        if type(outputs) is not dict and not isinstance(outputs, dict):
            raise TypeError(
                "batch_processor() or model.train_step() and model.val_step() must return a dict, "
                f"got {type(outputs).__name__}"
            )
        if "log_vars" in outputs:
            samples = outputs["num_samples"] if "num_samples" in outputs else 1  # noqa: SIM401 - no call
            self.log_buffer.update(outputs["log_vars"], samples)
        self.outputs = outputs

    def _step(self, data_batch: Any, train_mode: bool, kwargs: dict[str, Any]) -> Any:
        model: Any = self.model
        if self.batch_processor is not None:
            step = partial(self.batch_processor, model, data_batch, train_mode=train_mode)
        else:
            step = partial(model.train_step if train_mode else model.val_step, data_batch, self.optimizer)
        with nullcontext() if self.step_context is None else self.step_context():
            return step(**kwargs)

    def _phase(self, mode: Any) -> Callable[..., Any]:
        """The method that a workflow entry names."""
        if not isinstance(mode, str):
            raise TypeError(f"mode in workflow must be a str, got {type(mode).__name__}")
        if not hasattr(self, mode):
            raise ValueError(f'runner has no method named "{mode}" to run an epoch')
        method: Callable[..., Any] = getattr(self, mode)
        return method

    def at_exit(self, callback: Callable[[], Any]) -> None:
        """Have something called when ``run`` ends, also by an exception."""
        self._at_exit.callback(callback)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Around the loop: signals are noted, and what hooks left for :meth:`at_exit` is called."""
        with ExitStack() as stack:
            self._at_exit = stack
            self._load_hook_states()
            if self._checkpoint_hook() is not None:
                stack.enter_context(self._stop.listening())
            yield

    def _leave_if_asked(self, *, between: bool = False, redo_phase: bool = False) -> None:
        """Where a signal asked to stop: save, say how to go on, and raise.

        Args:
            between: between two phases, where all ranks meet.
            redo_phase: in the middle of a phase that a resumed run begins again.
        """
        if not self._stop.agreed(now=between):
            return
        if redo_phase:
            self._redo_phase = {
                "ranks": [{"rng": self._phase_start, "data": None}],
                "workflow": [self._flow, self._repeat],
            }
        assert self._stop.signal is not None
        hook = self._checkpoint_hook()
        assert hook is not None  # else nobody listens to signals
        path = hook.save_now(self)
        self.logger.warning(
            "Stopped by %s after %d iterations, saved as %s. To go on: the same command with --resume, "
            "or runner.resume(%r) before runner.run(…).",
            self._stop.signal.name, self._iter, path, path,
        )  # fmt: skip
        raise TrainingInterrupted(128 + int(self._stop.signal))


def check_workflow(data_loaders: Any, workflow: Any) -> None:
    """Validate the arguments of ``run``.

    Raises:
        AssertionError: no lists, or of different lengths (the documented type of that error).
    """
    if not isinstance(data_loaders, list):
        raise AssertionError(f"data_loaders must be a list, got {type(data_loaders).__name__}")
    if not is_list_of(workflow, tuple):
        raise AssertionError(f"workflow must be a list of (phase, count) tuples, got {workflow!r}")
    if len(data_loaders) != len(workflow):
        raise AssertionError(
            "data_loaders and workflow must have the same length, "
            f"got {len(data_loaders)} and {len(workflow)}"
        )


def _check_step(model: Any, batch_processor: Any) -> None:
    has_step = hasattr(model.module if is_module_wrapper(model) else model, "train_step")
    if batch_processor is None:
        if not has_step:
            raise AssertionError(f"{type(model).__name__} must have train_step, or give a batch_processor")
        return
    if not callable(batch_processor):
        raise TypeError(f"batch_processor must be callable, got {type(batch_processor).__name__}")
    warnings.warn(
        "batch_processor is deprecated, please implement train_step() and val_step() in the model instead.",
        DeprecationWarning,
        stacklevel=3,
    )
    if has_step:
        raise RuntimeError(
            "batch_processor and model.train_step()/model.val_step() cannot be both available. "
            "Implement train_step() and val_step() in the model and do not give a batch_processor."
        )


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, dict):
        for name, each in optimizer.items():
            if not isinstance(each, Optimizer):
                raise TypeError(
                    f"optimizer must be a dict of torch.optim.Optimizer, but optimizer[{name!r}] is a "
                    f"{type(each).__name__}"
                )
    elif optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(
            "optimizer must be a torch.optim.Optimizer, a dict of them or None, "
            f"got {type(optimizer).__name__}"
        )


def _make_work_dir(work_dir: Any) -> str | None:
    if work_dir is None:
        return None
    if not isinstance(work_dir, (str, os.PathLike)):
        raise TypeError(f"work_dir must be a str or None, got {type(work_dir).__name__}")
    path = Path(work_dir).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _momenta(optimizer: Optimizer) -> list[float]:
    return [
        group["momentum"] if "momentum" in group else group["betas"][0] if "betas" in group else 0
        for group in optimizer.param_groups
    ]
