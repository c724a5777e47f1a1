"""min_area_polygons against rectangles along every pair of points, and what is known without computing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import min_area_polygons
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    TOLERANCES,
    assert_close,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP = torch.ops.cv.min_area_polygons.default


def smallest_area(points: list[list[float]]) -> float:
    """Of the rectangles with a side along the line through any two points."""
    areas = []
    for (ax, ay), (bx, by) in itertools.combinations(points, 2):
        length = math.hypot(bx - ax, by - ay)
        if length == 0:
            continue
        c, s = (bx - ax) / length, (by - ay) / length
        along = [(x - ax) * c + (y - ay) * s for x, y in points]
        across = [(y - ay) * c - (x - ax) * s for x, y in points]
        areas.append((max(along) - min(along)) * (max(across) - min(across)))
    return min(areas, default=0.0)


def random_pointsets(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    shape = torch.randn(n, 2, 2, generator=g, dtype=torch.float64)
    return (torch.randn(n, 9, 2, generator=g, dtype=torch.float64) @ shape + 5).reshape(n, 18)


def check_rectangles(pointsets: Tensor, corners: Tensor, tolerance: float) -> None:
    """Rectangles in the documented order, around the points, and of the smallest area."""
    points, c = pointsets.double().reshape(-1, 9, 2), corners.double().reshape(-1, 4, 2)
    width, height = c[:, 0] - c[:, 1], c[:, 2] - c[:, 1]
    size = points.abs().amax((1, 2)) + 1
    near = {"atol": tolerance * size.max().item(), "rtol": 0}
    torch.testing.assert_close(c[:, 3] - c[:, 2], width, **near)
    areas = torch.tensor([smallest_area(p) for p in points.tolist()], dtype=torch.float64)
    own = (width * height.flip(1) * torch.tensor([1.0, -1.0])).sum(1)  # the cross product
    torch.testing.assert_close(own, areas, atol=tolerance * (size**2).max().item(), rtol=0)
    for side, other in ((width, height), (height, width)):
        length = side.norm(dim=1, keepdim=True)
        assert ((side * other).sum(1).abs() <= tolerance * size**2).all()
        unit = side / length.clamp(min=1e-300)
        along = ((points - c[:, 1:2]) * unit[:, None]).sum(2)
        wide = (
            length[:, 0] > 1e-3 * size
        )  # the direction of a shorter side is lost in the rounding of corners
        assert (along[wide] >= -tolerance * size[wide, None] * 10).all()
        assert (along[wide] <= length[wide] + tolerance * size[wide, None] * 10).all()
    assert (width >= -tolerance * size[:, None]).all()  # right, and down


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_random(self, device: str, dtype: torch.dtype) -> None:
        pointsets = random_pointsets(300).to(dtype)
        corners = min_area_polygons(pointsets.to(device)).cpu()
        assert corners.dtype == dtype
        if dtype in (torch.float64, torch.float32):
            check_rectangles(pointsets, corners, 2 * TOLERANCES[dtype][0])
        else:  # rounded corners are no rectangle: they are those of the same points in float32
            assert_close(corners, min_area_polygons(pointsets.float().to(device)).cpu(), dtype=dtype)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=9, max_size=9))
    def test_equal_points_and_points_on_a_line(self, points: list[tuple[int, int]]) -> None:
        pointset = torch.tensor(points, dtype=torch.float64).reshape(1, 18)
        check_rectangles(pointset, min_area_polygons(pointset), 1e-12)

    def test_by_hand(self) -> None:
        square = [1.0, 1, 2, 2, 1, 2, 2, 1, 1, 3, 3, 1, 2, 3, 3, 2, 1.5, 1.5]  # (3, 3) is missing
        line = [0.0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 0, 0]
        diamond = [2.0, 0, 4, 2, 2, 4, 0, 2] + [2.0] * 10
        tilted = [0.0, 0, 4, 3, 1, 7, -3, 4] + [0.5] * 10  # 5 x 5, its width at an angle of cos 4 / 5
        corners = min_area_polygons(
            torch.tensor([square, line, [7.0] * 18, diamond, tilted], dtype=torch.float64)
        )
        expected = torch.tensor(
            [
                [3.0, 1, 1, 1, 1, 3, 3, 3],
                [3.0, 3, 0, 0, 0, 0, 3, 3],
                [7.0] * 8,
                [4.0, 2, 2, 0, 0, 2, 2, 4],
                [4.0, 3, 0, 0, -3, 4, 1, 7],
            ],
            dtype=torch.float64,
        )
        torch.testing.assert_close(corners, expected, atol=1e-12, rtol=0)

    def test_the_order_of_points_does_not_matter(self) -> None:
        pointsets = random_pointsets(50)
        shuffled = pointsets.reshape(-1, 9, 2)[:, torch.randperm(9)].reshape(-1, 18)
        assert torch.equal(min_area_polygons(shuffled), min_area_polygons(pointsets))

    def test_far_from_the_origin(self) -> None:
        pointsets = (random_pointsets(50) * 256).round() / 256
        near, far = min_area_polygons(pointsets), min_area_polygons(pointsets + 2.0**30)
        torch.testing.assert_close(far - 2.0**30, near, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [0, 1, 700])
    def test_sizes(self, device: str, n: int) -> None:
        assert min_area_polygons(random_pointsets(n).to(device)).shape == (n, 8)

    def test_empty_of_any_kind_and_integers(self) -> None:
        assert min_area_polygons(torch.tensor([])).shape == (0, 8)
        assert min_area_polygons(torch.full((1, 18), 3)).tolist() == [[3.0] * 8]

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_number_that_is_not_finite_gives_nan(self, device: str, value: float) -> None:
        for k in range(18):
            pointsets = random_pointsets(2).to(device)
            pointsets[0, k] = value
            corners = min_area_polygons(pointsets)
            assert corners[0].isnan().all()
            assert corners[1].isfinite().all()


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        check_operator(min_area_polygons, (random_pointsets(5),), op=OP, device=device, gradient=False)

    def test_no_gradient(self) -> None:
        assert not min_area_polygons(random_pointsets(2).requires_grad_()).requires_grad

    def test_autocast_computes_in_float32(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert min_area_polygons(random_pointsets(2).half()).dtype == torch.float32

    def test_cpu_equals_cuda(self) -> None:
        args = (random_pointsets(300, 1),)
        check_cpu_equals_cuda(min_area_polygons, args, gradient=False, dtype=torch.float64)
        check_cuda_stream(min_area_polygons, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        with pytest.raises(
            ValueError, match=r"pointsets must have shape \(N, 18\) or be empty, got \(3, 8\)"
        ):
            min_area_polygons(torch.zeros(3, 8))
        with pytest.raises(TypeError, match="pointsets must be a tensor, got list"):
            min_area_polygons([1.0] * 18)  # type: ignore[arg-type]
        for bad in (torch.zeros(18), torch.zeros(3, 8)):
            with pytest.raises(RuntimeError, match="min_area_polygons: pointsets must be"):
                OP(bad)
        with pytest.raises(RuntimeError, match="not implemented for Int"):
            OP(torch.zeros(3, 18).int())
