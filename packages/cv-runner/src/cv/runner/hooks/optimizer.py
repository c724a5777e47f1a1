"""Optimizer hooks: backward, clip, step."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from cv.cnn.checkpoint.dtensor import is_sharded_tensor, shard_like
from cv.runner import validate
from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class OptimizerHook(Hook):
    """After every iteration: clear gradients, backward through ``outputs['loss']``, clip, step.

    Args:
        grad_clip: arguments of ``torch.nn.utils.clip_grad_norm_`` (``max_norm``, ``norm_type``), or
            ``clip_value`` for clipping every element. The norm is logged as ``grad_norm``. Default: no
            clipping.
        detect_anomalous_params: tell in the log, at debugging cost, which parameters took no part in the
            loss.
    """

    def __init__(
        self, grad_clip: dict[str, Any] | None = None, detect_anomalous_params: bool = False
    ) -> None:
        self.grad_clip = grad_clip
        self.detect_anomalous_params = detect_anomalous_params

    def clip_grads(self, params: Any) -> torch.Tensor | None:
        """Clip the gradients of the parameters that have one; their norm before, or None without any."""
        params = [param for param in params if param.requires_grad and param.grad is not None]
        if not params:
            return None
        assert self.grad_clip is not None
        if "clip_value" in self.grad_clip:
            clip_grad_value_(params, **self.grad_clip)
            return None
        return clip_grad_norm_(params, **self.grad_clip)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """One step of the optimizer."""
        assert runner.outputs is not None
        optimizer = runner.optimizer
        if isinstance(optimizer, Optimizer):
            optimizer.zero_grad()
        else:
            zero_grad(runner)
        loss = runner.outputs["loss"]
        if self.detect_anomalous_params:
            log_unused_parameters(runner, loss)
        self.backward(runner, loss)
        self.step(runner)

    def backward(self, runner: BaseRunner, loss: torch.Tensor) -> None:
        """Add the loss's gradients to the parameters."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, runner: BaseRunner) -> None:
        """Clip and step."""
        if self.grad_clip is not None:
            self.clip_and_log(runner)
        optimizer = runner.optimizer
        if isinstance(optimizer, Optimizer):
            optimizer.step()
        else:
            for optimizer in optimizers(runner):
                optimizer.step()

    def clip_and_log(self, runner: BaseRunner) -> None:
        """Clip as configured, and put the norm into the log buffer."""
        norm = self.clip_grads(runner.model.parameters())
        if norm is not None:
            if is_sharded_tensor(norm):
                norm = norm.full_tensor()  # type: ignore[attr-defined] # a DTensor
            runner.log_buffer.update({"grad_norm": float(norm)}, _num_samples(runner))


@HOOKS.register_module()
class GradientCumulativeOptimizerHook(OptimizerHook):
    """Steps once per ``cumulative_iters`` iterations, on the mean of their gradients.

    A checkpoint in the middle of such a group holds the gradients so far.

    Args:
        cumulative_iters: iterations per step.
        **kwargs: see :class:`OptimizerHook`.

    Raises:
        AssertionError: ``cumulative_iters`` is not a positive int.
    """

    def __init__(self, cumulative_iters: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        validate.positive_int("cumulative_iters", cumulative_iters)
        self.cumulative_iters = cumulative_iters
        self._gradients = AccumulatedGradients()

    def before_run(self, runner: BaseRunner) -> None:
        """Put back gradients that a resumed checkpoint holds."""
        super().before_run(runner)
        self._gradients.attach(runner)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Add to the gradients; step at the end of a group."""
        assert runner.outputs is not None
        if runner.iter % self.cumulative_iters == 0:
            zero_grad(runner)
        self.backward(runner, runner.outputs["loss"] / self.loss_factor(runner))
        if self.ends_group(runner):
            self.step(runner)
            zero_grad(runner)

    def loss_factor(self, runner: BaseRunner) -> int:
        """How many iterations the current group has: fewer at the end of the run."""
        start = runner.iter - runner.iter % self.cumulative_iters
        total = runner.max_iters
        return self.cumulative_iters if total is None else min(self.cumulative_iters, total - start)

    def ends_group(self, runner: BaseRunner) -> bool:
        """Whether the current iteration is the last of its group."""
        return self.every_n_iters(runner, self.cumulative_iters) or self.is_last_iter(runner)

    def state_dict(self) -> dict[str, Any]:
        """The gradients so far."""
        return self._gradients.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the gradients until the run begins."""
        self._gradients.load_state_dict(state_dict)


class AccumulatedGradients:
    """The gradients that are there between two iterations, for a checkpoint."""

    def __init__(self) -> None:
        self._runner: BaseRunner | None = None
        self._loaded: dict[str, torch.Tensor] = {}

    def attach(self, runner: BaseRunner) -> None:
        """Work on this runner's model, and put loaded gradients into it."""
        self._runner = runner
        for name, parameter in runner.model.named_parameters():
            if name in self._loaded:
                grad = self._loaded[name]
                if is_sharded_tensor(parameter) and not is_sharded_tensor(grad):
                    grad = shard_like(grad, parameter)
                parameter.grad = grad.to(parameter.device)
        self._loaded = {}

    def state_dict(self) -> dict[str, Any]:
        """All gradients by the parameter's name; empty where none are there."""
        if self._runner is None:
            return {}
        named = self._runner.model.named_parameters()
        return {name: p.grad for name, p in named if p.grad is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the gradients until :meth:`attach`."""
        self._loaded = state_dict


def optimizers(runner: BaseRunner) -> Collection[Optimizer]:
    """The runner's optimizers, one or several."""
    if isinstance(runner.optimizer, dict):
        return runner.optimizer.values()
    return () if runner.optimizer is None else (runner.optimizer,)


def zero_grad(runner: BaseRunner) -> None:
    """Drop the gradients of everything that any optimizer changes."""
    for optimizer in optimizers(runner):
        optimizer.zero_grad()


def log_unused_parameters(runner: BaseRunner, loss: torch.Tensor) -> None:
    """Log the parameters that the loss does not depend on; gradients stay as they are."""
    named = [(name, p) for name, p in runner.model.named_parameters() if p.requires_grad]
    if any(is_sharded_tensor(parameter) for _, parameter in named):
        raise ValueError("detect_anomalous_params does not work with a model that is sharded over ranks")
    grads: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
        loss, [p for _, p in named], retain_graph=True, allow_unused=True
    )
    for (name, parameter), grad in zip(named, grads, strict=True):
        if grad is None:
            runner.logger.error(
                "%s with shape %s is not in the computational graph", name, tuple(parameter.shape)
            )


def _num_samples(runner: BaseRunner) -> int:
    assert runner.outputs is not None
    return int(runner.outputs.get("num_samples", 1))
