"""The names of cv.utils that come from torch: one table, read when a name is first used.

``import cv.utils`` therefore needs no torch, and where torch is missing the error says so.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name in cv.utils: (module, name there).
TABLE: dict[str, tuple[str, str]] = {
    "TORCH_VERSION": ("torch", "__version__"),
    "DataLoader": ("torch.utils.data", "DataLoader"),
    "PoolDataLoader": ("torch.utils.data", "DataLoader"),
    "SyncBatchNorm": ("torch.nn", "SyncBatchNorm"),
    "_BatchNorm": ("torch.nn.modules.batchnorm", "_BatchNorm"),
    "_InstanceNorm": ("torch.nn.modules.instancenorm", "_InstanceNorm"),
    "_ConvNd": ("torch.nn.modules.conv", "_ConvNd"),
    "_ConvTransposeMixin": ("torch.nn.modules.conv", "_ConvTransposeNd"),  # its name since torch 1.5
    "_MaxPoolNd": ("torch.nn.modules.pooling", "_MaxPoolNd"),
    "_AvgPoolNd": ("torch.nn.modules.pooling", "_AvgPoolNd"),
    "_AdaptiveAvgPoolNd": ("torch.nn.modules.pooling", "_AdaptiveAvgPoolNd"),
    "_AdaptiveMaxPoolNd": ("torch.nn.modules.pooling", "_AdaptiveMaxPoolNd"),
    "BuildExtension": ("torch.utils.cpp_extension", "BuildExtension"),
    "CppExtension": ("torch.utils.cpp_extension", "CppExtension"),
    "CUDAExtension": ("torch.utils.cpp_extension", "CUDAExtension"),
}


def import_torch(user: str, module: str = "torch") -> Any:
    """Import torch or a module of it.

    Args:
        user: The public name that needs it, for the error.
        module: The module.

    Raises:
        ImportError: torch is not installed.
    """
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":  # torch is there, something it needs is not
            raise
        raise ImportError(f"{user} needs PyTorch, which is not installed: pip install torch") from error
    return importlib.import_module(module)


def lookup(package: str, name: str) -> Any:
    """The value of a name in the table, for the module ``__getattr__`` of ``package``.

    Raises:
        AttributeError: The table has no such name.
        ImportError: torch is not installed.
    """
    if name not in TABLE:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, attribute = TABLE[name]
    return getattr(import_torch(f"{package}.{name}", module), attribute)
