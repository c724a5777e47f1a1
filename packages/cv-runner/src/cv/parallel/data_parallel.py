"""One process, the model on one device or on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel

from cv.parallel.registry import MODULE_WRAPPERS
from cv.parallel.scatter_gather import CPU, scatter_kwargs


@MODULE_WRAPPERS.register_module()
class MMDataParallel(DataParallel[nn.Module]):
    """``DataParallel`` that understands :class:`~cv.parallel.DataContainer` and ``train_step``.

    On the CPU (no CUDA device, ``device_ids=[-1]``, or the model's parameters are there and no devices
    are named) it moves inputs to the CPU and calls the module.

    Args:
        *args: the module, then as ``DataParallel``'s: ``device_ids``, ``output_device``.
        dim: the dimension along which plain tensors are split.
        **kwargs: as ``DataParallel``'s.
    """

    def __init__(self, *args: Any, dim: int = 0, **kwargs: Any) -> None:
        module = args[0] if args else kwargs.get("module")
        device_ids = args[1] if len(args) > 1 else kwargs.get("device_ids")
        if isinstance(module, nn.Module) and _on_cpu(module, device_ids):
            nn.Module.__init__(self)
            self.module = module
            self.device_ids = []
            self.output_device = -1
        else:
            super().__init__(*args, **{**kwargs, "dim": dim})
        self.dim = dim

    def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
        """Split the arguments over devices, see :func:`cv.parallel.scatter`."""
        return scatter_kwargs(inputs, kwargs, list(device_ids), self.dim)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module with the inputs on its device, or its replicas where there are several."""
        if len(self.device_ids) > 1:
            return super().forward(*inputs, **kwargs)
        inputs, kwargs = self._on_device(inputs, kwargs)
        return self.module(*inputs, **kwargs)

    def train_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.train_step`` with the inputs on its device."""
        return self._step("train_step", inputs, kwargs)

    def val_step(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call ``module.val_step`` with the inputs on its device."""
        return self._step("val_step", inputs, kwargs)

    def _step(self, name: str, inputs: Any, kwargs: Any) -> Any:
        if len(self.device_ids) > 1:
            raise AssertionError(
                f"MMDataParallel runs {name} on one device only, got device_ids={self.device_ids}; "
                "use MMDistributedDataParallel for several"
            )
        inputs, kwargs = self._on_device(inputs, kwargs)
        return getattr(self.module, name)(*inputs, **kwargs)

    def _on_device(self, inputs: Any, kwargs: Any) -> tuple[Any, Any]:
        all_inputs, all_kwargs = self.scatter(inputs, kwargs, self.device_ids or CPU)
        return all_inputs[0], all_kwargs[0]


def _on_cpu(module: nn.Module, device_ids: Any) -> bool:
    if device_ids is not None and [getattr(d, "index", d) for d in device_ids] == CPU:
        return True
    if not torch.cuda.is_available():
        return True
    first = next(module.parameters(), None)
    return device_ids is None and first is not None and first.device.type == "cpu"
