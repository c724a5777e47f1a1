"""Save checkpoints; the loading half comes from cv-cnn and is offered here under its documented names.

A checkpoint is a dict of ``meta``, ``state_dict``, ``optimizer`` and, from a runner, ``resume``: what it
takes to go on bit for bit. It holds tensors and plain values only and loads with ``weights_only=True``.
Files are written beside their target, flushed and renamed over it: whenever the process dies, the file of
that name is whole.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from cv.cnn.checkpoint import (
    CheckpointLoader,
    _load_checkpoint,
    _load_checkpoint_with_prefix,
    load_checkpoint,
    load_state_dict,
)
from cv.cnn.checkpoint.dtensor import is_sharded_tensor
from cv.cnn.checkpoint.loader import (
    load_from_http,
    load_from_local,
    load_from_mmcls,
    load_from_openmmlab,
    load_from_torchvision,
)
from cv.fileio import FileClient, atomic_write
from cv.parallel.registry import is_module_wrapper, unwrap

__all__ = [
    "CheckpointLoader",
    "_load_checkpoint",
    "_load_checkpoint_with_prefix",
    "get_state_dict",
    "load_checkpoint",
    "load_from_http",
    "load_from_local",
    "load_from_mmcls",
    "load_from_openmmlab",
    "load_from_torchvision",
    "load_state_dict",
    "save_checkpoint",
    "save_safetensors",
    "weights_to_cpu",
]

_logger = logging.getLogger(__name__)
_reported: set[str] = set()
# bool is not a base of anything, and comes before int, which it is one of.
_PLAIN_TYPES: tuple[Any, ...] = (bool, int, float, complex, str, bytes)


def weights_to_cpu(state_dict: OrderedDict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """A copy of a state dict with every tensor on the CPU.

    Args:
        state_dict: weights on any device. Its ``_metadata`` (versions of modules) comes along.
    """
    return _to_cpu(state_dict, copy=False)


def _to_cpu(
    state_dict: OrderedDict[str, torch.Tensor], *, copy: bool, sharded: bool = False
) -> OrderedDict[str, torch.Tensor]:
    on_cpu = OrderedDict(
        (key, plain(value, key, copy=copy, sharded=sharded)) for key, value in state_dict.items()
    )
    on_cpu._metadata = getattr(state_dict, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    return on_cpu


def get_state_dict(module: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """The state dict of a model without the ``module.`` that wrappers add, at whatever depth they are."""
    module = unwrap(module)
    state: OrderedDict[str, torch.Tensor] = module.state_dict()  # type: ignore[assignment]
    wrappers = [name + "." for name, child in module.named_modules() if name and is_module_wrapper(child)]
    if not wrappers:
        return state
    metadata = getattr(state, "_metadata", OrderedDict())
    for prefix in sorted(wrappers, key=len, reverse=True):  # inner ones first
        state = OrderedDict((_without_module(key, prefix), value) for key, value in state.items())
        metadata = OrderedDict((_without_module(key, prefix), value) for key, value in metadata.items())
    state._metadata = metadata  # type: ignore[attr-defined]
    return state


def _without_module(key: str, prefix: str) -> str:
    inner = prefix + "module"
    if key == inner:
        return prefix[:-1]
    return prefix + key[len(inner) + 1 :] if key.startswith(inner + ".") else key


def build_checkpoint(
    model: nn.Module,
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    meta: Mapping[str, Any] | None = None,
    *,
    copy: bool = False,
    sharded: bool = False,
) -> dict[str, Any]:
    """The dict that :func:`save_checkpoint` writes; its tensors are on the CPU.

    Args:
        model: as there.
        optimizer: as there.
        meta: as there.
        copy: every tensor gets memory of its own, which the next training step does not change.
        sharded: keep tensors that are sharded over ranks as they are.

    Raises:
        TypeError: ``meta`` is not a dict.
        RuntimeError: the model is sharded, and ``sharded`` is not set.
    """
    if meta is not None and not isinstance(meta, Mapping):
        raise TypeError(f"meta must be a dict or None, got {type(meta).__name__}")
    full_meta = {**(meta or {}), "cv_runner_version": _own_version(), "time": time.asctime()}
    module = unwrap(model)
    if getattr(module, "CLASSES", None) is not None:
        full_meta["CLASSES"] = module.CLASSES
    checkpoint: dict[str, Any] = {
        "meta": plain(full_meta, "meta"),
        "state_dict": _to_cpu(get_state_dict(module), copy=copy, sharded=sharded),
    }
    if isinstance(optimizer, Optimizer):
        checkpoint["optimizer"] = plain(optimizer.state_dict(), "optimizer", copy=copy, sharded=sharded)
    elif isinstance(optimizer, Mapping):
        checkpoint["optimizer"] = {
            name: plain(each.state_dict(), f"optimizer {name}", copy=copy, sharded=sharded)
            for name, each in optimizer.items()
        }
    return checkpoint


def save_checkpoint(
    model: nn.Module,
    filename: str,
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    meta: dict[str, Any] | None = None,
) -> None:
    """Save a checkpoint with the fields ``meta``, ``state_dict`` and, if given, ``optimizer``.

    Args:
        model: its parameters and buffers are saved, without wrappers' prefixes. ``model.CLASSES`` goes
            into the meta data.
        filename: a path; its folder is made if need be. Or a URI of a storage backend that can write
            (``s3://…``), or ``pavi://…``.
        optimizer: an optimizer or a dict of them.
        meta: further meta data. ``cv_runner_version`` and ``time`` are added.

    Raises:
        TypeError: ``meta`` is not a dict.
        RuntimeError: the model is sharded: that is :func:`save_sharded_checkpoint`'s to do.
        OSError: the file cannot be written; a former one of that name is as it was.
    """
    write_checkpoint(build_checkpoint(model, optimizer, meta), filename)


def write_checkpoint(checkpoint: dict[str, Any], filename: str) -> None:
    """Write a checkpoint dict to a path or URI; whole, or not at all."""
    filename = os.fspath(filename)
    if filename.startswith("pavi://"):
        _write_to_pavi(checkpoint, filename)
    elif "://" in filename:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        FileClient.infer_client(uri=filename).put(buffer.getvalue(), filename)
    else:
        Path(filename).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(filename) as file:
            torch.save(checkpoint, file)


def save_safetensors(model: nn.Module, filename: str, meta: Mapping[str, str] | None = None) -> None:
    """Export a model's weights in the safetensors format.

    Args:
        model: its parameters and buffers are saved, without wrappers' prefixes. Tensors that share
            memory are written once each.
        filename: a path, usually with the suffix ``.safetensors``.
        meta: text to put into the header.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ImportError("save_safetensors needs safetensors: pip install cv-runner[safetensors]") from error
    weights = {
        key: value.contiguous().clone() for key, value in weights_to_cpu(get_state_dict(model)).items()
    }
    Path(filename).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(filename) as file:
        file.write(save(weights, metadata={"format": "pt", **(meta or {})}))


def plain(value: Any, where: str, *, copy: bool = False, sharded: bool = False) -> Any:
    """The value in types that ``torch.load(weights_only=True)`` takes; tensors come to the CPU.

    numpy numbers become Python's, arrays become tensors, mappings dicts. Anything else is saved as its
    text, and a warning says so once: a value that cannot be saved must not end a training run.

    Args:
        value: the value.
        where: what it is, for the warning.
        copy: tensors get memory of their own even where they are on the CPU already.
        sharded: keep sharded tensors as they are, where they are.

    Raises:
        RuntimeError: a sharded tensor, without ``sharded``.
    """
    if value is None or type(value) in _PLAIN_TYPES:
        return value
    if isinstance(value, np.generic):  # np.float64 is a float, too
        return value.item()
    for kind in _PLAIN_TYPES:  # subclasses of them
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, torch.Tensor):
        if not is_sharded_tensor(value):
            return value.detach().to("cpu", copy=copy)
        if not sharded:
            raise RuntimeError(
                f"{where} is sharded over ranks, and this would save one share: use "
                "cv.runner.save_sharded_checkpoint on all ranks, and merge_sharded_checkpoint for one file"
            )
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        items = (
            (plain_key(key), plain(item, f"{where}[{key!r}]", copy=copy, sharded=sharded))
            for key, item in value.items()
        )
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    if isinstance(value, (list, tuple)):
        items_list = [
            plain(item, f"{where}[{i}]", copy=copy, sharded=sharded) for i, item in enumerate(value)
        ]
        return tuple(items_list) if isinstance(value, tuple) else items_list
    if isinstance(value, (set, frozenset)):
        return {plain(item, where) for item in value}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (torch.device, torch.dtype)):
        return str(value)
    if where not in _reported:
        _reported.add(where)
        _logger.warning(
            "%s is a %s, which a checkpoint cannot hold; its text is saved.", where, type(value).__name__
        )
    return str(value)


