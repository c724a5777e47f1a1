"""CARAFE: upsampling by weighted sums of windows, with weights predicted from the features.

Source: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019. The formula is in
``csrc/carafe/carafe.h``. Forward and backward are deterministic on CPU and CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn import normal_init, xavier_init
from cv.utils import UsageError

from ._load import operator
from ._memory_format import like_input
from ._registration import register

_op = operator("carafe")
_op_backward = operator("carafe_backward")


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """Upsamples ``features``: each output pixel is the sum of a window of them, weighted by ``masks``.

    Args:
        features: (N, C, H, W) float16, bfloat16, float32 or float64. Half types are accumulated in float32.
        masks: (N, group_size * kernel_size², H * scale_factor, W * scale_factor) of the features' dtype: for
            each group of channels the window's weights, row by row. They are taken as they are; a softmax
            over the window is the caller's.
        kernel_size: Width of the window, odd; zeros are read outside the map.
        group_size: Number of groups; divides C.
        scale_factor: Upsampling ratio.

    Returns:
        (N, C, H * scale_factor, W * scale_factor) in the features' dtype and memory format.

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype, or dtypes differ.
        UsageError: (a ValueError and AssertionError) if shapes or numbers do not fit each other.
    """
    out: Tensor = _call(features, masks, kernel_size, group_size, scale_factor)
    return out


def carafe_naive(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Tensor:
    """The same as :func:`carafe`, under the name that an older implementation had."""
    return carafe(features, masks, kernel_size, group_size, scale_factor)


class CARAFE(nn.Module):
    """The layer form of :func:`carafe`.

    Args:
        kernel_size: Width of the window, odd.
        group_size: Number of groups of channels.
        scale_factor: Upsampling ratio.

    Raises:
        UsageError: (a ValueError and AssertionError) if an argument is out of its range.
    """

    def __init__(self, kernel_size: int, group_size: int, scale_factor: int) -> None:
        super().__init__()
        _check_numbers(kernel_size, group_size, scale_factor)
        self.kernel_size = kernel_size
        self.group_size = group_size
        self.scale_factor = scale_factor

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Upsamples; see :func:`carafe`.

        Args:
            features: (N, C, H, W).
            masks: (N, group_size * kernel_size², H * scale_factor, W * scale_factor).

        Returns:
            (N, C, H * scale_factor, W * scale_factor).
        """
        return carafe(features, masks, self.kernel_size, self.group_size, self.scale_factor)

    def extra_repr(self) -> str:
        return ", ".join(f"{n}={getattr(self, n)}" for n in ("kernel_size", "group_size", "scale_factor"))


class CARAFENaive(CARAFE):
    """The same as :class:`CARAFE`, under the name that an older implementation had.

    Args:
        kernel_size: Width of the window, odd.
        group_size: Number of groups of channels.
        scale_factor: Upsampling ratio.
    """


