"""An exponential moving average of the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cv.parallel.registry import unwrap
from cv.runner import validate
from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class EMAHook(Hook):
    r"""Keeps an average of every parameter, which is evaluated and saved in the parameter's place.

    .. math:: Xema_{t+1} = (1 - momentum) \times Xema_t + momentum \times X_t

    The averages are buffers of the model called ``ema_<parameter's name with underscores>``. While
    training, the model holds the trained parameters. For evaluations and checkpoints the two are swapped,
    so a checkpoint's own keys hold the averages and the buffers the trained parameters; after a run the
    model holds the averages. Works in epoch-based and iteration-based runners; register it before
    resuming, with a higher priority than evaluation and checkpoint hooks (such as ABOVE_NORMAL).

    Args:
        momentum: weight of the new value.
        interval: update every so many iterations; the weight is then ``momentum ** interval``.
        warm_up: the weight is at most ``(1 + iter) / (warm_up + iter)``. Early averages follow closely.
        resume_from: a checkpoint to resume the runner from when it starts.

    Raises:
        AssertionError: ``momentum`` is not in (0, 1), or ``interval`` not a positive int.
    """

    def __init__(
        self,
        momentum: float = 0.0002,
        interval: int = 1,
        warm_up: int = 100,
        resume_from: str | None = None,
    ) -> None:
        validate.positive_int("interval", interval)
        if not 0 < momentum < 1:
            raise AssertionError(f"momentum must be in (0, 1), got {momentum!r}")
        self.warm_up = warm_up
        self.interval = interval
        self.momentum = momentum**interval
        self.checkpoint = resume_from
        self.param_ema_buffer: dict[str, str] = {}
        self._model: nn.Module | None = None
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._swapped = False
        self._resumed_in_training = False
        #: Saves and evaluations under way, one within another, since one of them swapped.
        self._borrowed = 0

    def before_run(self, runner: BaseRunner) -> None:
        """Add the averages to the model, and resume where asked to."""
        self._register_buffers(runner)
        if self.checkpoint is not None:
            runner.resume(self.checkpoint)

    def before_load(self, runner: BaseRunner) -> None:
        """Add the averages to the model, so that a checkpoint can fill them."""
        self._register_buffers(runner)

    def after_load(self, runner: BaseRunner, checkpoint: dict[str, Any]) -> None:
        """A checkpoint holds averages and parameters swapped, whichever way round training had them."""
        self._swapped = any(name in checkpoint["state_dict"] for name in self.param_ema_buffer.values())
        if self._resumed_in_training:
            self._to_trained()

    def state_dict(self) -> dict[str, Any]:
        """Whether the model held the averages (between epochs) or the trained parameters."""
        return {"swapped": self._swapped and not self._borrowed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it into account after loading."""
        self._resumed_in_training = not state_dict["swapped"]

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Update the averages every ``interval`` iterations."""
        step = runner.iter
        if step % self.interval != 0:
            return
        warming = (1 + step) / (self.warm_up + step) if self.warm_up + step > 0 else 1.0
        momentum = min(self.momentum, warming)
        averages = [average for _, average in self._pairs]
        torch._foreach_mul_(averages, 1 - momentum)
        torch._foreach_add_(averages, [param.detach() for param, _ in self._pairs], alpha=momentum)

    def after_train_epoch(self, runner: BaseRunner) -> None:
        """Put the averages into the model, for evaluation and checkpoint."""
        self._to_averages()

    def before_train_epoch(self, runner: BaseRunner) -> None:
        """Put the trained parameters back into the model."""
        self._to_trained()

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Put the trained parameters back, where a resumed or iteration-based run has not yet."""
        self._to_trained()

    def before_val_iter(self, runner: BaseRunner) -> None:
        """Validate the averages, also in an iteration-based run."""
        self._to_averages()

    def after_run(self, runner: BaseRunner) -> None:
        """Leave the averages in the model."""
        self._to_averages()

    def before_save(self, runner: BaseRunner) -> None:
        """Put the averages into the model, unless they are there."""
        if self._borrowed or not self._swapped:
            self._borrowed += 1
            self._to_averages()

    def after_save(self, runner: BaseRunner) -> None:
        """Undo :meth:`before_save`."""
        if self._borrowed:
            self._borrowed -= 1
            if not self._borrowed:
                self._to_trained()

    def _to_averages(self) -> None:
        if not self._swapped:
            self._swap()

    def _to_trained(self) -> None:
        if self._swapped:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in self._pairs:
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)
        self._swapped = not self._swapped

    def _register_buffers(self, runner: BaseRunner) -> None:
        """Add one buffer per parameter, once per model."""
        model = unwrap(runner.model)
        if model is self._model:
            return
        self._model = model
        self.param_ema_buffer = {}
        self._swapped = False
        for name, parameter in model.named_parameters():
            buffer_name = f"ema_{name.replace('.', '_')}"
            if buffer_name in self.param_ema_buffer.values():  # "a.b_c" and "a_b.c"
                buffer_name += f"_{len(self.param_ema_buffer)}"
            self.param_ema_buffer[name] = buffer_name
            model.register_buffer(buffer_name, parameter.detach().clone())
        buffers = dict(model.named_buffers(recurse=False))
        parameters = dict(model.named_parameters())
        self._pairs = [(parameters[name], buffers[b]) for name, b in self.param_ema_buffer.items()]
