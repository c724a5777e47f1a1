"""Depthwise separable convolution."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from cv.cnn.bricks.conv_module import ConvModule
from cv.utils.errors import UsageError

__all__ = ["DepthwiseSeparableConvModule"]

_Cfg = dict[str, Any] | None | Literal["default"]


class DepthwiseSeparableConvModule(nn.Module):
    """A depthwise :class:`ConvModule` followed by a pointwise one (Howard et al., MobileNets, 2017).

    The two are the children ``depthwise_conv`` and ``pointwise_conv``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        padding: Padding of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        norm_cfg: Config of both norms. None: no norm.
        act_cfg: Config of both activations. None: no activation.
        dw_norm_cfg: Config of the norm after the depthwise convolution; ``"default"`` means ``norm_cfg``.
        dw_act_cfg: Config of the activation after it; ``"default"`` means ``act_cfg``.
        pw_norm_cfg: Config of the norm after the pointwise convolution; ``"default"`` means ``norm_cfg``.
        pw_act_cfg: Config of the activation after it; ``"default"`` means ``act_cfg``.
        **kwargs: Further arguments of both :class:`ConvModule`.

    Raises:
        UsageError: ``groups`` is given: it follows from ``in_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = {"type": "ReLU"},  # noqa: B006  (documented; never changed)
        dw_norm_cfg: _Cfg = "default",
        dw_act_cfg: _Cfg = "default",
        pw_norm_cfg: _Cfg = "default",
        pw_act_cfg: _Cfg = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if "groups" in kwargs:
            raise UsageError("groups should not be specified: there are in_channels of them")
        self.depthwise_conv = ConvModule(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            norm_cfg=norm_cfg if dw_norm_cfg == "default" else dw_norm_cfg,
            act_cfg=act_cfg if dw_act_cfg == "default" else dw_act_cfg,
            **kwargs,
        )
        self.pointwise_conv = ConvModule(
            in_channels,
            out_channels,
            1,
            norm_cfg=norm_cfg if pw_norm_cfg == "default" else pw_norm_cfg,
            act_cfg=act_cfg if pw_act_cfg == "default" else pw_act_cfg,
            **kwargs,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        y: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return y
