"""What of a backbone stays as it is while the rest trains."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["freeze", "hold_batch_norms"]


def freeze(modules: Iterable[nn.Module]) -> None:
    """Switch modules to evaluation mode, and their parameters off."""
    for module in modules:
        module.eval()
        module.requires_grad_(False)


def hold_batch_norms(network: nn.Module, freeze_parameters: bool) -> None:
    """Keep the running statistics of all 2d batch norms below a network, and on request their parameters."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            if freeze_parameters:
                module.requires_grad_(False)
