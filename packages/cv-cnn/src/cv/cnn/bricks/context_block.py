"""Global context block.

Cao et al., GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cv.cnn.bricks.registry import PLUGIN_LAYERS
from cv.cnn.init.functions import constant_init, kaiming_init
from cv.utils.errors import UsageError

__all__ = ["ContextBlock"]

_FUSIONS = ("channel_add", "channel_mul")


@PLUGIN_LAYERS.register_module()
class ContextBlock(nn.Module):
    """Add (or multiply by) a transform of one context vector pooled over the whole image.

    Args:
        in_channels: Channels of the input and output.
        ratio: Ratio of the channels of the bottleneck to ``in_channels``.
        pooling_type: ``"att"``: the context is an attention-weighted mean; ``"avg"``: the plain mean.
        fusion_types: One or both of ``"channel_add"`` and ``"channel_mul"`` (multiplied first, by a
            sigmoid).

    Raises:
        UsageError: Unknown pooling or fusion, or none, or no channels in the bottleneck.
    """

    _abbr_ = "context_block"

    def __init__(
        self,
        in_channels: int,
        ratio: float,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
    ) -> None:
        super().__init__()
        if pooling_type not in ("avg", "att"):
            raise UsageError(f"pooling_type must be 'avg' or 'att', got {pooling_type!r}")
        if not isinstance(fusion_types, (list, tuple)) or not fusion_types:
            raise UsageError(f"fusion_types must be a list or tuple with at least one, got {fusion_types!r}")
        if not set(fusion_types) <= set(_FUSIONS):
            raise UsageError(f"fusion_types must be among {_FUSIONS}, got {fusion_types!r}")
        self.in_channels = in_channels
        self.ratio = ratio
        self.planes = int(in_channels * ratio)
        if self.planes < 1:
            raise UsageError(
                f"in_channels times ratio must be at least 1, got in_channels={in_channels}, ratio={ratio}"
            )
        self.pooling_type = pooling_type
        self.fusion_types = fusion_types
        if pooling_type == "att":
            self.conv_mask = nn.Conv2d(in_channels, 1, kernel_size=1)
            self.softmax = nn.Softmax(dim=2)
        else:
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.channel_add_conv = self._transform() if "channel_add" in fusion_types else None
        self.channel_mul_conv = self._transform() if "channel_mul" in fusion_types else None
        self.reset_parameters()

    def _transform(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(self.in_channels, self.planes, kernel_size=1),
            nn.LayerNorm([self.planes, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.planes, self.in_channels, kernel_size=1),
        )

    def reset_parameters(self) -> None:
        """Initialise the layers; the last one of each transform starts at zero."""
        if self.pooling_type == "att":
            kaiming_init(self.conv_mask, mode="fan_in")
        for transform in (self.channel_add_conv, self.channel_mul_conv):
            if transform is not None:
                constant_init(transform[-1], 0)

    def spatial_pool(self, x: Tensor) -> Tensor:
        """Pool ``(N, C, H, W)`` to the context ``(N, C, 1, 1)``."""
        if self.pooling_type == "avg":
            context: Tensor = self.avg_pool(x)
            return context
        weights = self.softmax(self.conv_mask(x).flatten(2))  # (N, 1, H·W)
        return torch.matmul(x.flatten(2), weights.transpose(1, 2)).unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        context = self.spatial_pool(x)
        out = x
        if self.channel_mul_conv is not None:
            out = out * torch.sigmoid(self.channel_mul_conv(context))
        if self.channel_add_conv is not None:
            out = out + self.channel_add_conv(context)
        return out
