"""Batches and model wrappers for one device, several, or the CPU."""

from cv.parallel.collate import collate
from cv.parallel.data_container import DataContainer
from cv.parallel.data_parallel import MMDataParallel
from cv.parallel.distributed import MMDistributedDataParallel
from cv.parallel.fully_sharded import MMFullyShardedDataParallel
from cv.parallel.registry import MODULE_WRAPPERS, is_module_wrapper
from cv.parallel.scatter_gather import scatter, scatter_kwargs

__all__ = [
    "DataContainer",
    "collate",
    "scatter",
    "scatter_kwargs",
    "MMDataParallel",
    "MMDistributedDataParallel",
    "MMFullyShardedDataParallel",
    "MODULE_WRAPPERS",
    "is_module_wrapper",
]
