"""Switchable atrous convolution: two dilations of one convolution, and a learnt switch between them.

Source: Qiao et al., "DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable Atrous
Convolution", CVPR 2021, section 4. With the switch S(x) in each output pixel,

    y = S(x) * conv(x, w, dilation d) + (1 - S(x)) * conv(x, w + dw, dilation 3 d),

between two global contexts: the mean of the map, through a 1 x 1 convolution, is added before and after. The
weight is standardised as in :class:`cv.cnn.ConvAWS2d`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn import ConvAWS2d, constant_init

from ._checks import check_floating
from .deform_conv import deform_conv2d

_Size = int | tuple[int, int]
_DILATION = 3  # of the second convolution, relative to the first
_POOL = 5  # the switch and the offsets see the mean of so many pixels squared


class SAConv2d(ConvAWS2d):
    """SAC of DetectoRS, used like ``nn.Conv2d``; right after construction it is the plain convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride.
        padding: Zeros on both sides of the input. Like kernel and stride it should be such that the output
            has the size of the input over the stride, rounded up, as the switch and the offsets have.
        dilation: Spacing between kernel elements; the second convolution has three times as much, in a
            padding three times as large.
        groups: Blocked connections from input to output channels.
        bias: Whether there is a learnt bias; it is added to the output before the second context.
        use_deform: Whether both convolutions are deformable; their offsets are predicted by ``offset_s`` and
            ``offset_l``.
    """

    padding: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        use_deform: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.use_deform = use_deform
        self.switch = nn.Conv2d(in_channels, 1, kernel_size=1, stride=stride)
        self.weight_diff = nn.Parameter(torch.empty_like(self.weight))
        self.pre_context = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.post_context = nn.Conv2d(out_channels, out_channels, kernel_size=1)
        if use_deform:
            offsets = 2 * self.kernel_size[0] * self.kernel_size[1]
            self.offset_s = nn.Conv2d(in_channels, offsets, kernel_size=3, padding=1, stride=stride)
            self.offset_l = nn.Conv2d(in_channels, offsets, kernel_size=3, padding=1, stride=stride)
        self.init_weights()

    def init_weights(self) -> None:
        """The switch on the first convolution, no context, no difference of weights and no offsets."""
        constant_init(self.switch, 0, bias=1)
        nn.init.zeros_(self.weight_diff)
        for layer in (self.pre_context, self.post_context):
            constant_init(layer, 0)
        if self.use_deform:
            for layer in (self.offset_s, self.offset_l):
                constant_init(layer, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (N, C_in, H, W).

        Raises:
            TypeError: If ``x`` is no tensor of a floating dtype.
            ValueError: If ``x`` does not have that shape, or no pixel.
        """
        check_floating(x=x)
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.shape[2] == 0 or x.shape[3] == 0:
            shape = f"(N, {self.in_channels}, H, W)"
            raise ValueError(f"x must have shape {shape} and at least one pixel, got {tuple(x.shape)}")
        x = x + self.pre_context(x.mean((2, 3), keepdim=True))
        around = _local_mean(x)
        switch = self.switch(around)
        weight = self._get_weight(self.weight)
        small = self._convolve(x, around, weight, "offset_s", 1)
        large = self._convolve(x, around, weight + self.weight_diff, "offset_l", _DILATION)
        out = switch * small + (1 - switch) * large
        if self.bias is not None:
            out = out + self.bias.view(-1, 1, 1)
        result: Tensor = out + self.post_context(out.mean((2, 3), keepdim=True))
        return result

    def _convolve(self, x: Tensor, around: Tensor, weight: Tensor, predictor: str, times: int) -> Tensor:
        """With dilation and padding ``times`` as large."""
        padding = cast(Any, tuple(times * v for v in self.padding))
        dilation = cast(Any, tuple(times * v for v in self.dilation))
        if not self.use_deform:
            return F.conv2d(x, weight, None, self.stride, padding, dilation, self.groups)
        offset = getattr(self, predictor)(around)
        if torch.is_autocast_enabled(x.device.type):
            weight = weight.to(x.dtype)
        return deform_conv2d(x, offset, weight, self.stride, padding, dilation, self.groups)


def _local_mean(x: Tensor) -> Tensor:
    """The mean of the pixels around each one; the map is reflected (if tiny, continued) at its border."""
    radius = _POOL // 2
    mode = "reflect" if min(x.shape[2:]) > radius else "replicate"
    return F.avg_pool2d(F.pad(x, [radius] * 4, mode=mode), _POOL, stride=1)
