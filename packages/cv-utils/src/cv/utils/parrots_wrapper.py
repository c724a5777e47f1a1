"""Base classes of layers, data loaders and build tools of torch, and questions about its build.

The name is mmcv's, whose code could run on a second framework; here everything is torch's own. The classes
(``_BatchNorm``, ``_ConvNd``, ``DataLoader``, ``CUDAExtension`` …) are looked up when first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cv.utils import _torch

if TYPE_CHECKING:
    from torch import __version__ as TORCH_VERSION
    from torch.nn import SyncBatchNorm
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.modules.conv import _ConvTransposeNd as _ConvTransposeMixin
    from torch.nn.modules.instancenorm import _InstanceNorm
    from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    from torch.utils.data import DataLoader
    from torch.utils.data import DataLoader as PoolDataLoader

__all__ = [
    "TORCH_VERSION",
    "BuildExtension",
    "CUDAExtension",
    "CppExtension",
    "DataLoader",
    "PoolDataLoader",
    "SyncBatchNorm",
    "_AdaptiveAvgPoolNd",
    "_AdaptiveMaxPoolNd",
    "_AvgPoolNd",
    "_BatchNorm",
    "_ConvNd",
    "_ConvTransposeMixin",
    "_InstanceNorm",
    "_MaxPoolNd",
    "_get_cuda_home",
    "_get_dataloader",
    "get_build_config",
    "is_rocm_pytorch",
    "load_url",
]


def __getattr__(name: str) -> Any:
    value = _torch.lookup(__name__, name)
    globals()[name] = value
    return value


def is_rocm_pytorch() -> bool:
    """Whether torch was built for AMD GPUs and the ROCm toolkit is there."""
    if _torch.import_torch("is_rocm_pytorch").version.hip is None:
        return False
    return _torch.import_torch("is_rocm_pytorch", "torch.utils.cpp_extension").ROCM_HOME is not None


def get_build_config() -> str:
    """How torch was built: compiler, libraries, flags, as ``torch.__config__.show()`` tells it."""
    return str(_torch.import_torch("get_build_config").__config__.show())


def _get_cuda_home() -> str | None:
    """The folder of the CUDA (or ROCm) toolkit that torch would build extensions with."""
    extension = _torch.import_torch("_get_cuda_home", "torch.utils.cpp_extension")
    home: str | None = extension.ROCM_HOME if is_rocm_pytorch() else extension.CUDA_HOME
    return home


def _get_dataloader() -> tuple[type, type]:
    """The classes ``(DataLoader, PoolDataLoader)``."""
    loader = _torch.import_torch("_get_dataloader", "torch.utils.data").DataLoader
    return loader, loader


def load_url(
    url: str,
    model_dir: str | os.PathLike[str] | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool | None = None,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """Download a checkpoint, unless it is in the cache, and load it.

    Args:
        url: Where it is.
        model_dir: The folder of the cache. Default: ``checkpoints`` in torch's hub folder.
        map_location: As for ``torch.load``.
        progress: Whether to show a progress bar for the download.
        check_hash: Whether the download must match the digits of its sha256 in the file name
            (``resnet50-0676ba61.pth``). Default: if the name carries at least eight such digits.
        file_name: Name in the cache. Default: that in the URL.
        weights_only: Refuse files that would run code when loaded. Only set False for files you trust.

    Returns:
        What the file holds.
    """
    import re

    hub = _torch.import_torch("load_url", "torch.hub")
    if check_hash is None:
        check_hash = re.search(r"-[0-9a-f]{8,64}\.[^/]*$", file_name or url.partition("?")[0]) is not None
    return hub.load_state_dict_from_url(
        url,
        model_dir=None if model_dir is None else os.fspath(model_dir),
        map_location=map_location,
        progress=progress,
        check_hash=check_hash,
        file_name=file_name,
        weights_only=weights_only,
    )
