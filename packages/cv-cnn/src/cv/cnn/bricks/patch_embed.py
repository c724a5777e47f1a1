"""Images cut into patches, and patches merged into fewer, as in models of the ViT and Swin families.

A sequence of patches is ``(N, length, C)``, row after row of the ``(H, W)`` grid that comes along with it.
Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words"; Liu et al., "Swin Transformer".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.conv import build_conv_layer
from cv.cnn.bricks.norm import build_norm_layer
from cv.cnn.module import BaseModule, InitCfg
from cv.utils import to_2tuple
from cv.utils.errors import UsageError

__all__ = ["AdaptivePadding", "PatchEmbed", "PatchMerging"]

_Pair = int | tuple[int, int]


class AdaptivePadding(nn.Module):
    """Zeros around the input, such that a sliding window covers all of it.

    A window of that kernel, stride and dilation then has ``ceil(size / stride)`` positions on each axis.

    Args:
        kernel_size: Size of the window, one number or (height, width).
        stride: Its step.
        dilation: Spacing between its elements.
        padding: ``"corner"`` adds at the bottom and right, ``"same"`` on both sides, an odd amount with the
            extra one at the bottom or right.

    Raises:
        UsageError: Another ``padding``.
    """

    def __init__(
        self,
        kernel_size: _Pair = 1,
        stride: _Pair = 1,
        dilation: _Pair = 1,
        padding: Literal["corner", "same"] = "corner",
    ) -> None:
        super().__init__()
        if padding not in ("corner", "same"):
            raise UsageError(f"padding must be 'corner' or 'same', got {padding!r}")
        self.padding = padding
        self.kernel_size: tuple[int, int] = to_2tuple(kernel_size)
        self.stride: tuple[int, int] = to_2tuple(stride)
        self.dilation: tuple[int, int] = to_2tuple(dilation)

    def get_pad_shape(self, input_shape: Sequence[int]) -> tuple[int, int]:
        """How many rows and columns are added to an input of ``(H, W)``."""
        height, width = (self._missing(size, axis) for axis, size in enumerate(input_shape))
        return height, width

    def forward(self, x: Tensor) -> Tensor:
        """Pad ``(…, H, W)``."""
        height, width = self.get_pad_shape(x.shape[-2:])
        if height == 0 and width == 0:
            return x
        top, left = (height // 2, width // 2) if self.padding == "same" else (0, 0)
        return F.pad(x, [left, width - left, top, height - top])

    def _missing(self, size: int, axis: int) -> int:
        kernel, stride, dilation = self.kernel_size[axis], self.stride[axis], self.dilation[axis]
        positions = -(-size // stride)
        return max((positions - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


class PatchEmbed(BaseModule):
    """A convolution that turns an image into a sequence of patch embeddings.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels of an embedding.
        conv_type: Type of the convolution; None means ``Conv2d``.
        kernel_size: Size of a patch.
        stride: Step between patches; None means ``kernel_size``.
        padding: Padding of the convolution, or the ``padding`` of :class:`AdaptivePadding`.
        dilation: Dilation of the convolution.
        bias: Whether the convolution has a bias.
        norm_cfg: Config of a norm over the embeddings, none by default.
        input_size: (height, width) of the images, for models of one size. With it ``init_input_size`` is that
            size and ``init_out_size`` the grid of patches; else both are None.
        init_cfg: Initialisation.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dims: int = 768,
        conv_type: str | None = "Conv2d",
        kernel_size: _Pair = 16,
        stride: _Pair | None = 16,
        padding: _Pair | str = "corner",
        dilation: _Pair = 1,
        bias: bool = True,
        norm_cfg: dict[str, Any] | None = None,
        input_size: _Pair | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        stride = kernel_size if stride is None else stride
        self.adaptive_padding, padding = _padding(kernel_size, stride, dilation, padding)
        self.projection = build_conv_layer(
            {"type": conv_type or "Conv2d"},
            in_channels,
            embed_dims,
            kernel_size=to_2tuple(kernel_size),
            stride=to_2tuple(stride),
            padding=padding,
            dilation=to_2tuple(dilation),
            bias=bias,
        )
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg is not None else None
        self.init_input_size: tuple[int, int] | None = None
        self.init_out_size: tuple[int, int] | None = None
        if input_size is not None:
            self.init_input_size = size = to_2tuple(input_size)
            if self.adaptive_padding is not None:
                rows, columns = self.adaptive_padding.get_pad_shape(size)
                size = (size[0] + rows, size[1] + columns)
            self.init_out_size = _positions(size, kernel_size, stride, dilation, padding)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed ``(N, C, H, W)`` as ``(N, rows * columns, embed_dims)``; also returns ``(rows, columns)``."""
        if self.adaptive_padding is not None:
            x = self.adaptive_padding(x)
        x = self.projection(x)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        return (x if self.norm is None else self.norm(x)), grid


class PatchMerging(BaseModule):
    """Merge neighbouring patches into one: their channels side by side, a norm, and a linear layer.

    The channels of a merged patch are ordered as those of ``nn.Unfold``: all positions of the first input
    channel, then of the second. (The code of the Swin paper orders them by position first, so its
    weights need their columns reordered.)

    Args:
        in_channels: Channels of a patch.
        out_channels: Channels of a merged patch.
        kernel_size: How many patches are merged, one number or (height, width).
        stride: Step between merged patches; None means ``kernel_size``.
        padding: Padding of the grid, or the ``padding`` of :class:`AdaptivePadding`.
        dilation: Spacing between patches that are merged.
        bias: Whether the linear layer has a bias.
        norm_cfg: Config of the norm, or None for no norm; layer norm by default.
        init_cfg: Initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair = 2,
        stride: _Pair | None = None,
        padding: _Pair | str = "corner",
        dilation: _Pair = 1,
        bias: bool = False,
        norm_cfg: dict[str, Any] | None = {"type": "LN"},  # noqa: B006 - read only
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels
        stride = kernel_size if stride is None else stride
        self.adaptive_padding, padding = _padding(kernel_size, stride, dilation, padding)
        self.sampler = nn.Unfold(to_2tuple(kernel_size), to_2tuple(dilation), padding, to_2tuple(stride))
        height, width = to_2tuple(kernel_size)
        merged = height * width * in_channels
        self.norm = build_norm_layer(norm_cfg, merged)[1] if norm_cfg is not None else None
        self.reduction = nn.Linear(merged, out_channels, bias=bias)

    def forward(self, x: Tensor, input_size: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
        """Merge the patches of a sequence.

        Args:
            x: ``(N, H * W, in_channels)``.
            input_size: ``(H, W)``.

        Returns:
            ``(N, rows * columns, out_channels)`` and ``(rows, columns)``.

        Raises:
            UsageError: ``input_size`` is not a pair, or another length of the sequence.
        """
        if not isinstance(input_size, Sequence) or len(input_size) != 2:  # type: ignore[redundant-expr]
            raise UsageError(f"input_size must be a sequence (height, width), got {input_size!r}")
        height, width = input_size
        if x.dim() != 3 or x.shape[1] != height * width:
            raise UsageError(f"x must have shape (N, {height} * {width}, C), got {tuple(x.shape)}")
        x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
        if self.adaptive_padding is not None:
            x = self.adaptive_padding(x)
        grid = _positions(
            (x.shape[2], x.shape[3]),
            self.sampler.kernel_size,
            self.sampler.stride,
            self.sampler.dilation,
            self.sampler.padding,
        )
        x = self.sampler(x).transpose(1, 2)
        if self.norm is not None:
            x = self.norm(x)
        return self.reduction(x), grid


def _padding(
    kernel_size: _Pair, stride: _Pair, dilation: _Pair, padding: _Pair | str
) -> tuple[AdaptivePadding | None, tuple[int, int]]:
    """The layer in front, if any, and the numbers for the window itself."""
    if isinstance(padding, str):
        return AdaptivePadding(kernel_size, stride, dilation, padding), (0, 0)  # type: ignore[arg-type]
    return None, to_2tuple(padding)


def _positions(
    size: tuple[int, int], kernel_size: Any, stride: Any, dilation: Any, padding: Any
) -> tuple[int, int]:
    """Of how many rows and columns a window has positions."""
    kernel_size, stride, dilation, padding = (to_2tuple(v) for v in (kernel_size, stride, dilation, padding))
    rows, columns = (
        (size[i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    return rows, columns