def plain_key(key: Any) -> Any:
    """A dict key in a plain type."""
    return key if isinstance(key, (str, int, float, bool, tuple, type(None))) else str(key)


def link_latest(out_dir: str, filename: str, link_name: str = "latest.pth") -> None:
    """Let ``latest.pth`` in a folder point at a file there; readers see the old target or the new one.

    Where the system has no symbolic links, the file is copied.
    """
    link = Path(out_dir, link_name)
    temporary = link.with_name(f".{link_name}.{os.urandom(6).hex()}.tmp")
    try:
        temporary.symlink_to(filename)
    except (OSError, NotImplementedError):
        source = Path(out_dir, filename)
        with source.open("rb") as content, atomic_write(link) as copy:
            while chunk := content.read(1 << 24):
                copy.write(chunk)
        return
    temporary.replace(link)


def in_folder(folder: str, name: str) -> str:
    """The path or URI of a checkpoint in a folder."""
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(Path(folder, name))


def names_in_folder(folder: str) -> list[str]:
    """The names of what is in a folder, which may be a URI."""
    if "://" not in folder:
        return [path.name for path in Path(folder).iterdir()]
    return list(FileClient.infer_client(uri=folder).list_dir_or_file(folder, list_dir=False))


def remove_checkpoint(filename: str) -> bool:
    """Remove a checkpoint, if it is there: a file, a URI, or the folder of a sharded one. Whether it was."""
    if "://" in filename:
        client = FileClient.infer_client(uri=filename)
        found = client.isfile(filename)
        if found:
            client.remove(filename)
        return found
    path = Path(filename)
    if path.is_dir():
        path.joinpath("checkpoint.pth").unlink(missing_ok=True)  # from here on it is none
        shutil.rmtree(path, ignore_errors=True)
        return True
    found = path.is_file()
    path.unlink(missing_ok=True)
    return found


