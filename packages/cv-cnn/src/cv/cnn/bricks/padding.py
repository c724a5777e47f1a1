"""Padding layers by name."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import padding as torch_padding

from cv.cnn.bricks._build import make_layer, resolve_layer
from cv.cnn.bricks.registry import PADDING_LAYERS

__all__ = ["build_padding_layer"]

for _name in torch_padding.__all__:
    PADDING_LAYERS.register_module(module=getattr(torch_padding, _name))
for _name, _cls in {
    "zero": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
}.items():
    PADDING_LAYERS.register_module(name=_name, module=_cls)


def build_padding_layer(cfg: dict[str, Any], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a padding layer.

    Args:
        cfg: Config dict: ``type`` (``zero``, ``reflect``, ``replicate``, ``circular``, which pad images, and
            the padding layers of torch by class name, or a class) and further arguments (``value`` of
            ``ConstantPad2d`` and its kin). It is not changed.
        *args: Positional arguments of the layer: the padding, an int or ``(left, right, top, bottom)``.
        **kwargs: Keyword arguments of the layer.

    Returns:
        The layer.

    Raises:
        TypeError: ``cfg`` is not a dict.
        KeyError: Missing or unknown type.
    """
    cls, arguments = resolve_layer(cfg, PADDING_LAYERS)
    return make_layer(cls, args, kwargs, arguments)
