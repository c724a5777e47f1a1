"""Convolution, normalisation and activation in one block."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from cv.cnn.bricks._build import accepts_argument, resolve_layer
from cv.cnn.bricks.activation import build_activation_layer
from cv.cnn.bricks.conv import build_conv_layer
from cv.cnn.bricks.norm import build_norm_layer
from cv.cnn.bricks.padding import build_padding_layer
from cv.cnn.bricks.registry import ACTIVATION_LAYERS, CONV_LAYERS, PLUGIN_LAYERS
from cv.cnn.init.functions import constant_init, kaiming_init
from cv.utils import to_ntuple
from cv.utils.errors import UsageError

__all__ = ["ConvModule"]


# The attributes that say what forward runs; each may be set later.
_DECIDING = frozenset({"order", "norm_name", "with_norm", "with_activation", "with_explicit_padding"})


@PLUGIN_LAYERS.register_module()
class ConvModule(nn.Module):
    """A convolution with an optional normalisation and activation, in any order.

    The parts are built by :func:`build_conv_layer`, :func:`build_norm_layer` and
    :func:`build_activation_layer`, and are the attributes ``conv``, ``norm`` (under the name ``norm_name``;
    None without one), ``activate`` and ``padding_layer`` (only where there is one).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride of the convolution.
        padding: Padding at both sides of each axis.
        dilation: Spacing between kernel elements.
        groups: Number of groups.
        bias: Whether the convolution has a bias; ``"auto"`` means only without a norm, which has its own.
        conv_cfg: Config of the convolution. None: ``Conv2d``.
        norm_cfg: Config of the norm. None: no norm.
        act_cfg: Config of the activation. None: no activation.
        inplace: Whether the activation overwrites its input. (Where the activation comes first it never
            does: that would change the tensor of the caller. ``act_cfg`` can say otherwise.)
        with_spectral_norm: Whether to apply spectral norm to the convolution's weight.
        padding_mode: ``"zeros"`` and, if it knows it, ``"circular"`` are done by the convolution,
            ``"reflect"``, ``"replicate"`` and other padding layers by a layer in front of it.
        order: The order of ``"conv"``, ``"norm"`` and ``"act"``.

    Raises:
        UsageError: A config is not a dict, ``bias`` another str than ``"auto"``, or ``order`` does not hold
            each of the three once.
        KeyError: Unknown type in a config, or unknown padding mode.
    """

    _abbr_ = "conv_block"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool | Literal["auto"] = "auto",
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = {"type": "ReLU"},  # noqa: B006  (documented; never changed)
        inplace: bool = True,
        with_spectral_norm: bool = False,
        padding_mode: str = "zeros",
        order: Sequence[str] = ("conv", "norm", "act"),
    ) -> None:
        super().__init__()
        for name, cfg in {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}.items():
            if cfg is not None and not isinstance(cfg, dict):
                raise UsageError(f"{name} must be a dict or None, got {cfg!r} of {type(cfg)}")
        if not isinstance(order, tuple) or len(order) != 3 or set(order) != {"conv", "norm", "act"}:
            raise UsageError(f"order must be a tuple of 'conv', 'norm' and 'act', each once, got {order!r}")
        if isinstance(bias, str) and bias != "auto":
            raise UsageError(f"bias must be a bool or 'auto', got {bias!r}")
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.act_cfg = act_cfg
        self.inplace = inplace
        self.with_spectral_norm = with_spectral_norm
        own_padding = _pads_itself(conv_cfg, padding_mode)
        self.with_explicit_padding = not own_padding
        self.order = order
        self.with_norm = norm_cfg is not None
        self.with_activation = act_cfg is not None
        self.with_bias = not self.with_norm if bias == "auto" else bool(bias)

        conv_padding: Any = padding
        if self.with_explicit_padding:
            n = _spatial_dims(conv_cfg)
            self.padding_layer = _padding_layer(padding_mode, padding, kernel_size, dilation, n)
            conv_padding = 0
        # Only where it is needed: a convolution from elsewhere may not know the argument.
        mode = {"padding_mode": padding_mode} if own_padding and padding_mode != "zeros" else {}
        conv: Any = build_conv_layer(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=conv_padding,
            dilation=dilation,
            groups=groups,
            bias=self.with_bias,
            **mode,
        )
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups"):
            setattr(self, name, getattr(conv, name))
        self.padding = padding  # as it was given: 1 where conv.padding is (1, 1)
        self.transposed = getattr(conv, "transposed", False)
        self.output_padding = getattr(conv, "output_padding", 0)
        self.conv = nn.utils.spectral_norm(conv) if with_spectral_norm else conv

        self.norm_name: str | None = None
        if norm_cfg is not None:
            after_conv = order.index("norm") > order.index("conv")
            self.norm_name, norm = build_norm_layer(norm_cfg, out_channels if after_conv else in_channels)
            self.add_module(self.norm_name, norm)
            if self.with_bias and after_conv and isinstance(norm, (_BatchNorm, _InstanceNorm)):
                warnings.warn("Unnecessary conv bias before batch/instance norm", stacklevel=2)

        if act_cfg is not None:
            self.activate = build_activation_layer(self._activation_cfg(act_cfg))
        self._steps = self._names_in_order()
        self.init_weights()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _DECIDING and "_steps" in self.__dict__:
            self._steps = self._names_in_order()

    @property
    def norm(self) -> nn.Module | None:
        """The norm layer, or None."""
        return None if self.norm_name is None else self._modules[self.norm_name]

    def init_weights(self) -> None:
        """Initialise the convolution for the activation behind it (Kaiming, normal) and the norm to 1 and 0.

        A convolution with its own ``init_weights`` has initialised itself and is left alone.
        """
        if not hasattr(self.conv, "init_weights"):
            if self.act_cfg is not None and self.act_cfg["type"] == "LeakyReLU":
                slope = self.act_cfg.get("negative_slope", 0.01)
                kaiming_init(self.conv, a=slope, nonlinearity="leaky_relu")
            else:
                kaiming_init(self.conv, a=0, nonlinearity="relu")
        if self.norm is not None:
            constant_init(self.norm, 1, bias=0)

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Run the block.

        Args:
            x: Input ``(N, in_channels, ...)``.
            activate: Whether to run the activation, if there is one.
            norm: Whether to run the norm, if there is one.

        Returns:
            Output ``(N, out_channels, ...)``.
        """
        # The table of children, because looking each up as an attribute would cost a call more; and one
        # tuple of names instead of the attributes it follows from, each of which torch.compile would check
        # at every call.
        children: dict[str, Any] = self._modules
        for name in self._steps:
            if (activate or name != "activate") and (norm or name != self.norm_name):
                x = children[name](x)
        return x

    def _names_in_order(self) -> tuple[str, ...]:
        """The names of the children that forward runs."""
        padding = ("padding_layer",) if self.with_explicit_padding else ()
        names: dict[str, tuple[Any, ...]] = {
            "conv": (*padding, "conv"),
            "norm": (self.norm_name,) if self.with_norm else (),
            "act": ("activate",) if self.with_activation else (),
        }
        return tuple(name for part in self.order for name in names[part])

    def _activation_cfg(self, act_cfg: dict[str, Any]) -> dict[str, Any]:
        cfg = dict(act_cfg)
        kind = cfg.get("type")
        cls = ACTIVATION_LAYERS.get(kind) if isinstance(kind, str) else kind
        if "inplace" not in cfg and isinstance(cls, type) and accepts_argument(cls, "inplace"):
            present = [part for part in self.order if part != "norm" or self.with_norm]
            cfg["inplace"] = self.inplace and present[0] != "act"
        return cfg


