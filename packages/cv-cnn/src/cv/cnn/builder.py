"""Models from configs."""

from __future__ import annotations

from typing import Any

from torch import nn

from cv.cnn.module import Sequential
from cv.utils import Registry, build_from_cfg

__all__ = ["MODELS", "build_model_from_cfg"]


def build_model_from_cfg(
    cfg: dict[str, Any] | list[dict[str, Any]],
    registry: Registry,
    default_args: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a model from a config, or a sequence of models from a list of configs.

    Args:
        cfg: Config dict with ``type``, or a list of them.
        registry: Where to look the types up.
        default_args: Arguments used where a config has none of that name.

    Returns:
        The module; for a list a :class:`Sequential` of the modules.

    Raises:
        TypeError: A config is not a dict, or an argument does not fit.
        KeyError: Missing or unknown type.
    """
    if isinstance(cfg, list):
        return Sequential(*(build_from_cfg(one, registry, default_args) for one in cfg))
    model: nn.Module = build_from_cfg(cfg, registry, default_args)
    return model


MODELS = Registry("model", build_func=build_model_from_cfg)
