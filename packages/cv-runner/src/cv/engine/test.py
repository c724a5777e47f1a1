"""Run a model over a data loader and collect what it returns."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from cv.cnn.checkpoint.dtensor import mesh_of
from cv.runner.dist_utils import check_even, get_dist_info
from cv.utils import ProgressBar


def single_gpu_test(model: nn.Module, data_loader: Any) -> list[Any]:
    """Run a model over a data loader in this process, with a progress bar.

    Args:
        model: called as ``model(return_loss=False, **batch)`` in eval mode without gradients; returns one
            result per sample.
        data_loader: gives batches as dicts.

    Returns:
        The results in the dataset's order.
    """
    model.eval()
    results: list[Any] = []
    progress = ProgressBar(len(data_loader.dataset))
    for data in data_loader:
        with torch.no_grad():
            result = model(return_loss=False, **data)
        results.extend(result)
        for _ in range(len(result)):
            progress.update()
    progress.finish()
    return results


def multi_gpu_test(
    model: nn.Module, data_loader: Any, tmpdir: str | None = None, gpu_collect: bool = False
) -> list[Any] | None:
    """Run a model over a data loader on all ranks, each over its share; a progress bar on rank 0.

    The loader's sampler gives rank r the samples r, r + world size … as ``DistributedSampler`` without
    shuffling does; what it repeats at the end is left out again. Ranks may have different numbers of
    batches, or none; with a model that is sharded over ranks they may not.

    Args:
        model: as in :func:`single_gpu_test`.
        data_loader: as there.
        tmpdir: folder through which results are handed over, see :func:`collect_results_cpu`.
        gpu_collect: hand results over through the process group, see :func:`collect_results_gpu`.

    Returns:
        The results in the dataset's order on rank 0, None on others.

    Raises:
        ValueError: a sharded model, and ranks have different numbers of batches.
    """
    if mesh_of(model) is not None:
        check_even(data_loader, "a sharded model cannot be evaluated")
    model.eval()
    results: list[Any] = []
    rank, world_size = get_dist_info()
    size = len(data_loader.dataset)
    progress = ProgressBar(size) if rank == 0 else None
    for data in data_loader:
        with torch.no_grad():
            result = model(return_loss=False, **data)
        results.extend(result)
        if progress is not None:
            for _ in range(min(len(result) * world_size, size - progress.completed)):
                progress.update()
    if progress is not None:
        progress.finish()
    if gpu_collect:
        return collect_results_gpu(results, size)
    return collect_results_cpu(results, size, tmpdir)


def collect_results_cpu(result_part: list[Any], size: int, tmpdir: str | None = None) -> list[Any] | None:
    """Collect results of all ranks through files in a folder that all ranks see.

    Args:
        result_part: this rank's results.
        size: number of samples in all.
        tmpdir: the folder; made if need be, removed afterwards. Default: one that rank 0 makes.

    Returns:
        All results in the dataset's order on rank 0, None on others.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return result_part[:size]
    if tmpdir is None:
        named: list[Any] = [tempfile.mkdtemp(prefix="cv-results-") if rank == 0 else None]
        dist.broadcast_object_list(named, src=0)
        tmpdir = named[0]
    folder = Path(str(tmpdir))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"part_{rank}.pkl").open("wb") as file:
        pickle.dump(result_part, file, protocol=pickle.HIGHEST_PROTOCOL)
    dist.barrier()
    if rank != 0:
        return None
    parts = []
    for other in range(world_size):
        with (folder / f"part_{other}.pkl").open("rb") as file:
            parts.append(pickle.load(file))  # our own files, written above
    shutil.rmtree(folder)
    return _in_order(parts, size)


def collect_results_gpu(result_part: list[Any], size: int) -> list[Any] | None:
    """Collect results of all ranks through the process group (NCCL or gloo).

    Args:
        result_part: this rank's results.
        size: number of samples in all.

    Returns:
        All results in the dataset's order on rank 0, None on others.
    """
    rank, world_size = get_dist_info()
    if world_size == 1:
        return result_part[:size]
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, result_part)
    return _in_order(parts, size) if rank == 0 else None


def _in_order(parts: list[list[Any]], size: int) -> list[Any]:
    """Interleave the ranks' results (sample i was rank i mod n's), without what the sampler repeated."""
    longest = max((len(part) for part in parts), default=0)
    ordered = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return ordered[:size]