def _pads_itself(conv_cfg: dict[str, Any] | None, padding_mode: str) -> bool:
    """Whether the convolution does this padding; for any other there is a layer in front."""
    if padding_mode == "circular":
        return accepts_argument(resolve_layer(conv_cfg, CONV_LAYERS, default="Conv2d")[0], "padding_mode")
    return padding_mode == "zeros"


def _spatial_dims(conv_cfg: dict[str, Any] | None) -> int:
    """1, 2 or 3 by the name of the convolution, which all three kinds carry in theirs."""
    name = str((conv_cfg or {}).get("type", "Conv2d")).lower()
    return 1 if "1d" in name else 3 if "3d" in name else 2


def _padding_layer(
    mode: str,
    padding: int | str | tuple[int, ...],
    kernel_size: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    n: int,
) -> nn.Module:
    """The layer that pads ``n`` axes as the argument ``padding`` of a convolution says."""
    per_axis = to_ntuple(n)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(per_axis(dilation), per_axis(kernel_size), strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in per_axis(0 if padding == "valid" else padding)]
    # Padding layers take the last axis first.
    amounts: Any = tuple(amount for side in reversed(sides) for amount in side)
    if n != 2:
        names = {
            "circular": "CircularPad",
            "reflect": "ReflectionPad",
            "replicate": "ReplicationPad",
            "zero": "ZeroPad",
        }
        mode = f"{names[mode]}{n}d" if mode in names else mode
    return build_padding_layer({"type": mode}, amounts)
