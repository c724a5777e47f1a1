"""Load checkpoints. (Saving is in cv.runner, which gives these names too.)"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from cv.cnn.checkpoint.errors import UntrustedCheckpointError
from cv.cnn.checkpoint.loader import CheckpointLoader
from cv.cnn.checkpoint.reading import read_checkpoint
from cv.cnn.checkpoint.state_dict import load_state_dict, revise_keys_of, select_prefix, state_dict_of
from cv.utils.errors import UsageError

__all__ = [
    "CheckpointLoader",
    "UntrustedCheckpointError",
    "_load_checkpoint",
    "_load_checkpoint_with_prefix",
    "load_checkpoint",
    "load_state_dict",
    "read_checkpoint",
]


def load_checkpoint(
    model: nn.Module,
    filename: str | os.PathLike[str],
    map_location: Any = None,
    strict: bool = False,
    logger: logging.Logger | None = None,
    revise_keys: Sequence[tuple[str, str]] = ((r"^module\.", ""),),
    *,
    trust: bool = False,
) -> Any:
    """Load a checkpoint into a model.

    Args:
        model: The model; it is changed in place.
        filename: Path, URL, ``torchvision://resnet50``, ``open-mmlab://…`` or what else
            :class:`CheckpointLoader` knows.
        map_location: As for ``torch.load``.
        strict: Raise an error if anything is missing, unexpected or of another shape; otherwise that is
            only reported.
        logger: Where messages go. None: they are printed.
        revise_keys: ``(pattern, replacement)`` pairs of regular expressions, applied to the keys in their
            order. Default: strip the prefix ``module.``.
        trust: Read a file that asks for any class or function, which can run any code. (The environment
            variable ``CV_CHECKPOINT_TRUST=1`` does the same for code that cannot be changed.)

    Returns:
        The checkpoint: usually a dict with ``meta``, ``state_dict`` and ``optimizer``.

    Raises:
        RuntimeError: The file holds no state dict, or with ``strict`` something does not fit.
        UntrustedCheckpointError: The file asks for more than tensors and plain data.
        FileNotFoundError: There is no such file.
    """
    checkpoint = _load_checkpoint(filename, map_location, logger, trust=trust)
    state_dict = revise_keys_of(state_dict_of(checkpoint, os.fspath(filename)), revise_keys)
    load_state_dict(model, state_dict, strict, logger)
    return checkpoint


def _load_checkpoint(
    filename: str | os.PathLike[str],
    map_location: Any = None,
    logger: logging.Logger | None = None,
    *,
    trust: bool = False,
) -> Any:
    """Load a checkpoint and return it; see :func:`load_checkpoint`."""
    return CheckpointLoader.load_checkpoint(filename, map_location, logger, trust=trust)


def _load_checkpoint_with_prefix(
    prefix: str,
    filename: str | os.PathLike[str],
    map_location: Any = None,
    *,
    trust: bool = False,
) -> OrderedDict[str, Any]:
    """Load the part of a checkpoint's state dict below a prefix, with the prefix removed.

    Args:
        prefix: Name of the part: ``"backbone"`` or ``"backbone."``.
        filename: As for :func:`load_checkpoint`.
        map_location: As for ``torch.load``.
        trust: As for :func:`load_checkpoint`.

    Raises:
        UsageError: There is nothing below the prefix.
    """
    checkpoint = _load_checkpoint(filename, map_location, trust=trust)
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    selected = select_prefix(state_dict_of(checkpoint, os.fspath(filename)), prefix)
    if not selected:
        raise UsageError(f"{prefix} is not in the pretrained model {filename}")
    return selected
