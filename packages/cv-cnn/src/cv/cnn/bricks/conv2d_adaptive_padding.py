"""Convolution with the padding that TensorFlow calls "same"."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.registry import CONV_LAYERS

__all__ = ["Conv2dAdaptivePadding"]


@CONV_LAYERS.register_module()
class Conv2dAdaptivePadding(nn.Conv2d):
    """Pad such that the output is the input's size divided by the stride, rounded up.

    An odd amount is padded more at the right and bottom. The kernel covers the whole input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride.
        padding: Not used: it follows from the input's size.
        dilation: Spacing between kernel elements.
        groups: Number of groups.
        bias: Whether there is a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)`` to ``(N, O, ceil(H / stride), ceil(W / stride))``."""
        amounts: list[int] = []
        for axis in (1, 0):  # F.pad takes the last axis first
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            outputs = -(-size // stride)
            covered = (outputs - 1) * stride + (kernel - 1) * self.dilation[axis] + 1
            pad = max(covered - size, 0)
            amounts += [pad // 2, pad - pad // 2]
        if any(amounts):
            x = F.pad(x, amounts)
        return super().forward(x)
