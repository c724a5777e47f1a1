"""Evaluate while training, and keep the best checkpoint."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from cv.runner.checkpoint import in_folder, remove_checkpoint
from cv.runner.hooks.hook import HOOKS, Hook, acts_if
from cv.runner.hooks.logger.base import LoggerHook
from cv.utils import is_seq_of

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class EvalHook(Hook):
    """Evaluates the model on a data loader, every so often.

    It calls ``dataset.evaluate(results, logger=runner.logger, **eval_kwargs)``, logs what that returns
    and, with ``save_best``, keeps the checkpoint with the best value of one metric:
    ``best_<key>_epoch_<n>.pth`` (or ``iter``). Score and path are in ``runner.meta['hook_msgs']`` as
    ``best_score`` and ``best_ckpt`` and are known again after a resume. Register it with priority LOW.

    Args:
        dataloader: a ``torch.utils.data.DataLoader`` whose dataset has ``evaluate``.
        start: first epoch (or iteration) to evaluate at; where training starts at or after it, also
            evaluate before training. Default: only ``interval`` decides.
        interval: every so many epochs (or iterations) from ``start`` on. A dict ``{0: 10, 90: 1}`` changes
            the interval on the way: 10 at first, 1 from the 90th on.
        by_epoch: count epochs, else iterations.
        save_best: the metric to keep the best checkpoint by; ``'auto'`` takes the first one returned.
        rule: ``'greater'`` or ``'less'``; by default the name of the metric tells.
        test_fn: called with model and data loader, returns the results; by default
            :func:`cv.engine.single_gpu_test`.
        greater_keys: names of metrics where more is better, instead of the usual ones.
        less_keys: names of metrics where less is better, instead of the usual ones.
        out_dir: where to keep the best checkpoint; by default the runner's ``work_dir``.
        **eval_kwargs: handed to ``evaluate``.

    Raises:
        TypeError: ``dataloader`` is not a DataLoader.
        ValueError: ``interval`` or ``start`` is out of range, or the rule cannot be told.
        AssertionError: ``save_best`` is not a str.
        KeyError: an unknown ``rule``.
    """

    # Metrics where more is better, and where less is.
    _default_greater_keys: Sequence[str] = (
        "acc", "top", "AR@", "auc", "precision", "mAP", "mDice", "mIoU", "mAcc", "aAcc",
        "AP", "AR", "recall", "f1", "iou", "dice", "psnr", "ssim", "R@",
    )  # fmt: skip
    _default_less_keys: Sequence[str] = ("loss", "error", "err", "epe", "lpips", "fid", "mae", "mse", "rmse")

    def __init__(
        self,
        dataloader: Any,
        start: int | None = None,
        interval: int | dict[int, int] = 1,
        by_epoch: bool = True,
        save_best: str | None = None,
        rule: str | None = None,
        test_fn: Callable[..., Any] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        *,
        out_dir: str | None = None,
        **eval_kwargs: Any,
    ) -> None:
        if not isinstance(dataloader, DataLoader):
            raise TypeError(f"dataloader must be a pytorch DataLoader, but got {type(dataloader)}")
        intervals = interval if isinstance(interval, dict) else {0: interval}
        if any(each <= 0 for each in intervals.values()):
            raise ValueError(f"interval must be a positive number, but got {interval}")
        if start is not None and start < 0:
            raise ValueError(f"The evaluation start epoch {start} is smaller than 0")
        _check_types(save_best, by_epoch)
        self.dataloader = dataloader
        self.interval = interval if isinstance(interval, int) else intervals[min(intervals)]
        self._intervals = sorted(intervals.items())
        self.start = start
        self.by_epoch = by_epoch
        self.save_best = save_best
        self.eval_kwargs = eval_kwargs
        self.initial_flag = True
        self.test_fn = test_fn or self._default_test_fn()
        self.greater_keys = _keys(greater_keys, self._default_greater_keys, "greater_keys")
        self.less_keys = _keys(less_keys, self._default_less_keys, "less_keys")
        self.best_ckpt_path: str | None = None
        self.out_dir = out_dir
        self.rule: str | None = None
        self.key_indicator: str | None = None
        if save_best is not None:
            self._init_rule(rule, save_best)

    def _default_test_fn(self) -> Callable[..., Any]:
        from cv.engine import single_gpu_test

        return single_gpu_test

    # ---------------------------------------------------------------------------- what is better

    def _init_rule(self, rule: str | None, key_indicator: str) -> None:
        """Settle whether more or less of a metric is better.

        Whole names come before parts of them, and names where more is better before the others:
        ``mIoU`` is one of the first kind, ``accuracy_top-1`` contains one.
        """
        if rule is not None and rule not in ("greater", "less"):
            raise KeyError(f"rule must be greater, less or None, but got {rule}.")
        if rule is None and key_indicator != "auto":
            rule = self._infer_rule(key_indicator)
        self.rule = rule
        self.key_indicator = key_indicator

    def _infer_rule(self, key: str) -> str:
        lower = key.lower()
        greater = [k.lower() for k in self.greater_keys]
        less = [k.lower() for k in self.less_keys]
        if lower in greater:
            return "greater"
        if lower in less:
            return "less"
        if any(part in lower for part in greater):
            return "greater"
        if any(part in lower for part in less):
            return "less"
        raise ValueError(
            f"Cannot infer the rule for key {key!r}, thus a specific rule ('greater' or 'less') must be "
            "specified."
        )

    def _is_better(self, score: float, best: float) -> bool:
        return score > best if self.rule == "greater" else score < best

    # ------------------------------------------------------------------------------------- stages

    def before_run(self, runner: BaseRunner) -> None:
        """Settle the folder and the message box of the best checkpoint."""
        if not self.out_dir:
            self.out_dir = runner.work_dir
        if self.save_best is not None:
            if runner.meta is None:
                warnings.warn("runner.meta is None. Creating an empty one.", stacklevel=2)
                runner.meta = {}
            messages = runner.meta.setdefault("hook_msgs", {})
            self.best_ckpt_path = messages.get("best_ckpt")

    @acts_if(lambda hook: not hook.by_epoch)
    def before_train_iter(self, runner: BaseRunner) -> None:
        """Evaluate before the first iteration, where ``start`` says so."""
        if not self.by_epoch and self.initial_flag:
            self._evaluate_initially(runner, runner.iter)

    def before_train_epoch(self, runner: BaseRunner) -> None:
        """Evaluate before the first epoch, where ``start`` says so."""
        if self.by_epoch and self.initial_flag:
            self._evaluate_initially(runner, runner.epoch)

    def _evaluate_initially(self, runner: BaseRunner, progress: int) -> None:
        if self.start is not None and progress >= self.start:
            with self._averaged(runner):
                self._do_evaluate(runner)
        self.initial_flag = False

    @acts_if(lambda hook: not hook.by_epoch)
    def after_train_iter(self, runner: BaseRunner) -> None:
        """Evaluate after an iteration, when it is time."""
        if self.by_epoch or not self._should_evaluate(runner):
            return
        # The loggers come later; give them the training's values before evaluation puts in its own.
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        runner.log_buffer.clear()
        with self._averaged(runner):
            self._do_evaluate(runner)

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Evaluate after an epoch, when it is time."""
        if self.by_epoch and self._should_evaluate(runner):
            with self._averaged(runner):
                self._do_evaluate(runner)

    @contextmanager
    def _averaged(self, runner: BaseRunner) -> Iterator[None]:
        """Evaluate what a checkpoint would hold (averaged weights, for one); then train on as before."""
        training = runner.model.training
        hooks = [hook for hook in runner.hooks if hook.overrides("before_save")]
        for hook in hooks:
            hook.before_save(runner)
        try:
            yield
        finally:
            for hook in reversed(hooks):
                hook.after_save(runner)
            runner.model.train(training)

    def _should_evaluate(self, runner: BaseRunner) -> bool:
        """Whether it is time: every ``interval`` from ``start`` on."""
        done = (runner.epoch if self.by_epoch else runner.iter) + 1
        since, interval = 0, self.interval
        for begin, each in self._intervals if len(self._intervals) > 1 else []:
            if done >= begin:
                since, interval = begin, each
        if self.start is None:
            return (done - since) % interval == 0
        if done < self.start:
            return False
        return (done - max(self.start, since)) % interval == 0

    def _do_evaluate(self, runner: BaseRunner) -> None:
        """Run the model over the data, evaluate, and save where it is the best."""
        results = self.test_fn(runner.model, self.dataloader)
        self._digest(runner, results)

    def _digest(self, runner: BaseRunner, results: list[Any]) -> None:
        key_score = self._score(runner, results)
        # The value may be 0.0: an evaluation that found nothing returns None.
        if self.save_best and key_score is not None:
            self._save_ckpt(runner, key_score)

    def _score(self, runner: BaseRunner, results: list[Any]) -> float | None:
        runner.log_buffer.output["eval_iter_num"] = len(self.dataloader)
        return self.evaluate(runner, results)

    def evaluate(self, runner: BaseRunner, results: list[Any]) -> float | None:
        """Evaluate the results and put the metrics into the log.

        Args:
            runner: the runner.
            results: what the model returned for every sample, in the dataset's order.

        Returns:
            The value of the metric that ``save_best`` names; None without one.
        """
        metrics = self.dataloader.dataset.evaluate(  # type: ignore[attr-defined] # the user's dataset has it
            results, logger=runner.logger, **self.eval_kwargs
        )
        for name, value in metrics.items():
            runner.log_buffer.output[name] = value
        runner.log_buffer.ready = True
        if self.save_best is None:
            return None
        if not metrics:
            warnings.warn(
                "Since `eval_res` is an empty dict, the behavior to save the best checkpoint will be "
                "skipped in this evaluation.",
                stacklevel=2,
            )
            return None
        if self.key_indicator == "auto":
            self._init_rule(self.rule, next(iter(metrics)))
        assert self.key_indicator is not None
        if self.key_indicator not in metrics:
            raise ValueError(
                f"save_best must be one of the metrics {list(metrics)}, got {self.key_indicator!r}"
            )
        return float(metrics[self.key_indicator])

    def _save_ckpt(self, runner: BaseRunner, key_score: float) -> None:
        """Save a checkpoint if the score is the best so far, and remove the former best."""
        if math.isnan(key_score):
            runner.logger.warning("%s is nan: no best checkpoint this time.", self.key_indicator)
            return
        unit, current = ("epoch", runner.epoch + 1) if self.by_epoch else ("iter", runner.iter + 1)
        if runner.meta is None:
            runner.meta = {}
        messages = runner.meta.setdefault("hook_msgs", {})
        best = messages.get("best_score", -math.inf if self.rule == "greater" else math.inf)
        if not self._is_better(key_score, best):
            return
        assert self.out_dir is not None, "save_best needs the runner's work_dir, or out_dir"
        former = messages.get("best_ckpt", self.best_ckpt_path)
        name = f"best_{self.key_indicator}_{unit}_{current}.pth".replace("/", "_")
        path = in_folder(os.fspath(self.out_dir), name)
        kept = {key: messages[key] for key in ("best_score", "best_ckpt") if key in messages}
        messages["best_score"] = key_score
        messages["best_ckpt"] = self.best_ckpt_path = path
        try:
            runner.save_checkpoint(self.out_dir, filename_tmpl=name, create_symlink=False)
        except OSError as error:
            hook = runner._checkpoint_hook()
            if runner.sharded or (hook is not None and hook.on_error == "raise"):
                raise
            runner.logger.error("The best checkpoint could not be saved, training goes on: %s", error)
            if not runner.writer.needs_copy:  # in the background, it was the former save that failed
                del messages["best_score"], messages["best_ckpt"]
                messages.update(kept)
                self.best_ckpt_path = former
                return

        def remove_former() -> None:
            if runner.rank == 0 and former and former != path and remove_checkpoint(former):
                runner.logger.info("The previous best checkpoint %s was removed", former)

        runner.writer.then(remove_former)
        runner.logger.info("Now best checkpoint is saved as %s.", name)
        runner.logger.info("Best %s is %0.4f at %d %s.", self.key_indicator, key_score, current, unit)


