"""Save a model that is sharded over ranks: every rank writes its share, through torch.distributed.checkpoint.

The form of such a checkpoint, a folder, is told in ``cv.cnn.checkpoint.sharded``, which reads it. A save
writes the shards into a subfolder of a new name and then puts ``checkpoint.pth``, which names it, into
place by renaming: a kill before leaves the folder as it was, and a new folder no checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.optim import Optimizer

from cv.cnn.checkpoint.dtensor import is_sharded_tensor, mesh_of
from cv.cnn.checkpoint.sharded import INDEX, map_tensors, read_sharded_checkpoint
from cv.fileio import atomic_write
from cv.runner.checkpoint import build_checkpoint, write_checkpoint


def save_sharded_checkpoint(
    model: nn.Module,
    folder: str | os.PathLike[str],
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    meta: dict[str, Any] | None = None,
) -> None:
    """Save a model that is sharded over ranks; call it on all of them.

    Args:
        model: its parameters and buffers are saved, without wrappers' prefixes.
        folder: a folder that all ranks see; made if need be. A former checkpoint there stays whole until
            the new one is.
        optimizer: an optimizer or a dict of them.
        meta: further meta data, as in :func:`save_checkpoint`.

    Raises:
        ValueError: the model is not sharded.
        OSError: on all ranks, if one of them cannot write.
    """
    if mesh_of(model) is None:
        raise ValueError(f"{type(model).__name__} is not sharded over ranks: save_checkpoint saves it")
    write_sharded(build_checkpoint(model, optimizer, meta, sharded=True), folder)


def merge_sharded_checkpoint(folder: str | os.PathLike[str], filename: str | os.PathLike[str]) -> None:
    """Write a sharded checkpoint as one ordinary file; one process does that, with room for all of it.

    Args:
        folder: the sharded checkpoint.
        filename: path or URI of the file.

    Raises:
        FileNotFoundError: the folder holds no whole checkpoint.
        OSError: the file cannot be written.
    """
    write_checkpoint(read_sharded_checkpoint(folder), os.fspath(filename))


def write_sharded(checkpoint: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write a checkpoint dict with sharded tensors; all ranks together.

    Raises:
        OSError: on all ranks, if one of them cannot write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = Path(folder)
    skeleton, shares = _split(checkpoint)
    shards = folder / _on_first_rank(lambda: _make_subfolder(folder))
    try:
        save(shares, storage_writer=FileSystemWriter(shards, sync_files=True))
    except CheckpointException as error:
        _on_first_rank(lambda: _discard(folder, shards))
        rank, (cause, _) = next(iter(error.failures.items()))
        kind = OSError if isinstance(cause, OSError) else RuntimeError
        raise kind(f"rank {rank} could not write its share into {shards}: {cause}") from error
    index = {"format": 1, "shards": shards.name, "checkpoint": skeleton}
    _on_first_rank(lambda: _commit(index, folder, shards))


def _split(checkpoint: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The checkpoint with descriptions for its sharded tensors, and these by their names in it."""
    shares: dict[str, Any] = {}

    def describe(path: str, tensor: torch.Tensor) -> Any:
        if not is_sharded_tensor(tensor):
            return tensor
        assert path not in shares, path
        shares[path] = tensor
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"sharded": path, "shape": list(tensor.shape), "dtype": dtype}

    return map_tensors(checkpoint, describe), shares


def _make_subfolder(folder: Path) -> str:
    name = f"shards-{os.urandom(4).hex()}"
    (folder / name).mkdir(parents=True)
    return name


def _commit(index: dict[str, Any], folder: Path, shards: Path) -> None:
    try:
        _sync_folder(shards)
        with atomic_write(folder / INDEX) as file:
            torch.save(index, file)
    except BaseException:
        _discard(folder, shards)
        raise
    for other in folder.glob("shards-*"):  # of a former save under this name, or of one cut short
        if other != shards:
            shutil.rmtree(other, ignore_errors=True)


def _discard(folder: Path, shards: Path) -> None:
    """Remove what a failed save wrote; nothing of a former one."""
    shutil.rmtree(shards, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _sync_folder(folder: Path) -> None:
    """Have the names of the files in a folder on disk, too, where the system lets one ask for it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _on_first_rank(action: Any) -> Any:
    """Do something on rank 0; all ranks get its result, or its error."""
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except Exception as raised:
            error = raised
            outcome[1] = (isinstance(raised, OSError), f"{type(raised).__name__}: {raised}")
    dist.broadcast_object_list(outcome, src=0)
    if error is not None:
        raise error
    if outcome[1] is not None:
        kind = OSError if outcome[1][0] else RuntimeError
        raise kind(f"rank 0: {outcome[1][1]}")
    return outcome[0]
