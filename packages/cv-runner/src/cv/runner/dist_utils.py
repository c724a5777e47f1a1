"""Start torch.distributed from the environment of a launcher, and small collectives."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import distributed as dist

from cv.cnn.checkpoint.dtensor import is_sharded_tensor
from cv.utils.dist import get_dist_info

__all__ = [
    "allreduce_grads",
    "allreduce_params",
    "get_dist_info",
    "init_dist",
    "master_only",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
Launcher = Literal["pytorch", "slurm", "mpi"]


def init_dist(launcher: Launcher | str, backend: str = "nccl", **kwargs: Any) -> None:
    """Join the process group that the launcher's environment describes.

    Each process takes the CUDA device of its local rank. Without CUDA, the ``nccl`` backend, which needs
    it, gives way to ``gloo``.

    Args:
        launcher: ``'pytorch'`` (torchrun), ``'slurm'`` (srun) or ``'mpi'`` (mpirun of Open MPI).
        backend: backend of ``torch.distributed``.
        **kwargs: further arguments of ``torch.distributed.init_process_group``; for slurm also ``port``.

    Raises:
        ValueError: another launcher.
        RuntimeError: the launcher's environment variables are missing.
    """
    if launcher == "pytorch":
        rank, local_rank = int(_environment("RANK", launcher)), os.environ.get("LOCAL_RANK")
        local = int(local_rank) if local_rank is not None else rank
    elif launcher == "mpi":
        rank = int(_environment("OMPI_COMM_WORLD_RANK", launcher))
        local = int(_environment("OMPI_COMM_WORLD_LOCAL_RANK", launcher))
        _environment("MASTER_ADDR", launcher)
        os.environ.setdefault("MASTER_PORT", "29500")
        os.environ["RANK"] = str(rank)
        os.environ["WORLD_SIZE"] = _environment("OMPI_COMM_WORLD_SIZE", launcher)
    elif launcher == "slurm":
        rank, local = _slurm_environment(kwargs.pop("port", None))
    else:
        raise ValueError(f"launcher must be 'pytorch', 'slurm' or 'mpi', got {launcher!r}")

    os.environ.setdefault("LOCAL_RANK", str(local))
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    elif backend == "nccl":
        backend = "gloo"
    dist.init_process_group(backend=backend, **kwargs)


def _environment(name: str, launcher: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise RuntimeError(
            f"launcher {launcher!r} needs the environment variable {name}; was this process started by it?"
        ) from None


def _slurm_environment(port: int | str | None) -> tuple[int, int]:
    """Translate srun's variables to those that torch.distributed reads; rank and local rank."""
    rank = int(_environment("SLURM_PROCID", "slurm"))
    os.environ["WORLD_SIZE"] = _environment("SLURM_NTASKS", "slurm")
    os.environ["RANK"] = str(rank)
    if port is not None:
        os.environ["MASTER_PORT"] = str(port)
    else:
        os.environ.setdefault("MASTER_PORT", "29500")
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_slurm_host(_environment("SLURM_NODELIST", "slurm"))
    devices = max(torch.cuda.device_count(), 1)
    local = int(os.environ.get("SLURM_LOCALID", rank % devices))
    os.environ["LOCAL_RANK"] = str(local)
    return rank, local


def _first_slurm_host(node_list: str) -> str:
    """The first host of a Slurm node list such as ``node[03-05,9],gpu1``."""
    if "[" not in node_list:
        return node_list.split(",")[0]
    output = subprocess.run(
        ["scontrol", "show", "hostname", node_list], check=True, capture_output=True, text=True
    ).stdout
    return output.split()[0]


def master_only(func: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """Decorator: run the function on rank 0; on other ranks it does nothing and returns None."""

    @functools.wraps(func)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        return func(*args, **kwargs) if get_dist_info()[0] == 0 else None

    return wrapper


def check_even(data_loader: Any, otherwise: str) -> None:
    """Raise where ranks would wait for each other for ever, having different numbers of batches.

    Loaders that do not know their length are trusted. All ranks call this.

    Args:
        data_loader: this rank's.
        otherwise: what goes wrong, for the message.

    Raises:
        ValueError: on all ranks, if the numbers differ.
    """
    if get_dist_info()[1] < 2:
        return
    try:
        length = len(data_loader)
    except TypeError:  # an iterable dataset
        length = None
    lengths: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lengths, length)
    if len({each for each in lengths if each is not None}) > 1:
        listed = ", ".join(f"rank {rank}: {each}" for rank, each in enumerate(lengths))
        raise ValueError(
            f"{otherwise} with different numbers of batches on the ranks ({listed}); "
            "DistributedSampler gives all ranks the same number"
        )


def allreduce_params(params: Iterable[torch.Tensor], coalesce: bool = True, bucket_size_mb: int = -1) -> None:
    """Average parameters or buffers over all ranks, in place.

    Args:
        params: parameters or buffers of a model; the same on every rank. Integer ones are averaged too
            and rounded down; those sharded over ranks are left out.
        coalesce: exchange many tensors at once.
        bucket_size_mb: most megabytes to exchange at once; no limit where it is not positive.
    """
    if get_dist_info()[1] > 1:
        whole = [param.detach() for param in params if not is_sharded_tensor(param)]
        _allreduce_mean(whole, coalesce, bucket_size_mb)


def allreduce_grads(params: Iterable[torch.Tensor], coalesce: bool = True, bucket_size_mb: int = -1) -> None:
    """Average gradients over all ranks, in place.

    Args:
        params: parameters of a model; those without a gradient are left out, and those sharded over
            ranks, whose gradients are averages already.
        coalesce: exchange many tensors at once.
        bucket_size_mb: most megabytes to exchange at once; no limit where it is not positive.
    """
    if get_dist_info()[1] > 1:
        grads = [
            p.grad.detach()
            for p in params
            if p.requires_grad and p.grad is not None and not is_sharded_tensor(p.grad)
        ]
        _allreduce_mean(grads, coalesce, bucket_size_mb)


def _allreduce_mean(tensors: list[torch.Tensor], coalesce: bool, bucket_size_mb: int) -> None:
    world_size = dist.get_world_size()
    groups = _buckets(tensors, bucket_size_mb * 1024 * 1024) if coalesce else ([t] for t in tensors)
    for group in groups:
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        if flat.is_floating_point() or flat.is_complex():
            flat.div_(world_size)
        else:
            flat.floor_divide_(world_size)
        offset = 0
        for tensor in group:
            tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
            offset += tensor.numel()


def _buckets(tensors: list[torch.Tensor], max_bytes: int) -> Iterator[list[torch.Tensor]]:
    """Tensors of one dtype and device together, up to ``max_bytes`` (no limit where not positive)."""
    kinds: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for same in kinds.values():
        bucket: list[torch.Tensor] = []
        size = 0
        for tensor in same:
            size += tensor.numel() * tensor.element_size()
            if bucket and 0 < max_bytes < size:
                yield bucket
                bucket, size = [], tensor.numel() * tensor.element_size()
            bucket.append(tensor)
        yield bucket
