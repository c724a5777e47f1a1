"""Spoils arguments for ``fuzz_ops.py``: gives back something like a value that is probably wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

NUMBERS = [
    -1,
    0,
    1,
    2,
    3,
    7,
    0.5,
    -0.5,
    1e-30,
    1e30,
    2**31,
    2**62,
    -(2**62),
    math.nan,
    math.inf,
    None,
    "x",
    2**70,
]
EXTREMES = [math.nan, math.inf, -math.inf, 1e38, -1e38, 1e9, -1e9, 2.0**31, 2.0**63, -1.0, 0.0, 1e-38, 5e4]
DTYPES = [
    torch.int64, torch.uint8, torch.bool, torch.int32, torch.int16, torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip
FLOATS = [torch.float16, torch.bfloat16, torch.float64, torch.float32]
HUGE = [2**16, 2**31, 2**33, 2**40]


def spoil(value: Any, chance: random.Random) -> Any:
    """Something like ``value`` that is probably wrong."""
    if isinstance(value, Tensor):
        return spoil_tensor(value, chance)
    if isinstance(value, np.ndarray):
        return spoil_array(value, chance)
    if isinstance(value, (bool, str)):
        return chance.choice([None, True, "x", -1, 0])
    if isinstance(value, (int, float)):
        return chance.choice(NUMBERS)
    if isinstance(value, (tuple, list)):
        items = list(value)
        if items and chance.random() < 0.7:
            place = chance.randrange(len(items))
            items[place] = spoil(items[place], chance)
        else:
            items = chance.choice([[], items[:-1], [*items, *items]])
        return type(value)(items)
    if isinstance(value, dict):
        items = dict(value)
        key = chance.choice(sorted(items))
        if chance.random() < 0.2:
            items["unknown"] = items.pop(key)
        else:
            items[key] = spoil(items[key], chance)
        return items
    return value


def spoil_tensor(value: Tensor, chance: random.Random) -> Any:
    spoiled = chance.choice(_WAYS)(value.detach().clone(), chance)
    if isinstance(spoiled, Tensor) and spoiled.is_floating_point() and not spoiled.is_inference():
        return spoiled.requires_grad_(spoiled.requires_grad or value.requires_grad)
    return spoiled


def spoil_array(value: np.ndarray[Any, Any], chance: random.Random) -> Any:
    """Layouts and dtypes that only arrays have, or what is done to tensors."""
    way = chance.randrange(8)
    if way == 0 and value.ndim:
        return np.flip(value, chance.randrange(value.ndim))
    if way == 1:
        return value.astype(value.dtype.newbyteorder())
    if way == 2:
        return value.astype(chance.choice([object, np.uint16, np.longdouble, "S4"]))
    if way == 3:
        fixed = value.copy()
        fixed.flags.writeable = False
        return fixed
    if way == 4:
        return np.asfortranarray(value)
    if way == 5:
        return np.lib.stride_tricks.as_strided(value, value.shape, (0,) * value.ndim)
    if way == 6:
        return value.tolist()
    spoiled = spoil_tensor(torch.from_numpy(value.copy()), chance)
    if not isinstance(spoiled, Tensor) or spoiled.device.type != "cpu" or spoiled.is_sparse:
        return spoiled
    if spoiled.dtype in (torch.bfloat16, torch.float8_e4m3fn) or spoiled.numel() > 2**24:
        return None
    return spoiled.detach().resolve_neg().numpy()


def _dtype(t: Tensor, chance: random.Random) -> Tensor:
    return t.to(chance.choice(DTYPES))


def _float(t: Tensor, chance: random.Random) -> Tensor:
    return t.to(chance.choice(FLOATS)) if t.is_floating_point() else t


def _more_dimensions(t: Tensor, chance: random.Random) -> Tensor:
    return t.unsqueeze(chance.randrange(t.dim() + 1))


def _fewer_dimensions(t: Tensor, chance: random.Random) -> Tensor:
    return t[0] if t.dim() and t.shape[0] else t


def _shorter(t: Tensor, chance: random.Random) -> Tensor:
    if not t.dim():
        return t
    dim = chance.randrange(t.dim())
    return t.narrow(dim, 0, chance.randrange(t.shape[dim] + 1))


def _longer(t: Tensor, chance: random.Random) -> Tensor:
    return t.repeat_interleave(2, chance.randrange(t.dim())) if t.dim() else t


def _huge(t: Tensor, chance: random.Random) -> Tensor:
    """A dimension far larger than memory: nothing is copied, strides are 0."""
    if not t.dim() or not t.numel():
        return t
    dim = chance.randrange(t.dim())
    shape = list(t.shape)
    shape[dim] = chance.choice(HUGE)
    return t.narrow(dim, 0, 1).expand(shape)


def _expanded(t: Tensor, chance: random.Random) -> Tensor:
    return t.reshape(-1)[:1].reshape([1] * t.dim()).expand(t.shape) if t.numel() else t


def _extremes(t: Tensor, chance: random.Random) -> Tensor:
    if not t.numel() or t.dtype is torch.bool or t.is_complex():
        return t
    flat = t.reshape(-1)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(flat.numel())
        if t.is_floating_point():
            flat[place] = chance.choice(EXTREMES)
        else:
            limits = torch.iinfo(t.dtype)
            flat[place] = chance.choice([limits.min, limits.max, -1 % 127, 99, 0, 1])
    return flat.reshape(t.shape)


def _scaled(t: Tensor, chance: random.Random) -> Tensor:
    return (
        t * chance.choice([0.0, -1.0, 1e3, 1e-6, 1e20])
        if t.is_floating_point()
        else -t
        if t.dtype != torch.bool
        else t
    )


def _transposed(t: Tensor, chance: random.Random) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t


def _strided(t: Tensor, chance: random.Random) -> Tensor:
    return torch.stack([t, t], -1)[..., 0]


def _shifted(t: Tensor, chance: random.Random) -> Tensor:
    """Contiguous at an odd address."""
    return torch.cat([t.reshape(-1)[:1], t.reshape(-1)])[1:].view(t.shape) if t.numel() else t


def _scalar(t: Tensor, chance: random.Random) -> Tensor:
    return t.reshape(-1)[0] if t.numel() else t.new_zeros(())


def _empty(t: Tensor, chance: random.Random) -> Tensor:
    return t.new_empty(0)


def _meta(t: Tensor, chance: random.Random) -> Tensor:
    return t.to("meta")


def _sparse(t: Tensor, chance: random.Random) -> Tensor:
    return t.to_sparse() if t.dim() else t


def _negative_view(t: Tensor, chance: random.Random) -> Tensor:
    return torch._neg_view(t) if t.is_floating_point() else t  # type: ignore[no-any-return]


def _gradient(t: Tensor, chance: random.Random) -> Tensor:
    return t.requires_grad_() if t.is_floating_point() else t


def _inference(t: Tensor, chance: random.Random) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def _no_tensor(t: Tensor, chance: random.Random) -> Any:
    return chance.choice([None, 0, "x", [1.0], t.tolist(), np.array(t.tolist())])


_WAYS: list[Callable[[Tensor, random.Random], Any]] = [
    _dtype, _float, _more_dimensions, _fewer_dimensions, _shorter, _shorter, _longer, _huge, _expanded,
    _extremes, _extremes, _scaled, _transposed, _strided, _shifted, _scalar, _empty, _meta, _sparse,
    _negative_view, _gradient, _inference, _no_tensor,
]  # fmt: skip
