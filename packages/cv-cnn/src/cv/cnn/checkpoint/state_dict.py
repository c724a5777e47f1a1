"""Put a state dict into a module, and say what did not fit."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cv.cnn.checkpoint.dtensor import is_sharded_tensor, shard_like
from cv.cnn.module_wrapper import unwrap
from cv.utils.dist import get_dist_info

__all__ = ["load_state_dict", "revise_keys_of", "select_prefix", "state_dict_of"]

_SHOWN = 100  # keys of each kind in a report; a wrong checkpoint can have thousands


def load_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Any],
    strict: bool = False,
    logger: logging.Logger | None = None,
) -> None:
    """Load a state dict into a module.

    Keys that fit are loaded whatever the others are. Wrappers (``DataParallel`` …) at any depth do not
    count in the names. Modules may upgrade old entries in their ``_load_from_state_dict``, whose
    ``local_metadata["version"]`` is the version they were saved with.

    Args:
        module: The module; it is changed in place.
        state_dict: Tensors by name. It is not changed.
        strict: Raise an error if anything is missing, unexpected or of another shape.
        logger: Where the report goes otherwise. None: it is printed.

    Raises:
        RuntimeError: Something does not fit, and ``strict`` is set; the text is the report.
    """
    metadata = getattr(state_dict, "_metadata", None)
    entries = OrderedDict(state_dict)
    if metadata is not None:
        entries._metadata = metadata  # type: ignore[attr-defined]
    missing: list[str] = []
    unexpected: list[str] = []
    mismatched: list[str] = []
    _load_into(module, entries, "", metadata or {}, (missing, unexpected, mismatched))

    # Counters of batch norm are newer than many checkpoints and do not matter for the result.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    # A module further down may have taken an entry that its parent did not expect (renamed parameters).
    unexpected = [key for key in unexpected if key in entries]
    report = _report(unexpected, missing, mismatched)
    if not report:
        return
    if strict:
        raise RuntimeError(report)
    if get_dist_info()[0] == 0:
        if logger is not None:
            logger.warning(report)
        else:
            print(report)  # noqa: T201  (documented)


def state_dict_of(checkpoint: Any, filename: str) -> Mapping[str, Any]:
    """The weights in a checkpoint: its ``state_dict`` or ``model``, or the checkpoint itself.

    Raises:
        RuntimeError: It is not a dict.
    """
    if not isinstance(checkpoint, Mapping):
        raise RuntimeError(
            f"No state_dict found in checkpoint file {filename}: it holds a {type(checkpoint)}"
        )
    for key in ("state_dict", "model"):
        if isinstance(checkpoint.get(key), Mapping):
            found: Mapping[str, Any] = checkpoint[key]
            return found
    return checkpoint


def revise_keys_of(
    state_dict: Mapping[str, Any], revise_keys: Sequence[tuple[str, str]]
) -> OrderedDict[str, Any]:
    """Rename keys by regular expressions, and the entries of the metadata alike.

    Raises:
        ValueError: Two keys get the same name.
    """
    revised: OrderedDict[str, Any] = OrderedDict()
    for key, value in state_dict.items():
        new = _revise(key, revise_keys)
        if new in revised:
            raise ValueError(f"revise_keys gives two keys the name {new!r}; one of them is {key!r}")
        revised[new] = value
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        # Its keys are the names of modules: without the dot that patterns may ask for.
        revised._metadata = OrderedDict(  # type: ignore[attr-defined]
            (_revise(f"{key}.", revise_keys)[:-1] if key else key, value) for key, value in metadata.items()
        )
    return revised


def select_prefix(state_dict: Mapping[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """The entries below a prefix (which ends with a dot), without it; likewise of the metadata."""
    selected = OrderedDict(
        (key[len(prefix) :], value) for key, value in state_dict.items() if key.startswith(prefix)
    )
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        selected._metadata = OrderedDict(  # type: ignore[attr-defined]
            (key[len(prefix) :], value) for key, value in metadata.items() if f"{key}.".startswith(prefix)
        )
    return selected


def _load_into(
    module: nn.Module,
    entries: OrderedDict[str, Any],
    prefix: str,
    metadata: Mapping[str, Any],
    problems: tuple[list[str], list[str], list[str]],
) -> None:
    module = unwrap(module)
    missing, unexpected, mismatched = problems
    _shard_entries(module, entries, prefix)
    # All entries, not only those below the prefix: an upgrade may rename one from beside it.
    module._load_from_state_dict(
        entries, prefix, metadata.get(prefix[:-1], {}), True, missing, unexpected, mismatched
    )
    for name, child in module._modules.items():
        if child is not None:
            _load_into(child, entries, f"{prefix}{name}.", metadata, problems)
    if module._load_state_dict_post_hooks:
        incompatible = nn.modules.module._IncompatibleKeys(missing, unexpected)
        for hook in module._load_state_dict_post_hooks.values():
            hook(module, incompatible)


def _shard_entries(module: nn.Module, entries: OrderedDict[str, Any], prefix: str) -> None:
    """Whole tensors for sharded parameters become this rank's shares; what fits not, the loading reports."""
    for name, own in (*module._parameters.items(), *module._buffers.items()):
        value = entries.get(prefix + name)
        if (
            is_sharded_tensor(own)
            and isinstance(value, torch.Tensor)
            and not is_sharded_tensor(value)
            and own is not None
            and value.shape == own.shape
        ):
            entries[prefix + name] = shard_like(value, own)


def _report(unexpected: list[str], missing: list[str], mismatched: list[str]) -> str:
    parts = list(mismatched)
    if unexpected:
        parts.append(f"unexpected key in source state_dict: {_listed(unexpected)}\n")
    if missing:
        parts.append(f"missing keys in source state_dict: {_listed(missing)}\n")
    return "\n".join(["The model and loaded state dict do not match exactly\n", *parts]) if parts else ""


def _listed(keys: list[str]) -> str:
    more = f", … and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _revise(key: str, revise_keys: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in revise_keys:
        key = re.sub(pattern, replacement, key)
    return key
