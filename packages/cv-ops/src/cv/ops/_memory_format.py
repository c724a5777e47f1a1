"""The layout rule that csrc/common/memory_format.h has, for fake functions."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """True for a (N, C, H, W) tensor that is stored (N, H, W, C) and is not contiguous as well."""
    return not x.is_contiguous() and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def like_input(x: Tensor) -> torch.memory_format:
    """The memory format of an output that follows its input's."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
