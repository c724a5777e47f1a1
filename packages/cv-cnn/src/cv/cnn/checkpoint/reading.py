"""Read a checkpoint from a file or from bytes, without running code that the file names.

Files written by ``torch.save`` are read with ``weights_only=True``. Besides what torch allows there, numbers
and arrays of numpy (metrics in the metadata of old checkpoints) and a few plain containers are allowed.
Files in the safetensors format hold nothing but tensors and text.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from cv.cnn.checkpoint.errors import TRUST_VARIABLE, UntrustedCheckpointError

__all__ = ["read_checkpoint"]


# What torch raises for content that it cannot make sense of.
_DAMAGED = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError)
# The same, where no code of the file runs that could raise these itself.
_DAMAGED_PLAIN = (AssertionError, AttributeError, LookupError, OverflowError, TypeError, struct.error)


def read_checkpoint(
    source: str | os.PathLike[str] | bytes,
    map_location: Any = None,
    *,
    name: str | None = None,
    trust: bool = False,
) -> Any:
    """Read a checkpoint.

    Args:
        source: A local file, or the content of one.
        map_location: As for ``torch.load``. (Tensors of a safetensors file have no device of their own:
            without a device here they are on the CPU.)
        name: What to call it in errors, and where its suffix is looked at. Default: the file's path.
        trust: Read a file that asks for any class or function, which can run any code.

    Returns:
        What the file holds; for safetensors a dict of ``meta`` (the text metadata) and ``state_dict``.

    Raises:
        FileNotFoundError: There is no such file.
        UntrustedCheckpointError: The file asks for more than is safe, and ``trust`` is not set.
        RuntimeError: The content is not a checkpoint, or is damaged.
        ImportError: A safetensors file, and safetensors is not installed.
    """
    if not isinstance(source, bytes):
        source = os.fspath(source)
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source} can not be found.")
    name = name or ("the checkpoint" if isinstance(source, bytes) else source)
    if name.endswith(".safetensors"):
        return _read_safetensors(source, map_location)

    trust = trust or os.environ.get(TRUST_VARIABLE, "") not in ("", "0")
    damaged = _DAMAGED if trust else _DAMAGED + _DAMAGED_PLAIN
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        try:
            if trust:
                return torch.load(file, map_location=map_location, weights_only=False)
            with torch.serialization.safe_globals(_plain_data_classes()):
                return torch.load(file, map_location=map_location, weights_only=True)
        except damaged as error:
            reason = _reason(error)
            if "on a CUDA device" in reason:  # a sound file, and no GPU here: torch says what to do
                raise RuntimeError(f"{name}: {reason}") from error
            unsafe = [] if trust else _unsafe_globals(cast(BinaryIO, file))
            if not unsafe and reason.startswith("Can only"):  # an allowed class used in a way that is not
                unsafe = [reason]
            if unsafe:
                raise UntrustedCheckpointError(name, unsafe) from None
            raise RuntimeError(f"{name} is damaged, or no checkpoint that torch reads: {reason}") from error


def _plain_data_classes() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What may be made from a checkpoint beside torch's own list: values without behaviour."""
    import numpy as np

    reduce_array, reduce_scalar = np.ndarray((0,)).__reduce__()[0], np.float64(0).__reduce__()[0]
    # Numbers, bools and text; not object and structured arrays, whose bytes may be pointers.
    codes = (*np.typecodes["AllInteger"], *np.typecodes["AllFloat"], "?", "S", "U")
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in codes}]
    # numpy 2 moved its internals: files of either age are read by either.
    for package in ("numpy.core", "numpy._core"):
        allowed.append((reduce_array, f"{package}.multiarray._reconstruct"))
        allowed.append((reduce_scalar, f"{package}.multiarray.scalar"))
    return [*allowed, frozenset, range, slice]


def _reason(error: Exception) -> str:
    """What torch has to say, without its advice to load everything."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return text.strip().partition("\n")[0]


def _unsafe_globals(file: BinaryIO) -> list[str]:
    """The names that a checkpoint asks for and that are not allowed."""
    file.seek(0)
    try:
        with torch.serialization.safe_globals(_plain_data_classes()):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # not the zip format of torch >= 1.6
        file.seek(0)
        return _globals_of_pickles(file)


def _globals_of_pickles(file: BinaryIO) -> list[str]:
    """The same for the format of torch < 1.6: pickles one behind the other, then the numbers."""
    names: set[str] = set()
    strings: list[str] = []
    try:
        while True:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # the end of the pickles
        pass
    allowed = {f"{cls.__module__}.{cls.__name__}" for cls in _plain_data_classes() if isinstance(cls, type)}
    allowed |= {entry[1] for entry in _plain_data_classes() if isinstance(entry, tuple)}
    allowed |= {"collections.OrderedDict", "collections.Counter", "_codecs.encode"}
    allowed |= {f"builtins.{name}" for name in ("set", "complex", "bytearray")}
    names = {name.replace("__builtin__.", "builtins.") for name in names}  # as protocol 2 writes it
    return sorted(name for name in names - allowed if not name.startswith("torch."))


def _read_safetensors(source: str | bytes, map_location: Any) -> dict[str, Any]:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError(
            "reading .safetensors files needs the package safetensors: pip install cv-cnn[safetensors]"
        ) from None
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (ValueError, OSError, safetensors.SafetensorError) as error:
        what = "the data" if isinstance(source, bytes) else source
        raise RuntimeError(f"{what} is not a safetensors file, or damaged: {error}") from error
    if isinstance(map_location, (str, int, torch.device)):
        tensors = {key: tensor.to(map_location) for key, tensor in tensors.items()}
    return {"meta": header.get("__metadata__", {}), "state_dict": OrderedDict(tensors)}