class CARAFEPack(nn.Module):
    """An upsampler that predicts its own masks: channel compressor, content encoder, :func:`carafe`.

    Args:
        channels: Channels of the input, and of the output.
        scale_factor: Upsampling ratio.
        up_kernel: Width of the window.
        up_group: Number of groups of channels that have masks of their own.
        encoder_kernel: Kernel size of the content encoder.
        encoder_dilation: Dilation of the content encoder.
        compressed_channels: Channels between the two.

    Raises:
        UsageError: (a ValueError and AssertionError) if an argument is out of its range.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int,
        up_kernel: int = 5,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed_channels: int = 64,
    ) -> None:
        super().__init__()
        _check_numbers(up_kernel, up_group, scale_factor)
        if channels % up_group != 0:
            raise UsageError(f"channels must be divisible by up_group, got {channels} and {up_group}")
        self.channels = channels
        self.scale_factor = scale_factor
        self.up_kernel = up_kernel
        self.up_group = up_group
        self.encoder_kernel = encoder_kernel
        self.encoder_dilation = encoder_dilation
        self.compressed_channels = compressed_channels
        self.channel_compressor = nn.Conv2d(channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            up_kernel * up_kernel * up_group * scale_factor * scale_factor,
            encoder_kernel,
            padding=(encoder_kernel - 1) * encoder_dilation // 2,
            dilation=encoder_dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for the compressor; small random weights for the encoder, so that masks start alike."""
        xavier_init(self.channel_compressor, distribution="uniform")
        normal_init(self.content_encoder, std=0.001)

    def kernel_normalizer(self, mask: Tensor) -> Tensor:
        """(N, up_group * up_kernel² * scale², H, W) to masks that sum to one over the window.

        Args:
            mask: What the content encoder gives.

        Returns:
            (N, up_group * up_kernel², H * scale, W * scale).
        """
        mask = F.pixel_shuffle(mask, self.scale_factor)
        n, _, height, width = mask.shape
        windows = mask.reshape(n, self.up_group, self.up_kernel * self.up_kernel, height, width)
        return windows.softmax(2).flatten(1, 2)

    def feature_reassemble(self, x: Tensor, mask: Tensor) -> Tensor:
        """Upsamples ``x`` by ``mask``; see :func:`carafe`."""
        return carafe(x, mask.to(x.dtype), self.up_kernel, self.up_group, self.scale_factor)

    def forward(self, x: Tensor) -> Tensor:
        """Upsamples (N, channels, H, W) to (N, channels, H * scale_factor, W * scale_factor)."""
        mask = self.content_encoder(self.channel_compressor(x))
        return self.feature_reassemble(x, self.kernel_normalizer(mask))


# --- checks ----------------------------------------------------------------------------------------


def _check_numbers(kernel_size: int, group_size: int, scale_factor: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size > 1023:
        raise UsageError(f"kernel_size must be odd and between 1 and 1023, got {kernel_size}")
    if group_size < 1:
        raise UsageError(f"group_size must be at least 1, got {group_size}")
    if scale_factor < 1:
        raise UsageError(f"scale_factor must be at least 1, got {scale_factor}")


def _check(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> None:
    _check_numbers(kernel, groups, scale)
    _check_tensors(features, masks, kernel, groups, scale)


def _check_tensors(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> None:
    for name, t in (("features", features), ("masks", masks)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {t.dtype}")
    if masks.dtype != features.dtype:
        raise TypeError(f"masks must have the dtype of features ({features.dtype}), got {masks.dtype}")
    if masks.device != features.device:
        raise UsageError(f"masks must be on the device of features ({features.device}), got {masks.device}")
    if features.dim() != 4:
        raise UsageError(f"features must have shape (N, C, H, W), got {tuple(features.shape)}")
    n, channels, height, width = features.shape
    if channels % groups != 0:
        raise UsageError(f"group_size must divide the channels of features, got {groups} and {channels}")
    expected = (n, groups * kernel * kernel, height * scale, width * scale)
    if tuple(masks.shape) != expected:
        raise UsageError(f"masks must have shape {expected}, got {tuple(masks.shape)}")


# --- the operators ---------------------------------------------------------------------------------


def _fake(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    n, c, h, w = features.shape
    return torch.empty(
        (n, c, h * scale, w * scale),
        dtype=features.dtype,
        device=features.device,
        memory_format=like_input(features),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, masks, *ctx.numbers = inputs
    ctx.save_for_backward(features, masks)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_features, need_masks, *_ = ctx.needs_input_grad
    grad_features, grad_masks = _op_backward(
        grad, *ctx.saved_tensors, *ctx.numbers, need_features, need_masks
    )
    return (grad_features if need_features else None, grad_masks if need_masks else None, None, None, None)


def _fake_backward(
    grad: Tensor,
    features: Tensor,
    masks: Tensor,
    kernel: int,
    groups: int,
    scale: int,
    want_features: bool,
    want_masks: bool,
) -> tuple[Tensor, Tensor]:
    if want_features:
        grad_features = torch.empty_like(features, memory_format=like_input(features))
    else:
        grad_features = features.new_empty(0)
    return grad_features, masks.new_empty(masks.shape if want_masks else (0,))


# Under autocast everything stays as it is: sums are in float32 anyway.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients)
register(_op_backward, fake=_fake_backward)
