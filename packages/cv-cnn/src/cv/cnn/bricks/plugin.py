"""Plugin layers, such as attention blocks inserted into a backbone, by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from cv.cnn.bricks._build import check_postfix, make_layer, resolve_layer, snake_case
from cv.cnn.bricks.registry import PLUGIN_LAYERS

__all__ = ["build_plugin_layer", "infer_abbr"]


def build_plugin_layer(cfg: dict[str, Any], postfix: int | str = "", **kwargs: Any) -> tuple[str, nn.Module]:
    """Build a plugin layer and a name for it.

    Args:
        cfg: Config dict: ``type`` (``ContextBlock``, ``GeneralizedAttention``, ``NonLocal2d``,
            ``ConvModule`` …) and further arguments of the layer. It is not changed.
        postfix: Appended to the name.
        **kwargs: Keyword arguments of the layer.

    Returns:
        The name (abbreviation and postfix, ``context_block1``) and the layer.

    Raises:
        TypeError: ``cfg`` is not a dict.
        KeyError: Missing or unknown type.
        UsageError: Bad postfix.
    """
    cls, arguments = resolve_layer(cfg, PLUGIN_LAYERS)
    check_postfix(postfix)
    return infer_abbr(cls) + str(postfix), make_layer(cls, (), kwargs, arguments)


def infer_abbr(class_type: type) -> str:
    """The abbreviation of a plugin class: its ``_abbr_``, or else its name in snake case.

    Raises:
        TypeError: ``class_type`` is not a class.
    """
    if not isinstance(class_type, type):
        raise TypeError(f"class_type must be a type, but got {type(class_type)}")
    own = getattr(class_type, "_abbr_", None)
    return snake_case(class_type.__name__) if own is None else str(own)
