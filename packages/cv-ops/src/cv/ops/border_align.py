"""BorderAlign: the greatest feature along each border of a box.

Source: Qiu et al., "BorderDet: Border Feature for Dense Object Detection", ECCV 2020, section 3.2. Where a
border is sampled is in ``csrc/border_align/border_align.h``.

Gradients reach the input only, not the boxes: that of a border goes to its greatest sample, the first of
equal ones. They are deterministic on the CPU. On CUDA they are summed by atomics and so vary in the last
bits, unless ``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel with a fixed order is
used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_floating
from ._load import operator
from ._memory_format import is_channels_last
from ._registration import register
from ._roi import empty_gradient

_op = operator("border_align")
_op_backward = operator("border_align_backward")


def border_align(input: Tensor, boxes: Tensor, pool_size: int) -> Tensor:  # noqa: A002 (documented name)
    """Pools the four borders of each box, each from a quarter of the channels.

    A border is sampled bilinearly at ``pool_size + 1`` points, both ends included, and the greatest sample of
    a channel counts. A point may lie up to one pixel outside the map and then reads the border; further out
    it reads 0.

    Args:
        input: (N, 4 C, H, W) float16, bfloat16, float32 or float64: C channels each for the top, left, bottom
            and right border.
        boxes: (N, K, 4) of any floating dtype: x1, y1, x2, y2 in pixels of the map, whose centres are whole
            numbers; usually K = H * W. A box that is not finite gives NaN.
        pool_size: Intervals along a border.

    Returns:
        (N, C, K, 4) in the input's dtype; the last dimension is (top, left, bottom, right).

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape or number is out of its range.
    """
    out: Tensor
    out, _ = _call(input, boxes, pool_size)
    return out


class BorderAlign(nn.Module):
    """The layer form of :func:`border_align`.

    Args:
        pool_size: Intervals along a border.

    Raises:
        ValueError: If ``pool_size`` is not positive.
    """

    def __init__(self, pool_size: int) -> None:
        super().__init__()
        _check_pool_size(pool_size)
        self.pool_size = pool_size

    def forward(self, input: Tensor, boxes: Tensor) -> Tensor:  # noqa: A002 (documented name)
        """Pools the borders of ``boxes`` from ``input``.

        Args:
            input: (N, 4 C, H, W): the channels of the top, left, bottom and right border.
            boxes: (N, H * W, 4): x1, y1, x2, y2; see :func:`border_align`.

        Returns:
            (N, C, H * W, 4), the last dimension (top, left, bottom, right).
        """
        return border_align(input, boxes, self.pool_size)

    def extra_repr(self) -> str:
        return f"pool_size={self.pool_size}"


def _check(x: Tensor, boxes: Tensor, pool_size: int) -> None:
    check_floating(input=x, boxes=boxes)
    if x.dim() != 4 or x.shape[1] % 4:
        raise ValueError(
            f"input must have shape (N, 4 C, H, W), channels divisible by 4, got {tuple(x.shape)}"
        )
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"input must have at least one pixel, got {tuple(x.shape)}")
    if boxes.dim() != 3 or boxes.shape[2] != 4 or boxes.shape[0] != x.shape[0]:
        raise ValueError(f"boxes must have shape (N, K, 4) with N = {x.shape[0]}, got {tuple(boxes.shape)}")
    if boxes.device != x.device:
        raise ValueError(f"boxes must be on the device of input ({x.device}), got {boxes.device}")
    _check_pool_size(pool_size)


def _check_pool_size(pool_size: int) -> None:
    if not 1 <= pool_size < 1 << 24:
        raise ValueError(f"pool_size must be positive and below 2^24, got {pool_size}")


# --- the operators ---------------------------------------------------------------------------------


def _fake(x: Tensor, boxes: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    out = x.new_empty((x.shape[0], x.shape[1] // 4, boxes.shape[1], 4))
    return out, torch.empty_like(out, dtype=torch.int32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, boxes, ctx.pool_size = inputs
    ctx.map = (*x.shape, is_channels_last(x))
    ctx.save_for_backward(boxes, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    boxes, samples = ctx.saved_tensors
    deterministic = torch.are_deterministic_algorithms_enabled()
    numbers = (ctx.pool_size, *ctx.map, deterministic)
    return _op_backward(grad, boxes, samples, *numbers), None, None


def _fake_backward(grad: Tensor, boxes: Tensor, samples: Tensor, pool_size: int, *numbers: Any) -> Tensor:
    *shape, channels_last, _ = numbers
    return empty_gradient(grad, shape, channels_last)


# Under autocast the map stays as it is: samples are computed in float32 anyway.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients, first_only=True)
register(_op_backward, fake=_fake_backward)
