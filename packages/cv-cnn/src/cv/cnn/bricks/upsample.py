"""Upsampling layers by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks._build import make_layer, resolve_layer
from cv.cnn.bricks.registry import UPSAMPLE_LAYERS
from cv.cnn.init.functions import xavier_init

__all__ = ["PixelShufflePack", "build_upsample_layer"]

# The name of each is the mode of the interpolation.
for _mode in ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"):
    UPSAMPLE_LAYERS.register_module(name=_mode, module=nn.Upsample)


@UPSAMPLE_LAYERS.register_module(name="pixel_shuffle")
class PixelShufflePack(nn.Module):
    """Upsample by a convolution that makes ``scale²`` times the channels, then pixel shuffle.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        scale_factor: Upsampling ratio.
        upsample_kernel: Kernel size of the convolution; odd, for an output of exactly ``scale`` times the
            size.
    """

    def __init__(self, in_channels: int, out_channels: int, scale_factor: int, upsample_kernel: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.scale_factor = scale_factor
        self.upsample_kernel = upsample_kernel
        self.upsample_conv = nn.Conv2d(
            in_channels,
            out_channels * scale_factor * scale_factor,
            upsample_kernel,
            padding=(upsample_kernel - 1) // 2,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise the convolution (Xavier, uniform)."""
        xavier_init(self.upsample_conv, distribution="uniform")

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``(N, in_channels, H, W)`` to ``(N, out_channels, H·scale, W·scale)``."""
        return F.pixel_shuffle(self.upsample_conv(x), self.scale_factor)


def build_upsample_layer(cfg: dict[str, Any], *args: Any, **kwargs: Any) -> nn.Module:
    """Build an upsampling layer.

    Args:
        cfg: Config dict: ``type`` (``nearest``, ``bilinear`` and the other modes of ``nn.Upsample``,
            ``deconv``, ``deconv3d``, ``pixel_shuffle``) and further arguments, such as ``scale_factor`` (not
            for ``deconv``). It is not changed.
        *args: Positional arguments of the layer.
        **kwargs: Keyword arguments of the layer.

    Returns:
        The layer.

    Raises:
        TypeError: ``cfg`` is not a dict.
        KeyError: Missing or unknown type.
    """
    cls, arguments = resolve_layer(cfg, UPSAMPLE_LAYERS)
    if cls is nn.Upsample and isinstance(cfg["type"], str):
        arguments["mode"] = cfg["type"]
    return make_layer(cls, args, kwargs, arguments)
