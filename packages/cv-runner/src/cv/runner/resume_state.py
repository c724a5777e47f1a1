"""Save what a run needs to go on exactly, and go on.

A checkpoint is usually saved by a hook, in the middle of a stage: hooks of lower priority have not been
called yet. Its section ``resume`` therefore says at which hook of which stage it was taken. A resumed run
puts everything back (weights, optimizers, hooks' states, log buffer, data position, generators), calls
the hooks that were still to come, and goes on with the next iteration: from there on, it cannot be told
from a run that never stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.optim import Optimizer

from cv.cnn.checkpoint.dtensor import is_sharded_tensor, mesh_of, shard_like
from cv.runner.checkpoint import build_checkpoint, link_latest, plain, write_checkpoint
from cv.runner.checkpoint_writer import ForegroundWriter
from cv.runner.hook_registration import HookRegistration
from cv.runner.log_buffer import LogBuffer
from cv.runner.rng import capture_rng, restore_rng

_SCHEDULED = ("lr", "momentum", "betas")


class ResumeState(HookRegistration):
    """The part of a runner that saves and resumes."""

    model: nn.Module
    optimizer: Optimizer | dict[str, Optimizer] | None
    meta: dict[str, Any] | None
    log_buffer: LogBuffer
    outputs: dict[str, Any] | None
    mode: str | None
    logger: logging.Logger
    load_checkpoint: Callable[..., Any]
    _epoch: int
    _iter: int
    _inner_iter: int
    _rank: int
    _world_size: int

    def __init__(self) -> None:
        super().__init__()
        #: Whether an epoch is under way, so that a checkpoint holds a position in it.
        self._mid_epoch = False
        #: Entry of the workflow that is running, and how many of its repetitions are finished.
        self._flow = 0
        self._repeat = 0
        self._resumed: dict[str, Any] = {}
        self._resumed_settings: list[dict[str, Any]] = []
        self._hook_states: list[dict[str, Any]] = []
        self._rank_states: tuple[Any, list[Any]] | None = None
        #: Generators before the phase under way, and what a save in its middle says instead.
        self._phase_start: dict[str, Any] | None = None
        self._redo_phase: dict[str, Any] | None = None
        self.writer = ForegroundWriter()

    # ------------------------------------------------------------------------------------- saving

    @property
    def sharded(self) -> bool:
        """Whether the model's parameters are sharded over ranks: then all ranks save, together."""
        return mesh_of(self.model) is not None

    def _data_position(self) -> Any:
        """Where in the data this rank is; None at the beginning of an epoch."""
        return None

    def _workflow_position(self) -> tuple[int, int]:
        """The entry of the workflow to go on with, and how many of its repetitions are finished."""
        done = not self._mid_epoch and self._stage in ("after_train_epoch", None)
        return self._flow, self._repeat + (1 if done and self.mode is not None else 0)

    def _iters_done(self) -> int:
        """Finished iterations; within ``after_train_iter`` the current one is."""
        return self._iter + 1 if self._stage == "after_train_iter" else self._iter

    def gather_rank_states(self) -> None:
        """Collect every rank's generators and data position for the next save; call it on all ranks.

        Without it, a checkpoint holds those of the saving rank only.
        """
        if self._world_size > 1:
            states: list[Any] = [None] * self._world_size
            dist.all_gather_object(states, self._own_state())
            self._rank_states = ((self._iter, self._stage), states)

    def _own_state(self) -> dict[str, Any]:
        return {"rng": capture_rng(), "data": self._data_position()}

    def _all_states(self) -> list[Any]:
        if self._world_size == 1:
            return [self._own_state()]
        at, states = self._rank_states or (None, [None] * self._world_size)
        if at != (self._iter, self._stage):
            states = [None] * self._world_size
        return [self._own_state() if rank == self._rank else state for rank, state in enumerate(states)]

    def _resume_section(self) -> dict[str, Any]:
        section = {
            "version": 1,
            "world_size": self._world_size,
            "ranks": self._all_states(),
            "epoch": self._epoch,
            "inner_iter": self._inner_iter,
            "mid_epoch": self._mid_epoch,
            "workflow": list(self._workflow_position()),
            "stage": self._stage_position(),
            "log_buffer": self.log_buffer.state_dict(),
            "outputs": _scalars(self.outputs),
            "hooks": [
                {"name": type(hook).__name__, "state": state}
                for hook in self._hooks
                if (state := hook.state_dict())
            ],
        }
        return {**section, **(self._redo_phase or {})}

    def _stage_position(self) -> dict[str, Any] | None:
        """Which hooks of the current stage have been called, the one that is saving included."""
        if self._stage not in ("after_train_iter", "after_train_epoch"):
            return None
        hooks = [hook for hook, _ in self._calls_at(self._stage)]
        called = hooks[: hooks.index(self._stage_hook) + 1] if self._stage_hook in hooks else hooks
        return {"name": self._stage, "called": [type(hook).__name__ for hook in called]}

    def _save(
        self,
        out_dir: str,
        filename: str,
        position: dict[str, int],
        *,
        save_optimizer: bool,
        meta: dict[str, Any] | None,
        create_symlink: bool,
    ) -> None:
        if meta is not None and not isinstance(meta, dict):
            raise TypeError(f"meta should be a dict or None, but got {type(meta)}")
        full_meta = {**(meta or {}), **(self.meta or {}), **position}
        hooks = list(self._hooks)
        for hook in hooks:
            hook.before_save(self)  # type: ignore[arg-type] # self is the runner
        try:
            optimizer = self.optimizer if save_optimizer else None
            copy, sharded = self.writer.needs_copy, self.sharded
            checkpoint = build_checkpoint(self.model, optimizer, full_meta, copy=copy, sharded=sharded)
            if save_optimizer:
                checkpoint["resume"] = plain(self._resume_section(), "resume", copy=copy, sharded=sharded)
            write = _write_sharded if sharded else _write
            # Before the hooks take their weights back: without a copy, the tensors are the model's own.
            self.writer.save(lambda: write(checkpoint, out_dir, filename, link=create_symlink))
        finally:
            for hook in reversed(hooks):
                hook.after_save(self)  # type: ignore[arg-type]

    # ----------------------------------------------------------------------------------- resuming

    def resume(self, checkpoint: str, resume_optimizer: bool = True, map_location: Any = "default") -> None:
        """Resume from a checkpoint: the next ``run`` goes on where it was saved.

        Register hooks first; those with a state of their own get it back. A checkpoint without the
        section ``resume`` (of mmcv 1.x, or saved without its optimizer) gives weights, optimizers,
        counters and hook messages; training then goes on with the next epoch, as it did there.

        Args:
            checkpoint: path or URI.
            resume_optimizer: also load optimizers' states, where the checkpoint has them.
            map_location: as in ``torch.load``; ``'default'`` loads to the CPU, from where everything is
                copied to the device of the parameter that it belongs to.
        """
        for hook in list(self._hooks):
            hook.before_load(self)  # type: ignore[arg-type] # self is the runner
        location = "cpu" if map_location == "default" else map_location
        loaded = self.load_checkpoint(checkpoint, map_location=location)
        meta = loaded["meta"]
        self._epoch = meta["epoch"]
        self._iter = meta["iter"]
        self._inner_iter = loaded.get("resume", {}).get("inner_iter", 0)
        self._resume_meta(meta)
        if "optimizer" in loaded and resume_optimizer:
            self._resume_optimizers(loaded["optimizer"])
        self._resumed_settings = self._settings()
        self._resume_exactly(loaded.get("resume"))
        for hook in list(self._hooks):
            hook.after_load(self, loaded)  # type: ignore[arg-type]
        self.logger.info("resumed epoch %d, iter %d from %s", self._epoch, self._iter, checkpoint)

    def _resume_meta(self, meta: dict[str, Any]) -> None:
        self.meta = {} if self.meta is None else self.meta
        self.meta.setdefault("hook_msgs", {}).update(meta.get("hook_msgs", {}))
        if "fp16" in meta:
            self.meta["fp16"] = meta["fp16"]

    def _resume_optimizers(self, states: Any) -> None:
        if isinstance(self.optimizer, Optimizer):
            _load_optimizer(self.optimizer, states)
        elif isinstance(self.optimizer, dict):
            for name, optimizer in self.optimizer.items():
                _load_optimizer(optimizer, states[name])
        else:
            raise TypeError(
                "optimizer must be an Optimizer or a dict of them to resume, "
                f"got {type(self.optimizer).__name__}"
            )

    def _resume_exactly(self, section: dict[str, Any] | None) -> None:
        if section is None:
            return
        self._hook_states = list(section["hooks"])
        self._load_hook_states()
        if section["world_size"] != self._world_size:
            self.logger.warning(
                "The checkpoint was saved by %d processes, this run has %d: generators and the position "
                "in the data start anew%s.",
                section["world_size"],
                self._world_size,
                ", and the epoch under way is begun again" if section["mid_epoch"] else "",
            )
            self._iter = self._iter * section["world_size"] // self._world_size
            self._resumed = {"workflow": tuple(section["workflow"])}
            return
        own = section["ranks"][self._rank]
        if own is None:
            self.logger.warning("The checkpoint holds no generator states of this rank.")
            own = {"rng": None, "data": None}
        self._resumed = {
            "workflow": tuple(section["workflow"]),
            "epoch": section["epoch"],
            "rng": own["rng"],
            "data": own["data"],
            "log_buffer": section["log_buffer"],
            "outputs": section["outputs"],
            "stage": section["stage"],
        }

    def _load_hook_states(self) -> None:
        """Give hooks their states back, by class name and order; those registered later get theirs then."""
        for hook in self._hooks:
            name = type(hook).__name__
            entry = next((e for e in self._hook_states if e["name"] == name), None)
            if entry is not None:
                self._hook_states.remove(entry)
                hook.load_state_dict(entry["state"])

    def _take_resumed(self, key: str) -> Any:
        return self._resumed.pop(key, None)

    def _restore_streams(self) -> None:
        """Put back generators, log buffer and outputs: the last thing before going on."""
        buffer = self._take_resumed("log_buffer")
        if buffer is not None:
            self.log_buffer.load_state_dict(buffer)
            self.outputs = self._take_resumed("outputs")
        rng = self._take_resumed("rng")
        if rng is not None:
            restore_rng(rng)

    @property
    def _pending_stage(self) -> str | None:
        stage = self._resumed.get("stage")
        return stage["name"] if stage else None

    def _finish_stage(self, name: str) -> bool:
        """Call the hooks of the stage in which the checkpoint was saved that came after the saving one.

        Returns whether it was saved in this stage.
        """
        if self._pending_stage != name:
            return False
        called = self._take_resumed("stage")["called"]
        calls = self._calls_at(name)
        if [type(hook).__name__ for hook, _ in calls[: len(called)]] != called:
            self.logger.warning("The hooks of %s have changed: none of them is called once more.", name)
            return True
        within_iter = name == "after_train_iter"
        self._iter -= within_iter  # these hooks are called before the iteration is counted
        now = self._settings()
        self._set_settings(self._resumed_settings)  # and log the learning rate of that moment
        try:
            self.call_hook(name, calls=calls[len(called) :])
        finally:
            self._iter += within_iter
            self._set_settings(now)
        return True

    def _settings(self) -> list[dict[str, Any]]:
        """What schedules change, of every parameter group of every optimizer."""
        return [
            {key: group[key] for key in _SCHEDULED if key in group}
            for optimizer in self._all_optimizers()
            for group in optimizer.param_groups
        ]

    def _set_settings(self, settings: list[dict[str, Any]]) -> None:
        groups = [group for optimizer in self._all_optimizers() for group in optimizer.param_groups]
        for group, values in zip(groups, settings, strict=False):
            group.update(values)

    def _all_optimizers(self) -> list[Optimizer]:
        if isinstance(self.optimizer, dict):
            return list(self.optimizer.values())
        return [] if self.optimizer is None else [self.optimizer]


