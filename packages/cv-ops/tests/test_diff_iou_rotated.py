"""diff_iou_rotated_2d and _3d: values against shapely, gradients against differences."""

from __future__ import annotations

import math

import pytest
import shapely
import shapely.affinity
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import diff_iou_rotated_2d, diff_iou_rotated_3d
from cv_testing.ops import DEVICES


def boxes(seed: int, batch: int = 2, count: int = 8) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    centre = torch.rand(batch, count, 2, generator=rng, dtype=torch.float64) * 3
    sides = torch.rand(batch, count, 2, generator=rng, dtype=torch.float64) * 4 + 0.2
    angle = torch.randn(batch, count, 1, generator=rng, dtype=torch.float64) * 3
    return torch.cat([centre, sides, angle], -1)


def boxes_3d(seed: int) -> Tensor:
    plane, rng = boxes(seed), torch.Generator().manual_seed(seed + 1)
    z = torch.rand(2, 8, 1, generator=rng, dtype=torch.float64)
    tall = torch.rand(2, 8, 1, generator=rng, dtype=torch.float64) * 2 + 0.1
    return torch.cat([plane[..., :2], z, plane[..., 2:4], tall, plane[..., 4:]], -1)


def polygon(box: list[float]) -> shapely.Polygon:
    x, y, w, h, angle = box
    flat = shapely.box(-w / 2, -h / 2, w / 2, h / 2)
    return shapely.affinity.translate(
        shapely.affinity.rotate(flat, angle, origin=(0, 0), use_radians=True), x, y
    )


def shared_area(a: list[float], b: list[float]) -> float:
    return float(polygon(a).intersection(polygon(b)).area)


@pytest.mark.parametrize("device", DEVICES)
def test_plane_matches_polygons(device: str) -> None:
    a, b = boxes(0), boxes(1)
    expected = torch.empty(2, 8, dtype=torch.float64)
    for i in range(2):
        for j in range(8):
            shared = shared_area(a[i, j].tolist(), b[i, j].tolist())
            expected[i, j] = shared / float(a[i, j, 2:4].prod() + b[i, j, 2:4].prod() - shared)
    iou = diff_iou_rotated_2d(a.to(device), b.to(device))
    torch.testing.assert_close(iou.cpu(), expected, rtol=1e-6, atol=1e-9)
    assert 0 < (expected > 0).sum() < 17


@pytest.mark.parametrize("device", DEVICES)
def test_space_matches_polygons(device: str) -> None:
    a, b = boxes_3d(0), boxes_3d(5)
    expected = torch.empty(2, 8, dtype=torch.float64)
    for i in range(2):
        for j in range(8):
            (xa, ya, za, wa, ha, la, ra), (xb, yb, zb, wb, hb, lb, rb) = a[i, j].tolist(), b[i, j].tolist()
            height = max(min(za + la / 2, zb + lb / 2) - max(za - la / 2, zb - lb / 2), 0.0)
            shared = height * shared_area([xa, ya, wa, ha, ra], [xb, yb, wb, hb, rb])
            expected[i, j] = shared / (wa * ha * la + wb * hb * lb - shared)
    iou = diff_iou_rotated_3d(a.to(device), b.to(device))
    torch.testing.assert_close(iou.cpu(), expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gradient_in_the_plane(seed: int) -> None:
    a, b = boxes(seed, 1, 4).requires_grad_(), boxes(seed + 1, 1, 4).requires_grad_()
    assert torch.autograd.gradcheck(diff_iou_rotated_2d, (a, b), eps=1e-6, atol=1e-6)


def test_gradient_in_space() -> None:
    a, b = boxes_3d(3).requires_grad_(), boxes_3d(9).requires_grad_()
    assert torch.autograd.gradcheck(diff_iou_rotated_3d, (a, b), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_edges_along_each_other(device: str) -> None:
    # Two squares side by side in one band: only x and w of either change the overlap smoothly.
    a = torch.tensor([[[0.5, 0.0, 2.0, 2.0, 0.0]]], device=device, requires_grad=True)
    b = torch.tensor([[[0.0, 0.0, 2.0, 2.0, 0.0]]], device=device, requires_grad=True)
    iou = diff_iou_rotated_2d(a, b)
    iou.sum().backward()  # I = 3, U = 5; dI/dx = -2, dI/dw = 1, and dI/dh is between 0 and 1.5
    assert a.grad is not None
    expected = torch.tensor([[[-0.64, 0.0, 0.08, 1.5 / 2 * 8 / 25 - 3 * 2 / 25, 0.0]]], device=device)
    torch.testing.assert_close(a.grad, expected)
    assert b.grad is not None
    torch.testing.assert_close(b.grad[..., 0], -a.grad[..., 0])


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, -2.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_boxes(angle: float, dtype: torch.dtype) -> None:
    a = torch.tensor([[[3.0, -1.0, 4.0, 2.0, angle]]], dtype=dtype, requires_grad=True)
    iou = diff_iou_rotated_2d(a, a.detach().clone())
    iou.sum().backward()
    torch.testing.assert_close(iou.detach(), torch.ones(1, 1, dtype=dtype))
    assert a.grad is not None
    # The mean of growing and shrinking: no direction is better than the others.
    torch.testing.assert_close(a.grad, torch.zeros_like(a.grad), rtol=0, atol=2e-2)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), turn=st.floats(-7, 7), by=st.floats(0.1, 10))
