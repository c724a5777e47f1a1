"""Train iteration by iteration."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import torch

from cv.runner.base_runner import BaseRunner, Workflow, check_workflow
from cv.runner.builder import RUNNERS
from cv.runner.data_position import DataPass
from cv.runner.hook_registration import HookConfig
from cv.runner.hooks.logger.base import LoggerHook
from cv.runner.utils import get_host_info

#: So many values per name stay in the log buffer at least; nothing else empties it here.
_KEPT_VALUES = 10_000


class IterLoader:
    """Draws from a data loader again and again, without end.

    Args:
        dataloader: the loader; a sampler with ``set_epoch`` is told each pass's number.
    """

    def __init__(self, dataloader: Any) -> None:
        self._dataloader = dataloader
        self._pass: DataPass | None = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Finished passes."""
        return self._epoch

    def __len__(self) -> int:
        return len(self._dataloader)

    def __iter__(self) -> IterLoader:
        return self

    def __next__(self) -> Any:
        if self._pass is None:
            self._pass = DataPass(self._dataloader)
        try:
            return next(self._pass)
        except StopIteration:
            self._epoch += 1
            self._set_epoch()
            self._pass = DataPass(self._dataloader)
            try:
                return next(self._pass)
            except StopIteration:
                raise ValueError("the data loader is empty: there is no batch to train on") from None

    def state_dict(self) -> dict[str, Any]:
        """Finished passes and the position in the current one."""
        return {"epoch": self._epoch, "pass": self._pass.position() if self._pass is not None else None}

    def load_state_dict(self, state: dict[str, Any], logger: Any = None) -> None:
        """Go to a position that :meth:`state_dict` returned."""
        self._epoch = state["epoch"]
        if self._epoch:
            self._set_epoch()
        self._pass = DataPass(self._dataloader, state["pass"], logger) if state["pass"] is not None else None

    def _set_epoch(self) -> None:
        for sampler in (
            getattr(self._dataloader, "sampler", None),
            getattr(getattr(self._dataloader, "batch_sampler", None), "sampler", None),
        ):
            if sampler is not None and hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self._epoch)
                return