@HOOKS.register_module()
class DistEvalHook(EvalHook):
    """:class:`EvalHook` for distributed training: every rank evaluates its share.

    Args:
        dataloader: as there.
        start: as there.
        interval: as there.
        by_epoch: as there.
        save_best: as there.
        rule: as there.
        test_fn: called with model, data loader, ``tmpdir`` and ``gpu_collect``; returns the results on
            rank 0. By default :func:`cv.engine.multi_gpu_test`.
        greater_keys: as there.
        less_keys: as there.
        broadcast_bn_buffer: before evaluating, give all ranks the batch-norm statistics of rank 0.
        tmpdir: folder through which ranks hand over results; by default one is made in ``work_dir``.
        gpu_collect: hand results over through the process group instead of the file system.
        out_dir: as there.
        **eval_kwargs: as there.
    """

    def __init__(
        self,
        dataloader: Any,
        start: int | None = None,
        interval: int | dict[int, int] = 1,
        by_epoch: bool = True,
        save_best: str | None = None,
        rule: str | None = None,
        test_fn: Callable[..., Any] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        broadcast_bn_buffer: bool = True,
        tmpdir: str | None = None,
        gpu_collect: bool = False,
        *,
        out_dir: str | None = None,
        **eval_kwargs: Any,
    ) -> None:
        self.broadcast_bn_buffer = broadcast_bn_buffer
        self.tmpdir = tmpdir
        self.gpu_collect = gpu_collect
        super().__init__(
            dataloader,
            start,
            interval,
            by_epoch,
            save_best,
            rule,
            test_fn,
            greater_keys,
            less_keys,
            out_dir=out_dir,
            **eval_kwargs,
        )

    def _default_test_fn(self) -> Callable[..., Any]:
        from cv.engine import multi_gpu_test

        return multi_gpu_test

    def _do_evaluate(self, runner: BaseRunner) -> None:
        """Every rank runs its share; rank 0 evaluates."""
        if self.broadcast_bn_buffer and runner.world_size > 1:
            for module in runner.model.modules():
                if isinstance(module, _BatchNorm) and module.track_running_stats:
                    for buffer in (module.running_var, module.running_mean):
                        assert isinstance(buffer, torch.Tensor)
                        dist.broadcast(buffer, 0)
        tmpdir = self.tmpdir
        if tmpdir is None and runner.work_dir is not None:
            tmpdir = str(Path(runner.work_dir, ".eval_hook"))
        results = self.test_fn(runner.model, self.dataloader, tmpdir=tmpdir, gpu_collect=self.gpu_collect)
        if self.save_best:
            runner.gather_rank_states()
        if runner.sharded and self.save_best:  # all ranks save, so all must know
            known: list[Any] = [None] * 3
            if runner.rank == 0:
                score = self._score(runner, results)
                known = [score, self.key_indicator, self.rule]
            dist.broadcast_object_list(known, src=0)
            key_score, self.key_indicator, self.rule = known
            if key_score is not None:
                self._save_ckpt(runner, key_score)
        elif runner.rank == 0:
            self._digest(runner, results)


def _check_types(save_best: object, by_epoch: object) -> None:
    if save_best is not None and not (isinstance(save_best, str) and save_best):
        raise AssertionError(f"save_best should be a str or None rather than {type(save_best)}")
    if not isinstance(by_epoch, bool):
        raise AssertionError(f"by_epoch should be a bool, got {by_epoch!r}")


def _keys(given: str | Sequence[str] | None, default: Iterable[str], name: str) -> list[str]:
    if given is None:
        return list(default)
    keys = [given] if isinstance(given, str) else given
    if not is_seq_of(keys, str):
        raise AssertionError(f"{name} must be a str or a sequence of str, got {given!r}")
    return list(keys)
