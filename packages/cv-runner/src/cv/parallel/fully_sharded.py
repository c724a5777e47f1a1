"""One process per device, each with a share of the weights: torch's FSDP2."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cv.parallel.registry import MODULE_WRAPPERS
from cv.parallel.scatter_gather import CPU, scatter_kwargs


@MODULE_WRAPPERS.register_module(name=["FSDP", "MMFullyShardedDataParallel"])
class MMFullyShardedDataParallel(nn.Module):
    """``torch.distributed.fsdp.fully_shard`` for models with ``train_step``, and for ``DataContainer``.

    Every rank keeps a share of the parameters, of their gradients and of the optimizer's state; a
    module's whole parameters are gathered while it runs. They start as rank 0's. Build the optimizer from
    the wrapped model: its parameters are others (``DTensor``) than those that the model was built with.

    Unlike in ``MMDistributedDataParallel``, evaluation exchanges parameters too: all ranks must call the
    model equally often.

    Args:
        module: the model; it is changed in place.
        wrap: names of classes. Each module of one of them is gathered and let go by itself, so that the
            model is never whole in memory; blocks of a backbone or transformer are a good choice. Without
            any, all parameters are gathered at once.
        reshard_after_forward: let go of gathered parameters between forward and backward. None: yes,
            except for those outside of ``wrap``, which backward begins with; an int: keep what that many
            ranks of a node share.
        mp_policy: arguments of ``torch.distributed.fsdp.MixedPrecisionPolicy``: ``param_dtype``,
            ``reduce_dtype``, ``output_dtype`` (names such as ``'bfloat16'``, or dtypes) and
            ``cast_forward_inputs``. Saved weights keep the dtype that they were built with.
        offload: keep the shares in host memory.
        mesh: the ``DeviceMesh`` to shard over; a second, first-named dimension replicates. Default: all
            ranks.

    Raises:
        RuntimeError: there is no process group.
        ValueError: no module of the model is of a class that ``wrap`` names, or an unknown dtype.
    """

    dim = 0

    def __init__(
        self,
        module: nn.Module,
        *,
        wrap: str | Sequence[str] = (),
        reshard_after_forward: bool | int | None = None,
        mp_policy: Mapping[str, Any] | None = None,
        offload: bool = False,
        mesh: Any = None,
    ) -> None:
        from torch import distributed as dist
        from torch.distributed import fsdp
        from torch.distributed.device_mesh import init_device_mesh

        if not dist.is_initialized():
            raise RuntimeError(
                "MMFullyShardedDataParallel needs a process group: call init_dist in processes that torchrun "
                "(or Slurm, or MPI) started"
            )
        super().__init__()
        chosen = _modules_to_wrap(module, [wrap] if isinstance(wrap, str) else list(wrap))
        precision = fsdp.MixedPrecisionPolicy(**_with_dtypes(mp_policy or {}))
        self.module = module
        self.device = _device()
        if mesh is None:
            mesh = init_device_mesh(self.device.type, (dist.get_world_size(),))
        _broadcast(module, self.device)
        options: dict[str, Any] = {
            "mesh": mesh,
            "reshard_after_forward": reshard_after_forward,
            "mp_policy": precision,
        }
        if offload:
            options["offload_policy"] = fsdp.CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
        for child in chosen:
            fsdp.fully_shard(child, **options)
        # This wrapper and not the model is the outermost unit: the model's steps may call the model or any
        # part of it, while the parameters that no other unit has are gathered around the whole step.
        fsdp.fully_shard(self, **options)
        self._units = [unit for unit in self.modules() if isinstance(unit, fsdp.FSDPModule)]
        self._method: str | None = None

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module, or the step that was asked for."""
        method, self._method = self._method, None
        return (self.module if method is None else getattr(self.module, method))(*inputs, **kwargs)

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module with the inputs on its device."""
        # Before the hooks of FSDP, which cast what they find in the inputs.
        target = CPU if self.device.type == "cpu" else [self.device.index]
        all_inputs, all_kwargs = scatter_kwargs(inputs, kwargs, target, self.dim)
        outputs = super().__call__(*all_inputs[0], **all_kwargs[0])
        if not torch.is_grad_enabled():
            # No backward will: and whoever changes the weights (averages) changes the shares only.
            for unit in self._units:
                unit.reshard()
        return outputs

    def train_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.train_step`` with the inputs on the module's device."""
        return self._step("train_step", inputs, kwargs)

    def val_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.val_step`` with the inputs on the module's device."""
        return self._step("val_step", inputs, kwargs)

    def _step(self, name: str, inputs: Any, kwargs: Any) -> Any:
        self._method = name
        try:
            return self(*inputs, **kwargs)
        finally:
            self._method = None


def _modules_to_wrap(module: nn.Module, names: list[str]) -> list[nn.Module]:
    """The modules of the named classes, inner ones before those that hold them."""
    found = {type(child).__name__ for child in module.modules()}
    for name in names:
        if name not in found:
            near = difflib.get_close_matches(name, found)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"wrap names {name!r}, but {type(module).__name__} has no such module{hint}")
    return [child for child in reversed(list(module.modules())) if type(child).__name__ in names]


def _with_dtypes(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The policy with dtypes for their names."""
    result = dict(policy)
    for key in ("param_dtype", "reduce_dtype", "output_dtype"):
        value = result.get(key)
        if isinstance(value, str):
            dtype = getattr(torch, value.removeprefix("torch."), None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"mp_policy: {key} must name a dtype of torch, got {value!r}")
            result[key] = dtype
    return result


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@torch.no_grad()
def _broadcast(module: nn.Module, device: torch.device) -> None:
    """Give all ranks the parameters and buffers of rank 0; one at a time is on the device."""
    from torch import distributed as dist

    for tensor in [*module.parameters(), *module.buffers()]:
        moved = tensor.detach().to(device).contiguous()
        dist.broadcast(moved, src=0)
        tensor.copy_(moved)
