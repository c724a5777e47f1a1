"""One process per device."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from cv.parallel.registry import MODULE_WRAPPERS
from cv.parallel.scatter_gather import CPU, scatter_kwargs


@MODULE_WRAPPERS.register_module()
class MMDistributedDataParallel(DistributedDataParallel):
    """``DistributedDataParallel`` that understands DataContainer, ``train_step`` and ``val_step``.

    ``train_step`` goes through ``DistributedDataParallel.forward``, so gradients are averaged over ranks
    as in any DDP model. Without gradients (``val_step``, evaluation) the module is called directly: ranks
    may then have different numbers of batches, because nothing is exchanged.

    Takes what ``DistributedDataParallel`` takes; ``dim`` is the dimension along which inputs are split.
    """

    dim = 0

    def to_kwargs(self, inputs: Any, kwargs: Any, device_id: int) -> Any:
        """Move the arguments to one device."""
        return scatter_kwargs(inputs, kwargs, [device_id], self.dim)

    def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
        """Split the arguments over devices, see :func:`cv.parallel.scatter`."""
        return scatter_kwargs(inputs, kwargs, list(device_ids), self.dim)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module with the inputs on its device."""
        inputs, kwargs = self._on_device(inputs, kwargs)
        if not torch.is_grad_enabled():
            return self.module(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]

    def train_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.train_step`` through DDP, with the inputs on the module's device."""
        return self._step("train_step", inputs, kwargs)

    def val_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.val_step`` with the inputs on the module's device."""
        return self._step("val_step", inputs, kwargs)

    def _step(self, name: str, inputs: Any, kwargs: Any) -> Any:
        inputs, kwargs = self._on_device(inputs, kwargs)
        step = getattr(self.module, name)
        if not torch.is_grad_enabled():
            return step(*inputs, **kwargs)

        # DDP only knows how to call forward. For this one call, the module's forward is the step, which
        # takes itself away first: the step finds the module as it was and may call it.
        module = self.module
        own = module.__dict__.get("forward")

        def forward_once(*args: Any, **kwds: Any) -> Any:
            restore()
            return step(*args, **kwds)

        def restore() -> None:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own

        module.__dict__["forward"] = forward_once
        try:
            return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            restore()

    def _on_device(self, inputs: Any, kwargs: Any) -> tuple[Any, Any]:
        all_inputs, all_kwargs = self.scatter(inputs, kwargs, self.device_ids or CPU)
        return all_inputs[0], all_kwargs[0]
