"""Initialisers that configs name, and ``initialize``, which applies such configs to a module.

A config picks the layers by class name (``layer``), children by attribute name (``override``), or both:

- ``layer`` only: the layers whose class, or one of its base classes, has that name; elsewhere nothing.
- ``override`` only: only the named child, all of its layers.
- both: first the layers by class, then the named child.
- neither: nothing is initialised (Pretrained aside, which loads the whole module).
"""

from __future__ import annotations

import copy
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from cv.cnn.init.functions import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from cv.cnn.init.pretrained import PretrainedInit, is_pretrained_cfg
from cv.cnn.init.record import update_init_info
from cv.utils import Registry, build_from_cfg

__all__ = [
    "INITIALIZERS",
    "BaseInit",
    "Caffe2XavierInit",
    "ConstantInit",
    "KaimingInit",
    "LayerInit",
    "NormalInit",
    "PretrainedInit",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "initialize",
]

INITIALIZERS = Registry("initializer")


def initialize(module: nn.Module, init_cfg: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    """Initialise a module by one config, or by several in their order.

    Args:
        module: The module; it is changed in place.
        init_cfg: Config dict, or a list of them. Keys: ``type``, the initialiser (Constant, Xavier, Normal,
            TruncNormal, Uniform, Kaiming, Caffe2Xavier, Pretrained; with ``checkpoint`` given it defaults
            to Pretrained); ``layer``, a class name or list of class names; ``override``, a dict or list of
            dicts with the ``name`` of a child and, if it differs from the outer config, its own ``type``
            and arguments; everything else is an argument of the initialiser. The dicts are not changed.

    Raises:
        TypeError: A config or an override is not a dict, or an argument of the wrong type.
        KeyError: Unknown or missing ``type``.
        ValueError: An override without ``name``, or with arguments but without ``type``.
        RuntimeError: An override names a child that the module does not have.

    Example:
        >>> module = nn.Sequential(nn.Conv1d(3, 1, 3), nn.Linear(1, 2))
        >>> initialize(module, [
        ...     dict(type="Constant", layer="Conv1d", val=1),
        ...     dict(type="Constant", layer="Linear", val=2, bias=1)])
    """
    if isinstance(init_cfg, dict):
        init_cfg = [init_cfg]
    elif not isinstance(init_cfg, (list, tuple)):
        raise TypeError(f"init_cfg must be a dict or a list of dict, but got {type(init_cfg)}")
    for cfg in init_cfg:
        if not isinstance(cfg, dict):
            raise TypeError(f"init_cfg must be a dict or a list of dict, but got a list with {type(cfg)}")
        own = copy.deepcopy(cfg)
        override = own.pop("override", None)
        _initialize(module, own)
        if override is not None:
            own.pop("layer", None)
            _initialize_override(module, override, own)


class BaseInit:
    """The arguments that initialisers of layers share: how the layers are picked, and the bias.

    Args:
        bias: Value of the bias.
        bias_prob: If given, the bias is :func:`bias_init_with_prob` of it.
        layer: Class name, or list of class names, of the layers to initialise; names of base classes count.

    Raises:
        TypeError: An argument of the wrong type.
    """

    def __init__(
        self,
        *,
        bias: float = 0,
        bias_prob: float | None = None,
        layer: str | Sequence[str] | None = None,
    ) -> None:
        self.wholemodule = False
        if not isinstance(bias, (int, float)):
            raise TypeError(f"bias must be a number, but got a {type(bias)}")
        if bias_prob is not None and not isinstance(bias_prob, (int, float)):
            raise TypeError(f"bias_prob type must be float, but got {type(bias_prob)}")
        names = [] if layer is None else [layer] if isinstance(layer, str) else layer
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"layer must be a str or a list of str, but got {layer!r} of {type(layer)}")
        self.layer = list(names)
        self.bias = bias if bias_prob is None else bias_init_with_prob(bias_prob)

    def _get_init_info(self) -> str:
        """What the log says about parameters that this initialiser has set."""
        hidden = {"wholemodule", "layer"}
        arguments = ", ".join(f"{name}={value}" for name, value in vars(self).items() if name not in hidden)
        return f"{type(self).__name__}: {arguments}"


class LayerInit(BaseInit, ABC):
    """An initialiser that treats the picked layers one by one. Subclasses define :meth:`init_layer`.

    Args:
        **kwargs: See :class:`BaseInit`.
    """

    def __call__(self, module: nn.Module) -> None:
        """Initialise the picked layers of a module in place."""
        wanted = set(self.layer)
        for layer in module.modules():
            if self.wholemodule or not wanted.isdisjoint(cls.__name__ for cls in type(layer).__mro__):
                self.init_layer(layer)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())

    @abstractmethod
    def init_layer(self, layer: nn.Module) -> None:
        """Initialise one layer in place."""