def _load_optimizer(optimizer: Optimizer, states: dict[str, Any]) -> None:
    optimizer.load_state_dict(states)
    for parameter, state in optimizer.state.items():
        if not is_sharded_tensor(parameter):
            continue
        for key, value in state.items():  # of a file with whole tensors: this rank's share
            whole = isinstance(value, torch.Tensor) and not is_sharded_tensor(value)
            if whole and value.shape == parameter.shape:
                state[key] = shard_like(value, parameter)


def _write(checkpoint: dict[str, Any], out_dir: str, filename: str, *, link: bool) -> None:
    separator = "" if out_dir.endswith("/") else "/"
    write_checkpoint(checkpoint, f"{out_dir}{separator}{filename}")
    if link and "://" not in out_dir:
        link_latest(out_dir, filename)


def _write_sharded(checkpoint: dict[str, Any], out_dir: str, filename: str, *, link: bool) -> None:
    from cv.runner.sharded_checkpoint import write_sharded

    if "://" in out_dir:
        raise ValueError(f"a sharded model is saved to a folder that all ranks see, got out_dir={out_dir!r}")
    write_sharded(checkpoint, Path(out_dir, filename))
    if link and dist.get_rank() == 0:
        link_latest(out_dir, filename)


def _scalars(outputs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The small part of a step's outputs: numbers, texts and tensors of one element, nested in dicts."""
    if outputs is None:
        return None
    small: dict[str, Any] = {}
    for key, value in outputs.items():
        if isinstance(value, dict):
            small[key] = _scalars(value)
        elif isinstance(value, (bool, int, float, str)) or (
            isinstance(value, torch.Tensor) and value.numel() == 1
        ):
            small[key] = value
    return small
