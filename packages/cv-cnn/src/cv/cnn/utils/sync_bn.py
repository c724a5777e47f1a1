"""Turn synchronised batch norms into plain ones, to run a model in one process or on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["revert_sync_batchnorm"]


class _BatchNormXd(_BatchNorm):
    """A batch norm for inputs with any number of axes, as a synchronised one is."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  (the name of the base class)
        return


def revert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every synchronised batch norm by a plain one with the same parameters and statistics.

    Synchronised norms are recognised by the class name ``SyncBatchNorm``, so those of torch and of other
    packages count alike.

    Args:
        module: The module; its children are replaced in place.

    Returns:
        The module, or its replacement if it is a synchronised norm itself.
    """
    if type(module).__name__ == "SyncBatchNorm":
        return _plain(module)
    for name, child in module.named_children():
        converted = revert_sync_batchnorm(child)
        if converted is not child:
            module._modules[name] = converted
    return module


def _plain(norm: Any) -> nn.Module:
    plain = _BatchNormXd(
        norm.num_features, norm.eps, norm.momentum, norm.affine, getattr(norm, "track_running_stats", True)
    )
    if norm.affine:
        plain.weight, plain.bias = norm.weight, norm.bias
    plain.running_mean = norm.running_mean
    plain.running_var = norm.running_var
    plain.num_batches_tracked = norm.num_batches_tracked
    plain.training = norm.training
    return plain
