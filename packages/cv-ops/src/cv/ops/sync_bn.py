"""Batch normalisation over the batches of all processes (Peng et al., "MegDet", 2018).

Works wherever ``torch.distributed`` does: CUDA tensors with NCCL, CPU tensors with gloo. One collective in
the forward pass (count, mean and variance of every process, combined by Chan's formula, which does not
cancel) and one in the backward pass. Nothing makes the host wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ._checks import check_floating


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of the batches of all processes of a group.

    The result is that of one process with all batches joined: every element counts once, however uneven the
    batches are; a process may have an empty one, but has to take part. In evaluation mode, and where
    ``torch.distributed`` is not initialised or the group has one process, it is plain batch normalisation. If
    all batches are empty, the running statistics stay as they are.

    Parameters' gradients are those of the process' own batch, as everywhere under
    ``DistributedDataParallel``, which sums or averages them. There is no second derivative.

    Args:
        num_features: Channels of the input.
        eps: Added to the variance.
        momentum: Weight of a new batch in the running statistics; None: their plain average.
        affine: Learn a weight and a bias.
        track_running_stats: Keep running statistics, for evaluation mode.
        group: The process group; None: all processes.
        stats_mode: ``"default"`` or ``"N"``, as in mmcv 1.4, where the first gave every process the same
            weight and the second one by its batch size. Here both count elements: for equal batches that
            is the same, for others it is what both approximate.

    Raises:
        ValueError: An unknown ``stats_mode``; in ``forward``, an input that is not ``(N, C, ...)``.
        TypeError: In ``forward``, an input that is not a tensor of a floating dtype.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        group: dist.ProcessGroup | None = None,
        *,
        stats_mode: Literal["default", "N"] = "default",
    ) -> None:
        if stats_mode not in ("default", "N"):
            raise ValueError(f"stats_mode must be 'default' or 'N', got {stats_mode!r}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.group = group
        self.stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the documented name
        """``(N, C, ...)`` to the same shape and dtype."""
        if _is_empty(input) or (self.training and _world_size(self.group) > 1):
            self._check_input_dim(input)
            return (
                self._synchronised(input) if self.training else _empty_result(input, self.weight, self.bias)
            )
        return super().forward(input)  # checks as well

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        check_floating(input=input)
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"input must have shape (N, {self.num_features}, ...), got {tuple(input.shape)}")

    def _synchronised(self, x: Tensor) -> Tensor:
        out, mean, var, count = _normalise(x, self.weight, self.bias, self.eps, self.group)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                some = (count > 0).to(mean.dtype)  # a tensor: asking for its value would wait for the device
                self.num_batches_tracked += some.to(torch.int64)
                if self.momentum is None:
                    share = some / self.num_batches_tracked.clamp(min=1)
                else:
                    share = some * self.momentum
                unbiased = var * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))
        return out

    def extra_repr(self) -> str:
        options = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in ("eps", "momentum", "affine", "track_running_stats", "stats_mode")
        )
        return f"{self.num_features}, {options}"


class _Normalise(torch.autograd.Function):
    """Gives the normalised x, and the mean, variance and number of elements of all processes together."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        means, variances, counts = _gather(_local_statistics(x), x.shape[1], group)
        count = counts.sum()
        shares = counts / count.clamp(min=1)
        mean = (shares * means).sum(0)
        var = (shares * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), count)
        ctx.has_bias, ctx.group = bias is not None, group
        ctx.mark_non_differentiable(mean, var, count)
        if x.numel() == 0:
            return torch.empty_like(x), mean, var, count
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        # With h = (x - mean) / std and means over all elements of all processes:
        # dx = weight / std (g - mean(g) - h mean(g h)), a sum of multiples of g, x and 1 for each channel.
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        g, centred = grad.to(mean.dtype), x.to(mean.dtype) - _per_channel(mean, x)
        dims = _all_but_channels(x)
        sum_g, sum_gh = g.sum(dims), (g * centred).sum(dims) * inverse_std
        grad_x = None
        if ctx.needs_input_grad[0]:
            totals = torch.cat([sum_g, sum_gh])
            if _world_size(ctx.group) > 1:
                dist.all_reduce(totals, group=ctx.group)
            mean_g, mean_gh = (totals / count.clamp(min=1)).chunk(2)
            factor = inverse_std if weight is None else inverse_std * weight
            grad_x = (
                g * _per_channel(factor, x)
                - centred * _per_channel(factor * inverse_std * mean_gh, x)
                - _per_channel(factor * mean_g, x)
            ).to(x.dtype)
        grad_weight = sum_gh.to(weight.dtype) if weight is not None and ctx.needs_input_grad[1] else None
        grad_bias = sum_g.to(weight.dtype) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, None


_normalise: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _Normalise.apply


def _local_statistics(x: Tensor) -> Tensor:
    """``(2 C + 1,)``: mean and variance of each channel, and the number of elements of a channel."""
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    channels = x.shape[1]
    if x.numel() == 0:
        return torch.zeros(2 * channels + 1, dtype=dtype, device=x.device)
    var, mean = torch.var_mean(x.to(dtype), _all_but_channels(x), correction=0)
    return torch.cat([mean, var, mean.new_full((1,), x.numel() // channels)])


def _gather(local: Tensor, channels: int, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Means (processes, C), variances (processes, C) and counts (processes, 1) of the group."""
    parts = [torch.empty_like(local) for _ in range(_world_size(group))]
    if len(parts) > 1:
        dist.all_gather(parts, local, group=group)
    else:
        parts = [local]
    rows = torch.stack(parts)
    return rows[:, :channels], rows[:, channels:-1], rows[:, -1:]


def _is_empty(x: object) -> bool:
    return isinstance(x, Tensor) and x.numel() == 0


def _world_size(group: Any) -> int:
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(group)


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def _empty_result(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """As empty as ``x``, and with zero gradients for all three."""
    if weight is None or bias is None:
        return x * 1
    return (x * _per_channel(weight, x) + _per_channel(bias, x)).to(x.dtype)
