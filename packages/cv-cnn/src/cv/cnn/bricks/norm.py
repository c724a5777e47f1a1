"""Normalisation layers by name, and how to recognise one."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from cv.cnn.bricks._build import accepts_argument, check_postfix, make_layer, resolve_layer, snake_case
from cv.cnn.bricks.registry import NORM_LAYERS
from cv.utils.errors import UsageError

__all__ = ["build_norm_layer", "infer_abbr", "is_norm"]

_LAYERS: dict[str, type[nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "BN1d": nn.BatchNorm1d,
    "BN2d": nn.BatchNorm2d,
    "BN3d": nn.BatchNorm3d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": nn.GroupNorm,
    "LN": nn.LayerNorm,
    "IN": nn.InstanceNorm2d,
    "IN1d": nn.InstanceNorm1d,
    "IN2d": nn.InstanceNorm2d,
    "IN3d": nn.InstanceNorm3d,
}
for _name, _cls in _LAYERS.items():
    NORM_LAYERS.register_module(name=_name, module=_cls)


def build_norm_layer(
    cfg: dict[str, Any], num_features: int, postfix: int | str = ""
) -> tuple[str, nn.Module]:
    """Build a normalisation layer and a name for it.

    Args:
        cfg: Config dict: ``type`` (``BN``, ``BN1d``, ``BN2d``, ``BN3d``, ``SyncBN``, ``GN``, ``LN``,
            ``IN``, ``IN1d``, ``IN2d``, ``IN3d``; or a class);
            ``requires_grad``, False to freeze the layer's parameters (default True); ``eps`` (default
            1e-5); further arguments of the layer (``GN`` needs ``num_groups``). It is not changed.
        num_features: Number of channels.
        postfix: Appended to the name.

    Returns:
        The name, an abbreviation (``bn``, ``gn``, ``ln``, ``in``, or the class name in snake case) and the
        postfix, as in ``bn1``; and the layer.

    Raises:
        TypeError: ``cfg`` is not a dict.
        KeyError: Missing or unknown type.
        UsageError: Bad postfix, or group norm without ``num_groups``.
    """
    cls, arguments = resolve_layer(cfg, NORM_LAYERS)
    check_postfix(postfix)
    name = infer_abbr(cls) + str(postfix)

    requires_grad = arguments.pop("requires_grad", True)
    if "eps" not in arguments and accepts_argument(cls, "eps"):
        arguments["eps"] = 1e-5
    if issubclass(cls, nn.GroupNorm):
        if "num_groups" not in arguments:
            raise UsageError(f'a norm config of type {cfg["type"]!r} must contain "num_groups", got {cfg}')
        layer = make_layer(cls, (), {"num_channels": num_features}, arguments)
    else:
        layer = make_layer(cls, (num_features,), {}, arguments)
    for parameter in layer.parameters():
        parameter.requires_grad = requires_grad
    return name, layer


def infer_abbr(class_type: type) -> str:
    """The abbreviation of a norm class, the first part of a layer's name.

    A class can name its own in ``_abbr_``. Batch, instance, group and layer norms give ``bn``, ``in``,
    ``gn`` and ``ln``; any other class its own name in snake case.

    Raises:
        TypeError: ``class_type`` is not a class.
    """
    if not isinstance(class_type, type):
        raise TypeError(f"class_type must be a type, but got {type(class_type)}")
    own = getattr(class_type, "_abbr_", None)
    if own is not None:
        return str(own)
    known = {_InstanceNorm: "in", _BatchNorm: "bn", nn.GroupNorm: "gn", nn.LayerNorm: "ln"}
    for base, abbreviation in known.items():
        if issubclass(class_type, base):
            return abbreviation
    # Norms that do not inherit the torch class ("FancyBatchNorm") are stored under the usual name too.
    lower = class_type.__name__.lower()
    for kind, abbreviation in {"batch": "bn", "group": "gn", "layer": "ln", "instance": "in"}.items():
        if kind in lower:
            return abbreviation
    return snake_case(class_type.__name__)


def is_norm(layer: nn.Module, exclude: type | tuple[type, ...] | None = None) -> bool:
    """Whether a layer is a normalisation layer: batch, instance, group or layer norm.

    Args:
        layer: The layer.
        exclude: Class or classes whose instances do not count.

    Raises:
        TypeError: ``exclude`` is neither a class nor a tuple of classes.
    """
    if exclude is not None:
        classes = exclude if isinstance(exclude, tuple) else (exclude,)
        if not all(isinstance(cls, type) for cls in classes):
            raise TypeError(
                f"exclude must be None, a type or a tuple of types, but got {exclude!r} of {type(exclude)}"
            )
        if isinstance(layer, classes):
            return False
    return isinstance(layer, (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm))
