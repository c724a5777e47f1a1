"""Point-wise spatial attention (Zhao et al., "PSANet: Point-wise Spatial Attention Network", ECCV 2018).

Each pixel predicts a mask of weights about its neighbourhood; :func:`psa_mask` lays the masks out as weights
between all pairs of pixels. Elements are only moved: exact in every dtype, deterministic, and differentiable
any number of times.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from cv.utils import to_2tuple

from ._checks import check_floating
from ._load import operator
from ._registration import register

PSAType = Literal["collect", "distribute"]

_TYPES = {"collect": False, "distribute": True}

_op = operator("psa_mask")
_op_backward = operator("psa_mask_backward")


def psa_mask(
    input: Tensor,  # noqa: A002 - as elsewhere in cv.ops
    psa_type: PSAType,
    mask_size: int | tuple[int, int] | None = None,
) -> Tensor:
    """Weights between all pairs of pixels, from one mask per pixel.

    Mask element ``(i, j)`` of pixel ``(h, w)``, in channel ``i * mask_w + j``, is the weight between it and
    the pixel ``(y, x) = (h + i - (mask_h - 1) // 2, w + j - (mask_w - 1) // 2)``.

    Args:
        input: (N, mask_h * mask_w, H, W) float16, bfloat16, float32 or float64.
        psa_type: ``"collect"``: the weight goes to ``out[n, y * W + x, h, w]``, pixels collect from others;
            ``"distribute"``: to ``out[n, h * W + w, y, x]``, pixels distribute to others.
        mask_size: ``mask_h, mask_w``, or one number for both; by default ``(2 * H - 1, 2 * W - 1)``, which
            reaches the whole map from every pixel.

    Returns:
        (N, H * W, H, W) in the dtype of ``input``, contiguous; 0 between pixels that the mask does not reach.

    Raises:
        AssertionError: If ``psa_type`` is unknown.
        TypeError: If ``input`` is not floating point.
        ValueError: If a shape or ``mask_size`` is wrong.
    """
    _check_type(psa_type)
    if mask_size is None:
        _check_map(input)
        mask_h, mask_w = 2 * input.shape[2] - 1, 2 * input.shape[3] - 1
    else:
        mask_h, mask_w = _mask_size(mask_size)
    out: Tensor = _call(input, mask_h, mask_w, _TYPES[psa_type])
    return out


class PSAMask(nn.Module):
    """:func:`psa_mask` as a layer.

    Args:
        psa_type: ``"collect"`` or ``"distribute"``.
        mask_size: (height, width) of the masks, or one number for both; None: twice the size of the input
            less one.

    Raises:
        AssertionError: If ``psa_type`` is unknown.
        ValueError: If ``mask_size`` is not positive.
    """

    def __init__(self, psa_type: PSAType, mask_size: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        _check_type(psa_type)
        self.psa_type: PSAType = psa_type
        self.mask_size = None if mask_size is None else _mask_size(mask_size)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the documented name
        """(N, mask_h * mask_w, H, W) to (N, H * W, H, W)."""
        return psa_mask(input, self.psa_type, self.mask_size)

    def extra_repr(self) -> str:
        return f"psa_type={self.psa_type!r}, mask_size={self.mask_size}"


def _check_type(psa_type: str) -> None:
    if psa_type not in _TYPES:
        raise AssertionError(f"psa_type must be one of {list(_TYPES)}, got {psa_type!r}")


def _mask_size(mask_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = to_2tuple(mask_size)
    if height < 1 or width < 1:
        raise ValueError(f"mask_size must be positive, got {mask_size}")
    return int(height), int(width)


def _check_map(x: Tensor) -> None:
    check_floating(input=x)
    if x.dim() != 4:
        raise ValueError(f"input must have shape (N, mask_h * mask_w, H, W), got {tuple(x.shape)}")


def _check(x: Tensor, mask_h: int, mask_w: int, distribute: bool) -> None:
    _check_map(x)
    if x.shape[1] != mask_h * mask_w or mask_h < 1 or mask_w < 1:
        raise ValueError(
            f"input must have mask_h * mask_w = {mask_h} * {mask_w} channels, got {tuple(x.shape)}"
        )


def _fake(input: Tensor, mask_h: int, mask_w: int, distribute: bool) -> Tensor:  # noqa: A002
    n, _, h, w = input.shape
    return input.new_empty((n, h * w, h, w))


def _fake_backward(grad: Tensor, mask_h: int, mask_w: int, distribute: bool) -> Tensor:
    n, _, h, w = grad.shape
    return grad.new_empty((n, mask_h * mask_w, h, w))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.options = inputs[1:]


# Each is the other's transpose.
def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op_backward(grad, *ctx.options), None, None, None


def _backward_of_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _op(grad, *ctx.options), None, None, None


_call = register(_op, check=_check, fake=_fake, setup_context=_setup_context, backward=_backward)
register(_op_backward, fake=_fake_backward, setup_context=_setup_context, backward=_backward_of_backward)
