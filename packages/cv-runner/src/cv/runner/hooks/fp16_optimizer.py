"""Optimizer hooks for mixed precision, on ``torch.amp``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.amp import GradScaler

from cv.runner.fp16_utils import resolve_dtype, wrap_fp16_model
from cv.runner.hooks.hook import HOOKS
from cv.runner.hooks.optimizer import GradientCumulativeOptimizerHook, OptimizerHook, optimizers

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class Fp16OptimizerHook(OptimizerHook):
    """:class:`OptimizerHook` in mixed precision, with scaling of the loss by torch's ``GradScaler``.

    Steps whose gradients hold inf or nan are left out and reported. In float16, the scaler's state is in
    ``runner.meta['fp16']`` and so in checkpoints.

    Args:
        grad_clip: see :class:`OptimizerHook`; clips the unscaled gradients.
        coalesce: has no effect: ``DistributedDataParallel`` exchanges gradients.
        bucket_size_mb: has no effect, likewise.
        loss_scale: a number for a static scale, ``'dynamic'``, or the arguments of ``GradScaler`` as a
            dict. bfloat16 needs none: its range is that of float32.
        distributed: has no effect, likewise.
        dtype: ``'float16'`` or ``'bfloat16'``.
        **kwargs: see :class:`OptimizerHook`.

    Raises:
        ValueError: another ``loss_scale`` or ``dtype``.

    Example:
        >>> hook = Fp16OptimizerHook(loss_scale=dict(init_scale=65536.0, growth_interval=2000))
    """

    def __init__(
        self,
        grad_clip: dict[str, Any] | None = None,
        coalesce: bool = True,
        bucket_size_mb: int = -1,
        loss_scale: float | str | dict[str, Any] = 512.0,
        distributed: bool = True,
        *,
        dtype: Literal["float16", "bfloat16"] = "float16",
        **kwargs: Any,
    ) -> None:
        super().__init__(grad_clip=grad_clip, **kwargs)
        self.coalesce = coalesce
        self.bucket_size_mb = bucket_size_mb
        self.distributed = distributed
        self.dtype = resolve_dtype(dtype)
        if self.dtype == torch.bfloat16:
            loss_scale = 1.0  # the scaler only looks for inf and nan
        self._static_scale: float | None = None
        self._scaler_options: dict[str, Any] = {}
        if isinstance(loss_scale, dict):
            self._scaler_options = dict(loss_scale)
        elif isinstance(loss_scale, (int, float)):
            self._static_scale = float(loss_scale)
            self._scaler_options = {"init_scale": float(loss_scale)}
        elif loss_scale != "dynamic":
            raise ValueError(f"loss_scale must be a number, a dict or 'dynamic', got {loss_scale!r}")
        self.loss_scaler = GradScaler("cpu", **self._scaler_options)
        self._stepped = False
        #: Steps left out in a row.
        self.skipped = 0

    def before_run(self, runner: BaseRunner) -> None:
        """Preparing steps before mixed-precision training.

        Modules with ``fp16_enabled`` are switched over; where the model has none, its whole step runs
        under autocast. A resumed run gets its scaler back.
        """
        super().before_run(runner)
        device = next((p.device.type for p in runner.model.parameters()), "cpu")
        self.loss_scaler = GradScaler(device, **self._scaler_options)
        if any(hasattr(module, "fp16_enabled") for module in runner.model.modules()):
            wrap_fp16_model(runner.model, dtype=self.dtype)
        else:
            runner.step_context = lambda: torch.autocast(device, dtype=self.dtype)
        state = ((runner.meta or {}).get("fp16") or {}).get("loss_scaler")
        if state and self.dtype == torch.float16:
            self.loss_scaler.load_state_dict(state)
        for optimizer in optimizers(runner):
            optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    def backward(self, runner: BaseRunner, loss: torch.Tensor) -> None:
        """Scale the loss, then go backward."""
        self.loss_scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, runner: BaseRunner) -> None:
        """Unscale, clip, step unless gradients are not finite, update the scale, keep its state."""
        for optimizer in optimizers(runner):
            self.loss_scaler.unscale_(optimizer)
        if self.grad_clip is not None:
            self.clip_and_log(runner)
        self._stepped = False
        for optimizer in optimizers(runner):
            self.loss_scaler.step(optimizer)
        self.loss_scaler.update(self._static_scale)
        self._report(runner)
        if self.dtype != torch.float16:
            return  # a run that goes on in float16 finds its own scale
        if runner.meta is None:
            runner.meta = {}
        runner.meta.setdefault("fp16", {})["loss_scaler"] = self.loss_scaler.state_dict()

    def _report(self, runner: BaseRunner) -> None:
        """Log steps that were left out: the 1st, 2nd, 4th, 8th … in a row."""
        if self._stepped:
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped & (self.skipped - 1) == 0:
            runner.logger.warning(
                "Iteration %d: gradients hold inf or nan, the step is left out (%d in a row). Loss scale: %g",
                runner.iter + 1,
                self.skipped,
                self.loss_scaler.get_scale(),
            )

    def copy_grads_to_fp32(self, fp16_net: nn.Module, fp32_weights: Iterable[torch.Tensor]) -> None:
        """Copy gradients from fp16 model to fp32 weight copy.

        For loops of your own with a float16 model; this hook's model has float32 weights.
        """
        for weight, parameter in zip(fp32_weights, fp16_net.parameters(), strict=True):
            if parameter.grad is not None:
                weight.grad = parameter.grad.to(weight.dtype, copy=True)

    def copy_params_to_fp16(self, fp16_net: nn.Module, fp32_weights: Iterable[torch.Tensor]) -> None:
        """Copy updated params from fp32 weight copy to fp16 model."""
        with torch.no_grad():
            for parameter, weight in zip(fp16_net.parameters(), fp32_weights, strict=True):
                parameter.copy_(weight)


@HOOKS.register_module()
class GradientCumulativeFp16OptimizerHook(GradientCumulativeOptimizerHook, Fp16OptimizerHook):
    """:class:`Fp16OptimizerHook` that steps once per ``cumulative_iters`` iterations.

    Args:
        cumulative_iters: iterations per step.
        **kwargs: see :class:`Fp16OptimizerHook`.
    """

    def __init__(self, cumulative_iters: int = 1, **kwargs: Any) -> None:
        super().__init__(cumulative_iters, **kwargs)
