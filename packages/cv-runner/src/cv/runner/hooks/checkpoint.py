"""Save checkpoints while training."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cv.runner.checkpoint import in_folder, names_in_folder, remove_checkpoint, remove_left_overs
from cv.runner.checkpoint_writer import BackgroundWriter, ForegroundWriter
from cv.runner.dist_utils import allreduce_params
from cv.runner.hooks.hook import HOOKS, Hook, acts_if

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Saves checkpoints periodically.

    Register it on all ranks: the first one writes, the others contribute the states of their generators.
    A model that is sharded over ranks is saved by all of them, as a folder of the file's name.
    With this hook a run also saves when it gets SIGTERM or Ctrl-C, and ends.

    Args:
        interval: every so many epochs (or iterations); -1 means never.
        by_epoch: count epochs, else iterations.
        save_optimizer: also what only training needs: optimizers and the exact position.
        out_dir: folder for the checkpoints, or the URI of one (``s3://…``, without a ``latest.pth``); by
            default the runner's ``work_dir``.
        max_keep_ckpts: keep only so many of the latest; -1 keeps all.
        save_last: save after the last epoch (or iteration) in any case.
        sync_buffer: average the buffers over ranks before saving.
        on_error: what to do when a file cannot be written (disk full, no permission): ``'continue'`` logs
            the error and goes on training; the last save of a run raises in any case. ``'raise'`` ends
            the run.
        background: write in a thread; training only waits for the copy to host memory, and for a former
            save that is not finished. Not for sharded models.
        **kwargs: further arguments of the runner's ``save_checkpoint`` (``filename_tmpl``, ``meta``,
            ``create_symlink``).

    Raises:
        ValueError: ``on_error`` is neither of the two.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        out_dir: str | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        sync_buffer: bool = False,
        *,
        on_error: Literal["continue", "raise"] = "continue",
        background: bool = False,
        **kwargs: Any,
    ) -> None:
        if on_error not in ("continue", "raise"):
            raise ValueError(f"on_error must be 'continue' or 'raise', got {on_error!r}")
        self.interval = interval
        self.by_epoch = by_epoch
        self.save_optimizer = save_optimizer
        self.out_dir = out_dir
        self.max_keep_ckpts = max_keep_ckpts
        self.save_last = save_last
        self.sync_buffer = sync_buffer
        self.on_error = on_error
        self.background = background
        self.args = kwargs

    def before_run(self, runner: BaseRunner) -> None:
        """Settle the folder, and remove what a killed process left of an unfinished file."""
        if not self.out_dir:
            self.out_dir = runner.work_dir
        self.out_dir = os.fspath(self.out_dir) if self.out_dir else None
        if runner.rank == 0 and self.out_dir and "://" not in str(self.out_dir):
            remove_left_overs(Path(self.out_dir))
        if self.background:
            if runner.sharded:
                raise ValueError("CheckpointHook(background=True) does not work with a sharded model")
            writer = runner.writer = BackgroundWriter()

            def stop() -> None:
                runner.writer = ForegroundWriter()
                writer.close()

            runner.at_exit(stop)

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Save after an n-th epoch, or the last."""
        if not self.by_epoch:
            return
        last = self.is_last_epoch(runner)
        if self.every_n_epochs(runner, self.interval) or (self.save_last and last):
            runner.logger.info("Saving checkpoint at %d epochs", runner.epoch + 1)
            self._sync_and_save(runner, last=last)

    @acts_if(lambda hook: not hook.by_epoch)
    def after_train_iter(self, runner: BaseRunner) -> None:
        """Save after an n-th iteration, or the last."""
        if self.by_epoch:
            return
        last = self.is_last_iter(runner)
        if self.every_n_iters(runner, self.interval) or (self.save_last and last):
            runner.logger.info("Saving checkpoint at %d iterations", runner.iter + 1)
            self._sync_and_save(runner, last=last)

    def save_now(self, runner: BaseRunner) -> str:
        """Save out of turn, between two iterations; the path of the checkpoint."""
        runner.gather_rank_states()
        name = f"iter_{runner.iter}.pth"
        if runner.rank == 0 or runner.sharded:
            self._save(runner, {**self.args, "filename_tmpl": name}, name)
            runner.writer.finish()
        assert self.out_dir is not None
        return in_folder(self.out_dir, name)

    def _sync_and_save(self, runner: BaseRunner, *, last: bool) -> None:
        if self.sync_buffer:
            allreduce_params(runner.model.buffers())
        runner.gather_rank_states()
        if runner.rank != 0 and not runner.sharded:
            return
        template = self.args.get("filename_tmpl", "epoch_{}.pth" if self.by_epoch else "iter_{}.pth")
        number = runner.epoch + 1 if self.by_epoch else runner.iter + 1
        args = {**self.args, "filename_tmpl": template.format(number)}
        try:
            self._save(runner, args, template.format(number))
        except OSError as error:  # with a save in the background: of the former one
            if self.on_error == "raise" or (last and not self.background):
                raise
            runner.logger.error(
                "The checkpoint could not be saved, training goes on: %s. The former one is intact.", error
            )
            if not self.background:
                return
        if last:
            runner.writer.finish()
        if self.max_keep_ckpts > 0 and runner.rank == 0:
            runner.writer.then(lambda: self._remove_old(template, number))

    def _save(self, runner: BaseRunner, args: dict[str, Any], name: str) -> None:
        if not self.out_dir:
            raise ValueError("CheckpointHook needs out_dir, or the runner a work_dir")
        runner.save_checkpoint(self.out_dir, save_optimizer=self.save_optimizer, **args)
        if runner.meta is None:
            runner.meta = {}
        runner.meta.setdefault("hook_msgs", {})["last_ckpt"] = in_folder(self.out_dir, name)

    def _remove_old(self, template: str, current: int) -> None:
        """Remove the oldest of the numbered checkpoints, up to the current one; later ones are not ours."""
        assert self.out_dir is not None
        pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))
        numbered = sorted(
            (int(match[1]), name)
            for name in names_in_folder(self.out_dir)
            if (match := pattern.fullmatch(name)) and int(match[1]) <= current
        )
        for _, name in numbered[: -self.max_keep_ckpts]:
            remove_checkpoint(in_folder(self.out_dir, name))
