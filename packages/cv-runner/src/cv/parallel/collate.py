"""From a list of samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import default_collate

from cv.parallel.data_container import DataContainer


def collate(batch: Sequence[Any], samples_per_gpu: int = 1) -> Any:
    """Put samples together, one chunk of ``samples_per_gpu`` per device.

    Works through mappings and sequences; :class:`DataContainer` values are treated as they say:

    1. ``cpu_only``: a list of values per chunk.
    2. ``stack``: one tensor (samples_per_gpu, ...) per chunk, padded at the end of the trailing
       ``pad_dims`` dimensions to the largest of the chunk.
    3. neither: a list of tensors per chunk.

    Everything else goes to torch's ``default_collate``.

    Args:
        batch: the samples.
        samples_per_gpu: samples per chunk; the last chunk may be smaller.

    Returns:
        The batch, in the structure of one sample. A DataContainer's ``data`` is a list with one entry per
        chunk.

    Raises:
        TypeError: ``batch`` is no sequence.
        ValueError: it is empty, or ``samples_per_gpu`` is not positive.
        AssertionError: stacked values are no tensors, or differ in a dimension that is not padded.
    """
    if not isinstance(batch, Sequence):
        raise TypeError(f"batch must be a sequence of samples, got {type(batch).__name__}")
    if not batch:
        raise ValueError("batch must hold at least one sample, got none")
    if samples_per_gpu < 1:
        raise ValueError(f"samples_per_gpu must be positive, got {samples_per_gpu}")

    first = batch[0]
    if isinstance(first, DataContainer):
        return _collate_containers(batch, samples_per_gpu)
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Sequence):
        return [collate(values, samples_per_gpu) for values in zip(*batch, strict=True)]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in batch], samples_per_gpu) for key in first}
    return default_collate(list(batch))


def _collate_containers(batch: Sequence[DataContainer], samples_per_gpu: int) -> DataContainer:
    first = batch[0]
    chunks = [batch[i : i + samples_per_gpu] for i in range(0, len(batch), samples_per_gpu)]
    if first.stack and not first.cpu_only:
        data: list[Any] = [_stack(chunk) for chunk in chunks]
    else:
        data = [[sample.data for sample in chunk] for chunk in chunks]
    return DataContainer(
        data, first.stack, first.padding_value, cpu_only=first.cpu_only, pad_dims=first.pad_dims
    )


def _stack(chunk: Sequence[DataContainer]) -> torch.Tensor:
    tensors = [container.data for container in chunk]
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise AssertionError(
                f"a DataContainer with stack=True must hold a tensor, got {type(tensor).__name__}"
            )
    pad_dims = chunk[0].pad_dims
    if pad_dims is not None:
        tensors = _pad(tensors, pad_dims, chunk[0].padding_value)
    batched: torch.Tensor = default_collate(tensors)
    return batched


def _pad(tensors: list[torch.Tensor], pad_dims: int, value: float) -> list[torch.Tensor]:
    """Pad the trailing ``pad_dims`` dimensions, at their ends, to the largest size among the tensors."""
    for tensor in tensors:
        if tensor.dim() <= pad_dims:
            raise AssertionError(
                f"with pad_dims={pad_dims} a tensor needs more dimensions, got {tuple(tensor.shape)}"
            )
        if tensor.shape[:-pad_dims] != tensors[0].shape[:-pad_dims]:
            raise AssertionError(
                f"shapes may differ in the last {pad_dims} dimensions only, "
                f"got {tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
            )
    largest = [max(tensor.shape[-d] for tensor in tensors) for d in range(1, pad_dims + 1)]
    padded = []
    for tensor in tensors:
        missing = [size - tensor.shape[-d] for d, size in enumerate(largest, start=1)]
        pads = [n for extra in missing for n in (0, extra)]  # F.pad counts from the last dimension
        padded.append(F.pad(tensor, pads, value=value) if any(missing) else tensor)
    return padded
