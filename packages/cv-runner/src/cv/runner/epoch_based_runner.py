"""Train epoch by epoch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch

from cv.runner.base_runner import BaseRunner, Workflow, check_workflow
from cv.runner.builder import RUNNERS
from cv.runner.data_position import DataPass
from cv.runner.dist_utils import check_even
from cv.runner.rng import capture_rng
from cv.runner.utils import get_host_info


@RUNNERS.register_module()
class EpochBasedRunner(BaseRunner):
    """Runs whole passes over data loaders: train for an epoch, maybe validate, and so on.

    Args: see :class:`BaseRunner`.
    """

    _data_pass: DataPass | None = None

    def train(self, data_loader: Any, **kwargs: Any) -> None:
        """Train one epoch: the rest of it, where the run was resumed in its middle."""
        self.model.train()
        self.mode = "train"
        self.data_loader = data_loader
        self._max_iters = self._max_epochs * len(data_loader) if self._max_epochs is not None else None
        if self._world_size > 1:
            check_even(data_loader, "an epoch cannot be trained")
        position = self._take_resumed("data")
        if position is None:
            self._inner_iter = 0
        self.call_hook("before_train_epoch")
        batches = self._data_pass = DataPass(data_loader, position, self.logger)
        self._restore_streams()
        self._mid_epoch = True
        self._finish_stage("after_train_iter")
        for i, data_batch in enumerate(batches, start=batches.batches):
            self.data_batch = data_batch
            self._inner_iter = i
            self.call_hook("before_train_iter")
            self.run_iter(data_batch, train_mode=True, **kwargs)
            self.call_hook("after_train_iter")
            self.data_batch = None
            self._iter += 1
            if self._stop.to_ask:
                self._leave_if_asked()
        self._mid_epoch = False
        self._data_pass = None
        self.call_hook("after_train_epoch")
        self._epoch += 1

    @torch.no_grad()
    def val(self, data_loader: Any, **kwargs: Any) -> None:
        """Validate on one pass over a data loader."""
        self.model.eval()
        self.mode = "val"
        self.data_loader = data_loader
        self.call_hook("before_val_epoch")
        for i, data_batch in enumerate(data_loader):
            self.data_batch = data_batch
            self._inner_iter = i
            self.call_hook("before_val_iter")
            self.run_iter(data_batch, train_mode=False, **kwargs)
            self.call_hook("after_val_iter")
            self.data_batch = None
            if self._world_size == 1:  # ranks may have different numbers of batches here
                self._leave_if_asked(redo_phase=True)
        self.call_hook("after_val_epoch")

    def run(
        self,
        data_loaders: list[Any],
        workflow: Workflow,
        max_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Start running.

        Args:
            data_loaders: one loader per entry of the workflow.
            workflow: ``(phase, epochs)`` pairs in their order; ``[('train', 2), ('val', 1)]`` trains for
                two epochs and validates for one, again and again. A phase is the name of a method.
            max_epochs: deprecated, give it to the constructor.
            **kwargs: handed to the model's step with every batch.

        Raises:
            AssertionError: the arguments do not fit together, or no ``max_epochs`` is known.
            ValueError: an unknown phase.
        """
        check_workflow(data_loaders, workflow)
        if max_epochs is not None:
            warnings.warn(
                "setting max_epochs in run is deprecated, please set max_epochs in runner_config",
                DeprecationWarning,
                stacklevel=2,
            )
            self._max_epochs = max_epochs
        if self._max_epochs is None:
            raise AssertionError("max_epochs must be specified during instantiation")
        for (mode, _), loader in zip(workflow, data_loaders, strict=True):
            if mode == "train":
                self._max_iters = self._max_epochs * len(loader)
                self.data_loader = loader
                break
        phases = [(self._phase(mode), mode, epochs) for mode, epochs in workflow]

        self.logger.info("Start running, host: %s, work_dir: %s", get_host_info(), self.work_dir or "NONE")
        self.logger.info("Hooks will be executed in the following order:\n%s", self.get_hook_info())
        self.logger.info("workflow: %s, max: %d epochs", workflow, self._max_epochs)
        with self._running():
            self.call_hook("before_run")
            self._run_workflow(phases, data_loaders, kwargs)
            self.call_hook("after_run")

    def _run_workflow(
        self,
        phases: list[tuple[Callable[..., Any], str, int]],
        data_loaders: list[Any],
        kwargs: dict[str, Any],
    ) -> None:
        assert self._max_epochs is not None
        self._finish_epoch(data_loaders)
        first, done = self._take_resumed("workflow") or (0, 0)
        left_over = (first, done) != (0, 0)  # phases that follow the last training epoch, for one
        while self.epoch < self._max_epochs or left_over:
            left_over = False
            for self._flow in range(first, len(phases)):
                run_phase, mode, epochs = phases[self._flow]
                for self._repeat in range(done, epochs):
                    if mode == "train" and self.epoch >= self._max_epochs:
                        break
                    self._phase_start = capture_rng()
                    run_phase(data_loaders[self._flow], **kwargs)
                    self._leave_if_asked(between=True)
                done = 0
            first = 0

    def _finish_epoch(self, data_loaders: list[Any]) -> None:
        """After a resume: call the hooks of ``after_train_epoch`` that had not been called at the save."""
        if self._pending_stage != "after_train_epoch":
            if self._resumed.get("data") is None:
                self._restore_streams()
            return
        self._epoch -= 1  # they ran before it was counted
        self.mode = "train"
        flow, _ = self._resumed.get("workflow") or (0, 0)
        self.data_loader = data_loaders[flow if flow < len(data_loaders) else 0]
        self._restore_streams()
        self._finish_stage("after_train_epoch")
        self._epoch += 1

    def _data_position(self) -> Any:
        if self._data_pass is None:
            return None
        position = self._data_pass.position()
        position["batches"] -= self._stage == "before_train_iter"  # drawn, but not trained on
        return position

    def save_checkpoint(
        self,
        out_dir: str,
        filename_tmpl: str = "epoch_{}.pth",
        save_optimizer: bool = True,
        meta: dict[str, Any] | None = None,
        create_symlink: bool = True,
        *,
        by_epoch: bool = True,
    ) -> None:
        """Save a checkpoint that training can go on from exactly.

        Args:
            out_dir: folder to save in.
            filename_tmpl: file name with a place for the number of the epoch.
            save_optimizer: also what only training needs: optimizers and the exact position.
            meta: further meta data.
            create_symlink: let ``latest.pth`` point at the file.
            by_epoch: put the number of the epoch into the name; else that of the iteration.
        """
        finished = self._epoch + (self._stage == "after_train_epoch")
        number = self._epoch + 1 if by_epoch else self._iters_done()
        self._save(
            os.fspath(out_dir),
            filename_tmpl.format(number),
            {"epoch": finished, "iter": self._iters_done()},
            save_optimizer=save_optimizer,
            meta=meta,
            create_symlink=create_symlink,
        )


@RUNNERS.register_module()
class Runner(EpochBasedRunner):
    """Deprecated name of :class:`EpochBasedRunner`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(
            "Runner was deprecated, please use EpochBasedRunner instead", DeprecationWarning, stacklevel=2
        )
        super().__init__(*args, **kwargs)
