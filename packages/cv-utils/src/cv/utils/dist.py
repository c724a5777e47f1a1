"""What a process knows about its place in a distributed job, without importing torch."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["get_dist_info", "get_rank"]


def get_dist_info() -> tuple[int, int]:
    """Rank and world size of this process.

    Returns:
        ``(rank, world_size)`` of the default process group of torch.distributed, or ``(0, 1)`` if there is
        none. Where nobody has imported torch there cannot be one, so torch is not imported to find out.
    """
    dist = _initialized()
    return (0, 1) if dist is None else (int(dist.get_rank()), int(dist.get_world_size()))


def get_rank() -> int:
    """Rank of this process in the default process group, 0 if there is none; see :func:`get_dist_info`."""
    dist = _initialized()
    return 0 if dist is None else int(dist.get_rank())


def _initialized() -> Any:
    """The module torch.distributed if it has a process group, else None."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return dist