@INITIALIZERS.register_module(name=["Constant", "ConstantInit"])
class ConstantInit(LayerInit):
    """Initialise with constants.

    Args:
        val: Value of the weights.
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(self, val: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val = val

    def init_layer(self, layer: nn.Module) -> None:
        constant_init(layer, self.val, self.bias)


@INITIALIZERS.register_module(name=["Xavier", "XavierInit"])
class XavierInit(LayerInit):
    """Initialise as Glorot & Bengio, Understanding the difficulty of training deep networks (2010).

    Args:
        gain: Factor of the standard deviation.
        distribution: ``"normal"`` or ``"uniform"``.
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(
        self, gain: float = 1, distribution: Literal["normal", "uniform"] = "normal", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.gain = gain
        self.distribution = distribution

    def init_layer(self, layer: nn.Module) -> None:
        xavier_init(layer, self.gain, self.bias, self.distribution)


@INITIALIZERS.register_module(name=["Normal", "NormalInit"])
class NormalInit(LayerInit):
    """Initialise from the normal distribution N(mean, std²).

    Args:
        mean: Mean.
        std: Standard deviation.
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(self, mean: float = 0, std: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std

    def init_layer(self, layer: nn.Module) -> None:
        normal_init(layer, self.mean, self.std, self.bias)


@INITIALIZERS.register_module(name=["TruncNormal", "TruncNormalInit"])
class TruncNormalInit(LayerInit):
    """Initialise from the normal distribution N(mean, std²) restricted to ``[a, b]``.

    Args:
        mean: Mean of the distribution before truncation.
        std: Standard deviation of the distribution before truncation.
        a: Lower bound (absolute).
        b: Upper bound (absolute).
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(self, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std
        self.a = a
        self.b = b

    def init_layer(self, layer: nn.Module) -> None:
        trunc_normal_init(layer, self.mean, self.std, self.a, self.b, self.bias)


@INITIALIZERS.register_module(name=["Uniform", "UniformInit"])
class UniformInit(LayerInit):
    """Initialise from the uniform distribution U(a, b).

    Args:
        a: Lower bound.
        b: Upper bound.
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(self, a: float = 0, b: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a = a
        self.b = b

    def init_layer(self, layer: nn.Module) -> None:
        uniform_init(layer, self.a, self.b, self.bias)


@INITIALIZERS.register_module(name=["Kaiming", "KaimingInit"])
class KaimingInit(LayerInit):
    """Initialise as He et al., Delving deep into rectifiers (2015).

    Args:
        a: Negative slope of the rectifier after the layer (only for ``nonlinearity="leaky_relu"``).
        mode: ``"fan_in"`` preserves the variance in the forward pass, ``"fan_out"`` in the backward pass.
        nonlinearity: Name in ``torch.nn.functional``.
        distribution: ``"normal"`` or ``"uniform"``.
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(
        self,
        a: float = 0,
        mode: Literal["fan_in", "fan_out"] = "fan_out",
        nonlinearity: str = "relu",
        distribution: Literal["normal", "uniform"] = "normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.a = a
        self.mode = mode
        self.nonlinearity = nonlinearity
        self.distribution = distribution

    def init_layer(self, layer: nn.Module) -> None:
        kaiming_init(layer, self.a, self.mode, self.nonlinearity, self.bias, self.distribution)


@INITIALIZERS.register_module(name=["Caffe2Xavier", "Caffe2XavierInit"])
class Caffe2XavierInit(LayerInit):
    """Initialise as ``XavierFill`` of Caffe2: U(-s, s) with ``s = sqrt(3 / fan_in)``.

    Args:
        **kwargs: ``bias`` (default 0), ``bias_prob``, ``layer``: see :class:`BaseInit`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def init_layer(self, layer: nn.Module) -> None:
        caffe2_xavier_init(layer, self.bias)


INITIALIZERS.register_module(name=["Pretrained", "PretrainedInit"], module=PretrainedInit)


def _initialize(module: nn.Module, cfg: dict[str, Any], wholemodule: bool = False) -> None:
    if is_pretrained_cfg(cfg):
        cfg = {"type": "Pretrained", **cfg}
    initializer = build_from_cfg(cfg, INITIALIZERS)
    # Initialisers registered elsewhere need not know the flag; those here default to False.
    initializer.wholemodule = wholemodule
    initializer(module)


def _initialize_override(module: nn.Module, override: Any, outer: Mapping[str, Any]) -> None:
    if not isinstance(override, (dict, list)):
        raise TypeError(f"override must be a dict or a list of dict, but got {type(override)}")
    for one in [override] if isinstance(override, dict) else override:
        if not isinstance(one, dict):
            raise TypeError(f"override must be a dict or a list of dict, but got a list with {type(one)}")
        own = copy.deepcopy(one)
        name = own.pop("name", None)
        if name is None:
            raise ValueError(f'`override` must contain the key "name", but got {one}')
        if not own:
            own.update(outer)
        elif "type" not in own and not is_pretrained_cfg(own):
            raise ValueError(f'`override` must contain the key "type" beside its arguments, but got {one}')
        if not hasattr(module, name):
            near = difflib.get_close_matches(name, dict(module.named_children()))
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise RuntimeError(
                f"{type(module).__name__} did not have attribute {name}, but override is {one}{hint}"
            )
        _initialize(getattr(module, name), own, wholemodule=True)
