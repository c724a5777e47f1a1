"""What a process knows about its place in a distributed job, without importing torch."""

from __future__ import annotations

import sys

__all__ = ["get_dist_info"]


def get_dist_info() -> tuple[int, int]:
    """Rank and world size of this process.

    Returns:
        ``(rank, world_size)`` of the default process group of torch.distributed, or ``(0, 1)`` if there is
        none. Where nobody has imported torch there cannot be one, so torch is not imported to find out.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return int(dist.get_rank()), int(dist.get_world_size())
