"""Read checkpoints that the ranks of a job wrote together: a folder with a share per rank.

The folder holds ``checkpoint.pth``, an ordinary checkpoint in which a description stands for every sharded
tensor, and, in a subfolder that it names, what ``torch.distributed.checkpoint`` wrote. ``checkpoint.pth`` is
written last and renamed into place: the folder is a checkpoint from then on. (Writing is in cv.runner.)

Any number of processes can read it: whole tensors, or shares over another number of ranks.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from cv.cnn.checkpoint.errors import UntrustedCheckpointError
from cv.cnn.checkpoint.reading import read_checkpoint

__all__ = ["INDEX", "is_sharded_checkpoint", "map_tensors", "read_sharded_checkpoint"]

#: The file that makes a folder a checkpoint.
INDEX = "checkpoint.pth"

_FORMAT = 1
# What the metadata of torch.distributed.checkpoint consist of, and nothing that acts.
_METADATA_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "collections": {"OrderedDict"},
}


def is_sharded_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with a whole sharded checkpoint."""
    return Path(path, INDEX).is_file()


def read_sharded_checkpoint(folder: str | os.PathLike[str], *, mesh: Any = None, trust: bool = False) -> Any:
    """Read a sharded checkpoint.

    Args:
        folder: The folder.
        mesh: A ``DeviceMesh``: sharded tensors come sharded over it (along their first dimension, as FSDP
            does), each rank reading its share; all its ranks call this. None: they come whole, on the
            CPU.
        trust: See :func:`cv.cnn.load_checkpoint`; the shards themselves hold nothing but tensors.

    Returns:
        The checkpoint, as if it were read from one file.

    Raises:
        FileNotFoundError: There is no such folder, or it has no ``checkpoint.pth``: its save was cut short.
        UntrustedCheckpointError: The metadata ask for more than is safe.
        RuntimeError: The content is damaged.
    """
    folder = Path(folder)
    if not is_sharded_checkpoint(folder):
        raise FileNotFoundError(f"{folder} is not a checkpoint: it has no {INDEX}, which a save writes last")
    index = read_checkpoint(folder / INDEX, "cpu", trust=trust)
    if not isinstance(index, Mapping) or index.get("format") != _FORMAT:
        raise RuntimeError(f"{folder / INDEX} is not the index of a sharded checkpoint of format {_FORMAT}")
    targets: dict[str, torch.Tensor] = {}

    def allocate(entry: Mapping[str, Any]) -> torch.Tensor:
        target = _empty(entry["shape"], getattr(torch, entry["dtype"]), mesh)
        targets[entry["sharded"]] = target
        return target

    checkpoint = map_entries(index["checkpoint"], allocate)
    _load(targets, folder / Path(index["shards"]).name)
    return checkpoint


def map_tensors(value: Any, change: Callable[[str, torch.Tensor], Any], path: str = "") -> Any:
    """A copy of nested dicts and lists with every tensor replaced; ``change`` gets its path and itself."""
    if isinstance(value, torch.Tensor):
        return change(path, value)
    below = f"{path}/" if path else ""
    return _map_items(value, lambda key, item: map_tensors(item, change, f"{below}{key}"))


def map_entries(value: Any, replace: Callable[[Mapping[str, Any]], torch.Tensor]) -> Any:
    """A copy with every description of a sharded tensor replaced."""
    if isinstance(value, Mapping) and set(value) == {"sharded", "shape", "dtype"}:
        return replace(value)
    return _map_items(value, lambda _, item: map_entries(item, replace))


def _map_items(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    if isinstance(value, Mapping):
        items = {key: change(key, item) for key, item in value.items()}
        if not isinstance(value, OrderedDict):
            return items
        ordered = OrderedDict(items)
        if hasattr(value, "_metadata"):  # of a state dict: the versions of its modules
            ordered._metadata = value._metadata  # type: ignore[attr-defined]
        return ordered
    if isinstance(value, (list, tuple)):
        return type(value)(change(i, item) for i, item in enumerate(value))
    return value


def _empty(shape: list[int], dtype: torch.dtype, mesh: Any) -> torch.Tensor:
    if mesh is None:
        return torch.empty(shape, dtype=dtype)
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor import empty as empty_sharded

    placements = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]
    return empty_sharded(*shape, dtype=dtype, device_mesh=mesh, placements=placements)


def _load(targets: dict[str, torch.Tensor], shards: Path) -> None:
    """Fill tensors from the shards; each process by itself."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    if not targets:
        return
    try:
        metadata = _MetadataUnpickler(shards / ".metadata").load()
        entries = metadata.state_dict_metadata
        # Entries of other kinds would be unpickled.
        missing = [key for key in targets if not isinstance(entries.get(key), TensorStorageMetadata)]
    except UntrustedCheckpointError:
        raise
    except Exception as error:  # whatever broken pickles raise
        raise RuntimeError(f"{shards} is damaged: {type(error).__name__}: {error}") from error
    if missing:
        raise RuntimeError(f"{shards} is damaged: there is no tensor {missing[0]}")

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            """What was read above, without running what it names."""
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return cast(Metadata, metadata)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(dict(targets), storage_reader=Reader(shards), no_dist=True)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise RuntimeError(f"{shards} is damaged: {type(cause).__name__}: {cause}") from error


class _MetadataUnpickler(pickle.Unpickler):
    def __init__(self, path: Path) -> None:
        super().__init__(io.BytesIO(path.read_bytes()))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, if it is one of those that metadata consist of."""
        if name in _METADATA_CLASSES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise UntrustedCheckpointError(str(self._path), [f"{module}.{name}"])