@RUNNERS.register_module()
class IterBasedRunner(BaseRunner):
    """Runs iterations: train so many, maybe validate some, and so on, over loaders that never end.

    Args: see :class:`BaseRunner`.
    """

    _iter_loaders: list[IterLoader] | None = None

    def train(self, data_loader: IterLoader, **kwargs: Any) -> None:
        """Train one iteration."""
        self.model.train()
        self.mode = "train"
        self.data_loader = data_loader
        self._epoch = data_loader.epoch
        self.data_batch = next(data_loader)
        self.call_hook("before_train_iter")
        self.run_iter(self.data_batch, True, **kwargs)
        self.call_hook("after_train_iter")
        self.data_batch = None
        self._inner_iter += 1
        self._iter += 1

    @torch.no_grad()
    def val(self, data_loader: IterLoader, **kwargs: Any) -> None:
        """Validate one iteration."""
        self.model.eval()
        self.mode = "val"
        self.data_loader = data_loader
        self.data_batch = next(data_loader)
        self.call_hook("before_val_iter")
        self.run_iter(self.data_batch, False, **kwargs)
        self.call_hook("after_val_iter")
        self.data_batch = None
        self._inner_iter += 1

    def run(
        self,
        data_loaders: list[Any],
        workflow: Workflow,
        max_iters: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Start running.

        Args:
            data_loaders: one loader per entry of the workflow.
            workflow: ``(phase, iterations)`` pairs in their order;
                ``[('train', 10000), ('val', 1000)]`` trains for 10000 iterations and validates for 1000,
                again and again. A phase is the name of a method.
            max_iters: deprecated, give it to the constructor.
            **kwargs: handed to the model's step with every batch.

        Raises:
            AssertionError: the arguments do not fit together, or no ``max_iters`` is known.
            ValueError: an unknown phase.
        """
        check_workflow(data_loaders, workflow)
        if max_iters is not None:
            warnings.warn(
                "setting max_iters in run is deprecated, please set max_iters in runner_config",
                DeprecationWarning,
                stacklevel=2,
            )
            self._max_iters = max_iters
        if self._max_iters is None:
            raise AssertionError("max_iters must be specified during instantiation")
        phases = [(self._phase(mode), mode, iters) for mode, iters in workflow]

        self.logger.info("Start running, host: %s, work_dir: %s", get_host_info(), self.work_dir or "NONE")
        self.logger.info("Hooks will be executed in the following order:\n%s", self.get_hook_info())
        self.logger.info("workflow: %s, max: %d iters", workflow, self._max_iters)
        intervals = [hook.interval for hook in self._hooks if isinstance(hook, LoggerHook)]
        self.log_buffer.max_history = max([_KEPT_VALUES, *intervals])
        loaders = self._iter_loaders = [IterLoader(loader) for loader in data_loaders]
        with self._running():
            self.call_hook("before_run")
            self.call_hook("before_epoch")
            first, done = self._go_to_position(loaders)
            left_over = (first, done) != (0, 0)
            while self.iter < self._max_iters or left_over:
                for self._flow in range(first, len(phases)):
                    run_phase, mode, iters = phases[self._flow]
                    if not left_over:
                        self._inner_iter = 0
                    left_over = False
                    for self._repeat in range(done, iters):
                        if mode == "train" and self.iter >= self._max_iters:
                            break
                        run_phase(loaders[self._flow], **kwargs)
                        if self._stop.to_ask:
                            self._leave_if_asked()
                    done = 0
                first = 0
            self.call_hook("after_epoch")
            self.call_hook("after_run")

    def _go_to_position(self, loaders: list[IterLoader]) -> tuple[int, int]:
        """After a resume: loaders, generators and log as they were; the place in the workflow."""
        first, done = self._take_resumed("workflow") or (0, 0)
        if first >= len(loaders):  # another workflow than the one that was saved
            first, done = 0, 0
        for loader, state in zip(loaders, self._take_resumed("data") or [], strict=False):
            loader.load_state_dict(state, self.logger)
        self._flow, self._repeat = first, done - 1
        if self._pending_stage is not None:
            self.mode = "train"
            self.model.train()
            self.data_loader = loaders[first]
            self._epoch = self._take_resumed("epoch")
        self._restore_streams()
        self._inner_iter += self._finish_stage("after_train_iter")
        return first, done

    def _data_position(self) -> Any:
        return [loader.state_dict() for loader in self._iter_loaders] if self._iter_loaders else None

    def _workflow_position(self) -> tuple[int, int]:
        if self.mode is None:
            return 0, 0
        return self._flow, self._repeat + (self._stage in ("after_train_iter", None))

    def save_checkpoint(  # type: ignore[override] # documented with meta before save_optimizer
        self,
        out_dir: str,
        filename_tmpl: str = "iter_{}.pth",
        meta: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        create_symlink: bool = True,
    ) -> None:
        """Save a checkpoint that training can go on from exactly.

        Args:
            out_dir: folder to save in.
            filename_tmpl: file name with a place for the number of the iteration.
            meta: further meta data.
            save_optimizer: also what only training needs: optimizers and the exact position.
            create_symlink: let ``latest.pth`` point at the file.
        """
        self._save(
            os.fspath(out_dir),
            filename_tmpl.format(self._iter + 1),
            {"epoch": self._epoch + 1, "iter": self._iters_done()},
            save_optimizer=save_optimizer,
            meta=meta,
            create_symlink=create_symlink,
        )

    def register_training_hooks(  # type: ignore[override] # documented without timer_config in its place
        self,
        lr_config: HookConfig,
        optimizer_config: HookConfig = None,
        checkpoint_config: HookConfig = None,
        log_config: dict[str, Any] | None = None,
        momentum_config: HookConfig = None,
        custom_hooks_config: Any = None,
        *,
        timer_config: HookConfig = {"type": "IterTimerHook"},  # noqa: B006 - documented default
    ) -> None:
        """Register the default hooks, with ``by_epoch=False`` unless a config says otherwise.

        ==================== ====================
        Hooks                Priority
        ==================== ====================
        LrUpdaterHook        VERY_HIGH (10)
        MomentumUpdaterHook  HIGH (30)
        OptimizerStepperHook ABOVE_NORMAL (40)
        CheckpointSaverHook  NORMAL (50)
        IterTimerHook        LOW (70)
        LoggerHook(s)        VERY_LOW (90)
        CustomHook(s)        defaults to NORMAL (50)
        ==================== ====================

        Custom hooks come after default hooks of the same priority.
        """
        if log_config is not None:
            log_config = copy.deepcopy(dict(log_config))
            log_config["hooks"] = [_by_iter(info) for info in log_config["hooks"]]
        super().register_training_hooks(
            _by_iter(lr_config),
            optimizer_config=optimizer_config,
            checkpoint_config=_by_iter(checkpoint_config),
            log_config=log_config,
            momentum_config=_by_iter(momentum_config),
            timer_config=timer_config,
            custom_hooks_config=custom_hooks_config,
        )


def _by_iter(config: Any) -> Any:
    return {"by_epoch": False, **config} if isinstance(config, dict) else config