def remove_left_overs(folder: Path) -> None:
    """Remove what a killed process left of unfinished checkpoints in a folder."""
    for file in folder.glob(".*.pth.*.tmp"):
        file.unlink(missing_ok=True)
    for path in folder.glob("*.pth"):  # see cv.runner.sharded_checkpoint
        if path.is_dir() and not path.joinpath("checkpoint.pth").exists() and any(path.glob("shards-*")):
            shutil.rmtree(path, ignore_errors=True)


def _write_to_pavi(checkpoint: dict[str, Any], filename: str) -> None:
    """Upload as a model of Pavi, whose client is not public: by the interface that it documents."""
    try:
        from pavi import modelcloud
        from pavi.exception import NodeNotFoundError
    except ImportError as error:
        raise ImportError(
            "saving to pavi:// needs the package pavi, which is not on a public index"
        ) from error
    model_dir, _, name = filename.removeprefix("pavi://").rpartition("/")
    root = modelcloud.Folder()
    try:
        model = modelcloud.get(model_dir)
    except NodeNotFoundError:
        model = root.create_training_model(model_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with path.open("wb") as file:
            torch.save(checkpoint, file)
        model.create_file(str(path), name=name)


@functools.cache
def _own_version() -> str:
    try:
        return version("cv-runner")
    except PackageNotFoundError:  # used from a source tree
        return "unknown"
