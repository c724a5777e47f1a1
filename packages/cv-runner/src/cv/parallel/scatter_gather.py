"""Hand the parts of a batch to devices."""

from __future__ import annotations

from typing import Any

import torch

from cv.parallel.data_container import DataContainer

#: The device list that stands for the CPU.
CPU = [-1]


def scatter(inputs: Any, target_gpus: list[int], dim: int = 0) -> Any:
    """Split a batch over devices.

    Tensors are cut into equal chunks along ``dim``; a :class:`DataContainer` gives its i-th chunk to the
    i-th device (``cpu_only`` ones stay on the CPU); tuples, lists and dicts are entered; anything else
    goes to every device as it is.

    Args:
        inputs: the batch.
        target_gpus: CUDA device numbers, or ``[-1]`` for the CPU.
        dim: the dimension along which plain tensors are cut.

    Returns:
        One batch per device, as a list (a tuple where ``inputs`` is a tensor or a DataContainer).
    """
    if isinstance(inputs, torch.Tensor):
        return _scatter_tensor(inputs, target_gpus, dim)
    if isinstance(inputs, DataContainer):
        if inputs.cpu_only:
            return inputs.data
        return tuple(_to_device(part, gpu) for part, gpu in zip(inputs.data, target_gpus, strict=False))
    if isinstance(inputs, tuple) and inputs:
        parts = list(zip(*(scatter(item, target_gpus, dim) for item in inputs), strict=False))
        if hasattr(inputs, "_fields"):  # a namedtuple
            return [type(inputs)(*part) for part in parts]
        return parts
    if isinstance(inputs, list) and inputs:
        return [list(part) for part in zip(*(scatter(i, target_gpus, dim) for i in inputs), strict=False)]
    if isinstance(inputs, dict) and inputs:
        columns = [scatter(value, target_gpus, dim) for value in inputs.values()]
        return [type(inputs)(zip(inputs.keys(), part, strict=True)) for part in zip(*columns, strict=False)]
    return [inputs for _ in target_gpus]


def scatter_kwargs(
    inputs: tuple[Any, ...], kwargs: dict[str, Any], target_gpus: list[int], dim: int = 0
) -> tuple[tuple[tuple[Any, ...], ...], tuple[dict[str, Any], ...]]:
    """Split positional and keyword arguments over devices, see :func:`scatter`.

    Returns:
        As many argument tuples as keyword dicts; the shorter side is filled up with empty ones.
    """
    scattered = list(scatter(inputs, target_gpus, dim)) if inputs else []
    scattered_kwargs = list(scatter(kwargs, target_gpus, dim)) if kwargs else []
    length = max(len(scattered), len(scattered_kwargs), 1)
    scattered += [()] * (length - len(scattered))
    scattered_kwargs += [{} for _ in range(length - len(scattered_kwargs))]
    return tuple(scattered), tuple(scattered_kwargs)


def _scatter_tensor(tensor: torch.Tensor, gpus: list[int], dim: int) -> tuple[torch.Tensor, ...]:
    if len(gpus) == 1:
        return (_to_device(tensor, gpus[0]),)
    chunks = tensor.chunk(len(gpus), dim)
    return tuple(_to_device(chunk, gpu) for chunk, gpu in zip(chunks, gpus, strict=False))


def _to_device(value: Any, gpu: int) -> Any:
    """Move the tensors in ``value`` (also in lists, tuples and dicts) to a device; -1 is the CPU."""
    if isinstance(value, torch.Tensor):
        device = torch.device("cpu") if gpu == -1 else torch.device("cuda", gpu)
        # From pinned memory the copy runs beside the computation; from pageable memory it is a plain copy.
        return value.to(device, non_blocking=value.is_pinned() if gpu != -1 else False)
    if isinstance(value, list):
        return [_to_device(item, gpu) for item in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_to_device(item, gpu) for item in value)
    if isinstance(value, dict):
        return {key: _to_device(item, gpu) for key, item in value.items()}
    return value
