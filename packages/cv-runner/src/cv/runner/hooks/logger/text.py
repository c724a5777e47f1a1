"""Log to the console and to a file of JSON lines."""

from __future__ import annotations

import datetime
import errno
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.logger.base import LoggerHook
from cv.runner.hooks.logger.live import show_live_line

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner

_ENCODER = json.JSONEncoder(default=str)


@HOOKS.register_module()
class TextLoggerHook(LoggerHook):
    """Prints a line per interval, and saves the same as JSON.

    The file ``<timestamp>.log.json`` in the runner's ``work_dir`` has the run's meta data in its first
    line, then one object a line with ``mode`` ``train`` or ``val``. On a terminal, a live line below
    shows how far training is.

    Args:
        by_epoch: the runner is epoch-based.
        interval: log every so many iterations; values are averages over them.
        ignore_last: leave out the last iterations of an epoch if they are fewer.
        reset_flag: clear the averages after logging.
        interval_exp_name: print the experiment's name (``meta['exp_name']``) every so many iterations.
        live: show the live line; by default on terminals only.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        interval_exp_name: int = 1000,
        *,
        live: bool | None = None,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.time_sec_tot: float = 0
        self.interval_exp_name = interval_exp_name
        self.live = live
        self.json_log_path: str | None = None
        self.start_iter = 0

    def before_run(self, runner: BaseRunner) -> None:
        """Open the JSON log with the run's meta data."""
        super().before_run(runner)
        self.start_iter = runner.iter
        self.time_sec_tot = 0
        if runner.work_dir is not None:
            self.json_log_path = str(Path(runner.work_dir, f"{runner.timestamp}.log.json"))
            if runner.meta is not None:
                self._dump_log(runner.meta, runner)
        if runner.rank == 0 and os.environ.get("CV_LIVE_LINE") != "0":
            show_live_line(runner, by_epoch=self.by_epoch, enabled=self.live)

    def log(self, runner: BaseRunner) -> OrderedDict[str, Any]:
        """Print a line and write the same as JSON."""
        output = runner.log_buffer.output
        cur_iter = output.pop("eval_iter_num", None)
        if cur_iter is None:
            cur_iter = self.get_iter(runner, inner_iter=True)
        log_dict: OrderedDict[str, Any] = OrderedDict(
            mode=self.get_mode(runner), epoch=self.get_epoch(runner), iter=cur_iter
        )
        lr = runner.current_lr()
        log_dict["lr"] = lr[0] if isinstance(lr, list) else {name: lrs[0] for name, lrs in lr.items()}
        if "time" in output and torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            log_dict["memory"] = self._get_max_memory(runner)
        log_dict.update(output)
        self._log_info(log_dict, runner)
        self._dump_log(log_dict, runner)
        return log_dict

    def _log_info(self, log_dict: dict[str, Any], runner: BaseRunner) -> None:
        """Print a line."""
        if runner.meta is not None and "exp_name" in runner.meta:
            epoch_over = self.by_epoch and self.end_of_epoch(runner)
            if self.every_n_iters(runner, self.interval_exp_name) or epoch_over:
                runner.logger.info("Exp name: %s", runner.meta["exp_name"])
        mode = log_dict["mode"]
        if mode == "train":
            head = (
                f"Epoch [{log_dict['epoch']}][{log_dict['iter']}/{len(runner.data_loader)}]\t"
                if self.by_epoch
                else f"Iter [{log_dict['iter']}/{runner.max_iters}]\t"
            )
            parts = [_lr_text(log_dict["lr"])]
            if "time" in log_dict:
                parts.append(f"eta: {self._eta(log_dict['time'], runner)}")
                parts.append(f"time: {log_dict['time']:.3f}")
            if "data_time" in log_dict:
                parts.append(f"data_time: {log_dict['data_time']:.3f}")
            if "memory" in log_dict:
                parts.append(f"memory: {log_dict['memory']}")
        else:
            head = (
                f"Epoch({mode}) [{log_dict['epoch']}][{log_dict['iter']}]\t"
                if self.by_epoch
                else f"Iter({mode}) [{log_dict['iter']}]\t"
            )
            parts = []
        shown = ("mode", "Epoch", "epoch", "iter", "lr", "time", "data_time", "memory")
        parts += [f"{name}: {_text(value)}" for name, value in log_dict.items() if name not in shown]
        runner.logger.info("%s", head + ", ".join(parts))

    def _eta(self, seconds_per_iter: float, runner: BaseRunner) -> str:
        """What is left of the run, at the average pace since it started, as ``[days, ]h:mm:ss``."""
        self.time_sec_tot += seconds_per_iter * self.interval
        average = self.time_sec_tot / max(runner.iter - self.start_iter + 1, 1)
        if runner.max_iters is None:
            return "?"
        return str(datetime.timedelta(seconds=int(average * (runner.max_iters - runner.iter - 1))))

    def _get_max_memory(self, runner: BaseRunner) -> int:
        """The most memory this rank's GPU allocator has held, in MB. Asks the allocator, not the GPU."""
        device = getattr(runner.model, "output_device", None)
        return int(torch.cuda.max_memory_allocated(device)) // (1024 * 1024)

    def _dump_log(self, log_dict: dict[str, Any], runner: BaseRunner) -> None:
        """Append a JSON line on rank 0."""
        if runner.rank != 0 or self.json_log_path is None:
            return
        line = _ENCODER.encode({key: _for_json(value) for key, value in log_dict.items()})
        try:
            _append(self.json_log_path, f"{line}\n".encode())
        except OSError as error:
            runner.logger.error("A line of the log could not be written, training goes on: %s", error)


def _append(path: str, line: bytes) -> None:
    """Add a line to a file; the whole line, or nothing."""
    with Path(path).open("ab", buffering=0) as file:
        end = file.tell()
        if file.write(line) < len(line):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _lr_text(lr: Any) -> str:
    if isinstance(lr, dict):
        return " ".join(f"lr_{name}: {value:.3e}" for name, value in lr.items())
    return f"lr: {lr:.3e}"


def _text(value: Any) -> str:
    if isinstance(value, float) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0):
        return f"{float(value):.4f}"
    return str(value)


def _for_json(value: Any) -> Any:
    """Numbers rounded to what the console shows and a bit more; arrays and tensors as lists."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, (list, tuple)):
        return [_for_json(item) for item in value]
    if isinstance(value, dict):
        return dict(zip(map(str, value), map(_for_json, value.values()), strict=True))
    return value
