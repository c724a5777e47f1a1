"""Functions that initialise the ``weight`` and ``bias`` of one layer in place.

A layer without a ``weight`` (or with ``weight=None``, as a norm without affine parameters) is left alone, and
likewise for ``bias``; so they may be given any module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from cv.utils.errors import UsageError

__all__ = [
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "kaiming_init",
    "normal_init",
    "trunc_normal_",
    "trunc_normal_init",
    "uniform_init",
    "xavier_init",
]

Distribution = Literal["uniform", "normal"]


def constant_init(module: nn.Module, val: float, bias: float = 0) -> None:
    """Fill the weight with ``val`` and the bias with ``bias``."""
    _fill(module, lambda weight: nn.init.constant_(weight, val), bias)


def xavier_init(
    module: nn.Module, gain: float = 1, bias: float = 0, distribution: Distribution = "normal"
) -> None:
    """Initialise as Glorot & Bengio (2010): variance ``gain² · 2 / (fan_in + fan_out)``.

    Args:
        module: The layer.
        gain: Factor of the standard deviation.
        bias: Value of the bias.
        distribution: ``"normal"`` or ``"uniform"``.

    Raises:
        UsageError: Unknown distribution.
    """
    draw = {"normal": nn.init.xavier_normal_, "uniform": nn.init.xavier_uniform_}[_checked(distribution)]
    _fill(module, lambda weight: draw(weight, gain=gain), bias)


def normal_init(module: nn.Module, mean: float = 0, std: float = 1, bias: float = 0) -> None:
    """Draw the weight from the normal distribution N(mean, std²)."""
    _fill(module, lambda weight: nn.init.normal_(weight, mean, std), bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, bias: float = 0
) -> None:
    """Draw the weight from N(mean, std²) restricted to ``[a, b]`` (absolute bounds, not multiples of std)."""
    _fill(module, lambda weight: trunc_normal_(weight, mean, std, a, b), bias)


def uniform_init(module: nn.Module, a: float = 0, b: float = 1, bias: float = 0) -> None:
    """Draw the weight from the uniform distribution U(a, b)."""
    _fill(module, lambda weight: nn.init.uniform_(weight, a, b), bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_out",
    nonlinearity: str = "relu",
    bias: float = 0,
    distribution: Distribution = "normal",
) -> None:
    """Initialise as He et al. (2015): variance ``gain² / fan``.

    Args:
        module: The layer.
        a: Negative slope of the rectifier after the layer (only for ``nonlinearity="leaky_relu"``).
        mode: ``"fan_in"`` keeps the variance of activations in the forward pass, ``"fan_out"`` that of
            gradients in the backward pass.
        nonlinearity: Name of the non-linearity as in ``torch.nn.functional``; it sets the gain.
        bias: Value of the bias.
        distribution: ``"normal"`` or ``"uniform"``.

    Raises:
        UsageError: Unknown distribution.
    """
    draw = {"normal": nn.init.kaiming_normal_, "uniform": nn.init.kaiming_uniform_}[_checked(distribution)]
    # torch types the name of the non-linearity as a Literal and checks it itself.
    _fill(module, lambda weight: draw(weight, a=a, mode=mode, nonlinearity=nonlinearity), bias)  # type: ignore[arg-type]


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Initialise as ``XavierFill`` of Caffe2: U(-s, s) with ``s = sqrt(3 / fan_in)``."""
    # A leaky ReLU of slope 1 is the identity: gain 1.
    kaiming_init(module, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=bias, distribution="uniform")


def bias_init_with_prob(prior_prob: float) -> float:
    """The bias for which a sigmoid gives ``prior_prob``: ``-log((1 - p) / p)``.

    It keeps the loss of a rare class small at the start (Lin et al., Focal Loss, 2017, section 4.1).

    Raises:
        ValueError: ``prior_prob`` is not between 0 and 1.
    """
    if not 0 < prior_prob < 1:
        raise ValueError(f"prior_prob must be between 0 and 1, got {prior_prob}")
    return -math.log((1 - prior_prob) / prior_prob)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Fill a tensor in place from N(mean, std²) restricted to ``[a, b]``.

    The bounds are absolute values, not multiples of ``std``.

    Returns:
        The tensor.

    Raises:
        ValueError: ``a`` is not below ``b``.
    """
    if not a < b:
        raise ValueError(f"a must be less than b, got a={a}, b={b}")
    with torch.no_grad():
        return nn.init.trunc_normal_(tensor, mean, std, a, b)


def _fill(module: nn.Module, fill_weight: Callable[[Tensor], Tensor], bias: float) -> None:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        fill_weight(weight)
    own_bias = getattr(module, "bias", None)
    if isinstance(own_bias, Tensor):  # not a flag that happens to be called `bias`
        nn.init.constant_(own_bias, bias)


def _checked(distribution: str) -> str:
    if distribution not in ("uniform", "normal"):
        raise UsageError(f"distribution must be 'uniform' or 'normal', got {distribution!r}")
    return distribution
