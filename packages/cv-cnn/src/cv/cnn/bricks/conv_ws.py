"""Convolutions with weight standardisation (Qiao et al., Weight Standardization, 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.registry import CONV_LAYERS

__all__ = ["ConvAWS2d", "ConvWS2d", "conv_ws_2d"]

_Size = int | tuple[int, int]
_AWS_EPS = 1e-5


def conv_ws_2d(
    input: Tensor,  # noqa: A002  (documented name)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Size = 1,
    padding: _Size | str = 0,
    dilation: _Size = 1,
    groups: int = 1,
    eps: float = 1e-5,
) -> Tensor:
    """Convolve with the weight of each output channel brought to mean 0 and standard deviation 1.

    Args:
        input: ``(N, C, H, W)``.
        weight: ``(O, C / groups, kH, kW)``.
        bias: ``(O,)``.
        stride: As for ``conv2d``.
        padding: As for ``conv2d``.
        dilation: As for ``conv2d``.
        groups: As for ``conv2d``.
        eps: Added to the standard deviation.
    """
    flat = weight.flatten(1)
    mean = flat.mean(dim=1).view(-1, 1, 1, 1)
    std = flat.std(dim=1, correction=_correction(flat)).view(-1, 1, 1, 1)
    weight = (weight - mean) / (std + eps)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


@CONV_LAYERS.register_module("ConvWS")
class ConvWS2d(nn.Conv2d):
    """Convolution with weight standardisation: see :func:`conv_ws_2d`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride.
        padding: Zero-padding at both sides.
        dilation: Spacing between kernel elements.
        groups: Number of groups.
        bias: Whether there is a bias.
        eps: Added to the standard deviation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        return conv_ws_2d(
            x,
            self.weight,
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            self.eps,
        )


@CONV_LAYERS.register_module(name="ConvAWS")
class ConvAWS2d(nn.Conv2d):
    """Convolution with adaptive weight standardisation (Qiao et al., DetectoRS, 2020).

    The weight of each output channel is standardised, then scaled and shifted by the buffers
    ``weight_gamma`` and ``weight_beta``. Loading a checkpoint that has the weight only sets these to its
    standard deviation and mean, so that the layer computes what the plain convolution did.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride.
        padding: Zero-padding at both sides.
        dilation: Spacing between kernel elements.
        groups: Number of groups.
        bias: Whether there is a bias.
    """

    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.register_buffer("weight_gamma", torch.ones(self.out_channels, 1, 1, 1))
        self.register_buffer("weight_beta", torch.zeros(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        out: Tensor = self._conv_forward(x, self._get_weight(self.weight), self.bias)
        return out

    def _get_weight(self, weight: Tensor) -> Tensor:
        mean, std = _mean_and_std(weight)
        standardised: Tensor = self.weight_gamma * ((weight - mean) / std) + self.weight_beta
        return standardised

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        names = [f"{prefix}weight_gamma", f"{prefix}weight_beta"]
        if f"{prefix}weight" not in state_dict or any(name in state_dict for name in names):
            return
        missing_keys[:] = [key for key in missing_keys if key not in names]
        with torch.no_grad():
            mean, std = _mean_and_std(self.weight)
            self.weight_gamma.copy_(std)
            self.weight_beta.copy_(mean)


def _mean_and_std(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of each output channel, as ``(O, 1, 1, 1)``."""
    flat = weight.flatten(1)
    std = torch.sqrt(flat.var(dim=1, correction=_correction(flat)) + _AWS_EPS)
    return flat.mean(dim=1).view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


def _correction(flat: Tensor) -> int:
    """The sample variance, but 0 instead of NaN for a channel of one weight."""
    return 1 if flat.shape[1] > 1 else 0
