"""IoU of aligned pairs of rotated boxes with its gradient, in the plane and in space.

The value is that of :func:`cv.ops.box_iou_rotated`. The gradient is exact too: moving the outline of a box by
v changes the shared area by the integral of v . n over the part of that outline that lies in the other box,
so all it takes is where each of four edges enters and leaves the other box. Where edges coincide the area
has no derivative; half of such an edge counts, the mean of the two sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._checks import check_same_device, in_one_floating_dtype
from .box_iou_rotated import box_iou_rotated


def diff_iou_rotated_2d(box1: Tensor, box2: Tensor) -> Tensor:
    """IoU of rotated boxes, differentiable in both.

    Args:
        box1: ``(B, N, 5)`` boxes ``(x, y, w, h, angle)``: centre, sides, radians from x towards y.
        box2: ``(B, N, 5)``.

    Returns:
        ``(B, N)`` in [0, 1]. A box with a side that is not positive has 0 and no gradient; one with a
        number that is not finite has NaN. Gradients can be taken once.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.

    Example:
        >>> pred = torch.tensor([[[0.5, 0.0, 2.0, 2.0, 0.0]]], requires_grad=True)
        >>> iou = diff_iou_rotated_2d(pred, torch.tensor([[[0.0, 0.0, 2.0, 2.0, 0.0]]]))
        >>> iou
        tensor([[0.6000]], grad_fn=<DivBackward0>)
        >>> iou.sum().backward()
        >>> pred.grad
        tensor([[[-0.6400,  0.0000,  0.0800, -0.0000,  0.0000]]])
    """
    box1, box2 = _checked(box1, box2, 5)
    shared = _shared_area(box1, box2)
    return _ratio(shared, box1[..., 2] * box1[..., 3] + box2[..., 2] * box2[..., 3])


def diff_iou_rotated_3d(box3d1: Tensor, box3d2: Tensor) -> Tensor:
    """IoU of boxes in space that are turned around the z axis, differentiable in both.

    Args:
        box3d1: ``(B, N, 7)`` boxes ``(x, y, z, w, h, l, angle)``: centre; sides along x, y and z before the
            turn; radians from x towards y.
        box3d2: ``(B, N, 7)``.

    Returns:
        ``(B, N)`` in [0, 1], as :func:`diff_iou_rotated_2d`.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: A wrong shape or device.
    """
    box3d1, box3d2 = _checked(box3d1, box3d2, 7)
    plane = [0, 1, 3, 4, 6]
    area = _shared_area(box3d1[..., plane], box3d2[..., plane])
    z1, z2, l1, l2 = box3d1[..., 2], box3d2[..., 2], box3d1[..., 5], box3d2[..., 5]
    height = torch.minimum(z1 + l1 / 2, z2 + l2 / 2) - torch.maximum(z1 - l1 / 2, z2 - l2 / 2)
    return _ratio(area * height.clamp(min=0), box3d1[..., 3:6].prod(-1) + box3d2[..., 3:6].prod(-1))


def _checked(box1: Tensor, box2: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    box1, box2 = in_one_floating_dtype(box1=box1, box2=box2)
    check_same_device(box1=box1, box2=box2)
    for name, box in (("box1", box1), ("box2", box2)):
        if box.dim() != 3 or box.shape[2] != numbers:
            raise ValueError(f"{name} must have shape (B, N, {numbers}), got {tuple(box.shape)}")
    if box1.shape != box2.shape:
        raise ValueError(f"box2 must have the shape of box1, {tuple(box1.shape)}, got {tuple(box2.shape)}")
    return box1, box2


def _ratio(shared: Tensor, both: Tensor) -> Tensor:
    union = both - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)  # 0 where neither has an area


def _shared_area(box1: Tensor, box2: Tensor) -> Tensor:
    area: Tensor = _SharedArea.apply(box1, box2)  # type: ignore[no-untyped-call]
    return area


class _SharedArea(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, box1: Tensor, box2: Tensor) -> Tensor:
        ctx.save_for_backward(box1, box2)
        iou = box_iou_rotated(box1.reshape(-1, 5), box2.reshape(-1, 5), aligned=True).reshape(box1.shape[:-1])
        return iou / (1 + iou) * (box1[..., 2] * box1[..., 3] + box2[..., 2] * box2[..., 3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        box1, box2 = ctx.saved_tensors
        wanted1, wanted2 = ctx.needs_input_grad
        return (
            grad[..., None] * _derivative(box1, box2) if wanted1 else None,
            grad[..., None] * _derivative(box2, box1) if wanted2 else None,
        )


def _derivative(box: Tensor, other: Tensor) -> Tensor:
    """(..., 5): of the shared area, by the numbers of ``box``."""
    dtype = box.dtype
    box, other = (b.float() if b.dtype in (torch.float16, torch.bfloat16) else b for b in (box, other))
    angle = box[..., 4, None] + torch.arange(4, device=box.device, dtype=box.dtype) * (torch.pi / 2)
    normal = torch.stack((angle.cos(), angle.sin()), -1)  # (..., 4, 2): of the edges +w, +h, -w, -h
    along = torch.stack((-normal[..., 1], normal[..., 0]), -1)
    reach = box[..., [2, 3, 2, 3]] / 2  # from the centre to the edge
    half = box[..., [3, 2, 3, 2]] / 2  # half the length of the edge
    middle = (box[..., :2] - other[..., :2])[..., None, :] + reach[..., None] * normal
    begin, end, share = _inside(middle, along, half, other)
    length = share * (end - begin).clamp(min=0)
    # n . (turn of a point at s along the edge) is -s
    moment = -length * (begin + end) / 2
    sides = torch.stack((length[..., 0] + length[..., 2], length[..., 1] + length[..., 3]), -1) / 2
    centre = (length[..., None] * normal).sum(-2)
    derivative = torch.cat((centre, sides, moment.sum(-1, keepdim=True)), -1)
    empty = (box[..., 2:4] <= 0).any(-1) | (other[..., 2:4] <= 0).any(-1)
    return derivative.masked_fill(empty[..., None], 0).to(dtype)


def _inside(middle: Tensor, along: Tensor, half: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where edges enter and leave ``other``, from their middle, and how much of them counts.

    ``middle`` is relative to the centre of ``other``.
    """
    c, s = other[..., 4].cos(), other[..., 4].sin()
    axes = torch.stack((torch.stack((c, s), -1), torch.stack((-s, c), -1)), -2)  # (..., 2, 2), rows
    at = torch.einsum("...ek,...ak->...ea", middle, axes)  # (..., 4 edges, 2 axes)
    step = torch.einsum("...ek,...ak->...ea", along, axes)
    wall = other[..., None, 2:4] / 2
    # An edge along a wall, to rounding, is inside or outside as a whole; on the wall half of it counts.
    blur = 128 * torch.finfo(at.dtype).eps * (at.abs() + wall)
    parallel = step.abs() * half[..., None] <= blur
    share = torch.where(parallel, (0.5 + (wall - at.abs()) / (2 * blur)).clamp(0, 1), 1.0)
    step = torch.where(parallel, torch.inf, step)
    one, two = (-wall - at) / step, (wall - at) / step
    begin = torch.where(parallel, -half[..., None], torch.minimum(one, two)).amax(-1)
    end = torch.where(parallel, half[..., None], torch.maximum(one, two)).amin(-1)
    return torch.maximum(begin, -half), torch.minimum(end, half), share.prod(-1)
