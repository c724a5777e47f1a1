"""Convolution layers by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from cv.cnn.bricks._build import make_layer, resolve_layer
from cv.cnn.bricks.registry import CONV_LAYERS

__all__ = ["build_conv_layer"]

# "Conv", "Conv3d", "deconv" and "deconv3d" are the wrapped layers of cv.cnn.bricks.wrappers.
for _cls in (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
):
    CONV_LAYERS.register_module(module=_cls)


def build_conv_layer(cfg: dict[str, Any] | None, *args: Any, **kwargs: Any) -> nn.Module:
    """Build a convolution layer.

    Args:
        cfg: Config dict: ``type`` (``Conv``, ``Conv1d``, ``Conv2d``, ``Conv3d``, ``ConvWS``, ``ConvAWS``,
            ``Conv2dAdaptivePadding``, ``deconv``, ``deconv3d``, ``ConvTranspose1d`` …, and with cv-ops
            ``DCN``, ``DCNv2``) and further arguments of the layer. None means ``Conv2d``. It is not changed.
        *args: Positional arguments of the layer.
        **kwargs: Keyword arguments of the layer.

    Returns:
        The layer.

    Raises:
        TypeError: ``cfg`` is not a dict, or an argument is given both there and in ``kwargs``.
        KeyError: Missing or unknown type.
    """
    layer, arguments = resolve_layer(cfg, CONV_LAYERS, default="Conv2d")
    return make_layer(layer, args, kwargs, arguments)
