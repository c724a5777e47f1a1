"""What the builders of layers share: from a config to a class and its keyword arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from cv.utils import Registry
from cv.utils.errors import UsageError
from cv.utils.registry import construct

__all__ = ["accepts_argument", "check_postfix", "make_layer", "resolve_layer", "snake_case"]


def resolve_layer(cfg: Any, registry: Registry, default: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Look up the class that a layer config names.

    Args:
        cfg: Config dict with ``type``, a name in the registry or a class. It is not changed.
        registry: Where to look.
        default: The type where ``cfg`` is None; without one, None is no config.

    Returns:
        The class, and the other items of ``cfg`` in a new dict.

    Raises:
        TypeError: ``cfg`` is not a dict, or its type neither a str nor a class.
        KeyError: There is no ``type``, or it is unknown.
    """
    if cfg is None and default is not None:
        return registry.require(default), {}
    if not isinstance(cfg, dict):
        raise TypeError(f"cfg must be a dict, but got {type(cfg)}")
    if "type" not in cfg:
        raise KeyError(f'the cfg dict must contain the key "type", but got {cfg}')
    arguments = dict(cfg)
    kind = arguments.pop("type")
    if isinstance(kind, str):
        return registry.require(kind), arguments
    if isinstance(kind, type):
        return kind, arguments
    raise TypeError(f"type must be a str or a class, but got {kind!r} of {type(kind)}")


def make_layer(
    cls: type[nn.Module], args: Sequence[Any], kwargs: Mapping[str, Any], arguments: Mapping[str, Any]
) -> nn.Module:
    """Make a layer from what the caller of a builder and the config give.

    Raises:
        TypeError: An argument is given by both, or the layer does not take it; the text names the class, the
            argument and near matches. (Other exceptions of the constructor have the class's name in front.)
    """
    both = sorted(kwargs.keys() & arguments.keys())
    if both:
        raise TypeError(
            f"{cls.__name__}: got multiple values for argument {both[0]!r}: {arguments[both[0]]!r} in the "
            f"config, {kwargs[both[0]]!r} from the caller"
        )
    layer: nn.Module = construct(cls, args, {**kwargs, **arguments})
    return layer


@lru_cache(maxsize=512)
def accepts_argument(cls: type, name: str) -> bool:
    """Whether the constructor of a class takes a keyword argument of this name."""
    parameters = inspect.signature(cls).parameters
    if name in parameters:
        return True
    # The constructor of nn.Module itself is declared with **kwargs, but takes none.
    constructor = inspect.getattr_static(cls, "__init__")
    return constructor is not nn.Module.__init__ and any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_postfix(postfix: int | str) -> None:
    """Raise UsageError unless the postfix of a layer's name is an int or a str."""
    if not isinstance(postfix, (int, str)):
        raise UsageError(f"postfix must be an int or a str, but got {postfix!r} of {type(postfix)}")


def snake_case(word: str) -> str:
    """Turn a class name into an attribute name: ``FancyBlock`` into ``fancy_block``."""
    word = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", word)
    word = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", word)
    return word.replace("-", "_").lower()