def test_moves_turns_and_scales_change_nothing(seed: int, turn: float, by: float) -> None:
    a, b = boxes(seed), boxes(seed + 1)

    def moved(box: Tensor) -> Tensor:
        c, s = math.cos(turn), math.sin(turn)
        x, y = box[..., 0] * c - box[..., 1] * s + 3, box[..., 0] * s + box[..., 1] * c - 2
        return torch.cat([torch.stack((x, y), -1) * by, box[..., 2:4] * by, box[..., 4:] + turn], -1)

    torch.testing.assert_close(
        diff_iou_rotated_2d(moved(a), moved(b)), diff_iou_rotated_2d(a, b), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(diff_iou_rotated_2d(a, b), diff_iou_rotated_2d(b, a), rtol=1e-9, atol=1e-12)


def test_steps_along_the_gradient_help() -> None:
    pred, target = boxes(0), boxes(1)
    before = diff_iou_rotated_2d(pred, target)
    for _ in range(300):
        pred.requires_grad_()
        (grad,) = torch.autograd.grad(diff_iou_rotated_2d(pred, target).sum(), pred)
        pred = (pred + 0.02 * grad).detach()
    after, met = diff_iou_rotated_2d(pred, target), before > 0
    assert (after[met] > before[met]).all()
    assert after[met].mean() > 3 * before[met].mean()


@pytest.mark.parametrize(
    "bad", [[0.0, 0, 0, 2, 0], [0.0, 0, -1, 2, 0], [0.0, 0, 2, -3, 0], [100.0, 0, 2, 2, 1]]
)
def test_no_overlap_has_no_gradient(bad: list[float]) -> None:
    a = torch.tensor([[bad]], requires_grad=True)
    b = torch.tensor([[[0.0, 0.0, 2.0, 2.0, 0.0]]], requires_grad=True)
    iou = diff_iou_rotated_2d(a, b)
    iou.sum().backward()
    assert iou.item() == 0
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad == 0).all()
    assert (b.grad == 0).all()


def test_numbers_that_are_not_finite() -> None:
    a, b = torch.zeros(1, 3, 5), torch.ones(1, 3, 5)
    a[..., 2:4] = 1
    a[0, 0, 0], a[0, 1, 4] = math.nan, math.inf
    assert diff_iou_rotated_2d(a, b).isnan().tolist() == [[True, True, False]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(dtype: torch.dtype, device: str) -> None:
    a, b = boxes(0).to(device, dtype).requires_grad_(), boxes(1).to(device, dtype)
    iou = diff_iou_rotated_2d(a, b)
    (grad,) = torch.autograd.grad(iou.sum(), a)
    exact = a.detach().double().requires_grad_()
    expected = diff_iou_rotated_2d(exact, b.double())
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    assert iou.dtype == grad.dtype == dtype
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(iou.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5)])
def test_empty(shape: tuple[int, ...]) -> None:
    a = torch.zeros(shape, requires_grad=True)
    iou = diff_iou_rotated_2d(a, torch.zeros(shape))
    assert iou.shape == shape[:2]
    (grad,) = torch.autograd.grad(iou.sum(), a)
    assert grad.shape == shape


# torch.compile itself makes an instance of the Function, and torch warns of that.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_not_contiguous_and_compiled() -> None:
    a, b = boxes(0).transpose(0, 1), boxes(1).flip(2).flip(2).transpose(0, 1)
    expected = diff_iou_rotated_2d(a.contiguous(), b.contiguous())
    torch.testing.assert_close(diff_iou_rotated_2d(a, b), expected)
    a = a.detach().requires_grad_()
    compiled = torch.compile(diff_iou_rotated_2d, backend="aot_eager", fullgraph=True)
    (grad,) = torch.autograd.grad(compiled(a, b).sum(), a)
    (expected_grad,) = torch.autograd.grad(diff_iou_rotated_2d(a, b).sum(), a)
    torch.testing.assert_close(grad, expected_grad)


def test_gradient_of_the_gradient_is_refused() -> None:
    a = boxes(0).requires_grad_()
    (grad,) = torch.autograd.grad(diff_iou_rotated_2d(a, boxes(1)).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_errors() -> None:
    a = torch.zeros(1, 2, 5)
    with pytest.raises(TypeError, match="box1 must be a tensor, got list"):
        diff_iou_rotated_2d([1], a)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"box1 must have shape \(B, N, 5\), got \(2, 5\)"):
        diff_iou_rotated_2d(a[0], a[0])
    with pytest.raises(ValueError, match=r"box2 must have the shape of box1, \(1, 2, 5\), got \(1, 1, 5\)"):
        diff_iou_rotated_2d(a, a[:, :1])
    with pytest.raises(ValueError, match=r"box1 must have shape \(B, N, 7\)"):
        diff_iou_rotated_3d(a, a)
    with pytest.raises(ValueError, match="box2 must be on cpu as box1 is, got meta"):
        diff_iou_rotated_2d(a, a.to("meta"))
