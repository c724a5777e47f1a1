"""convex_iou and convex_giou against shapely, derivatives against differences of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from cv.ops import convex_giou, convex_iou
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)
from cv_testing.rotated import outlines, random_quadrilaterals

OP_IOU, OP_GIOU = torch.ops.cv.convex_iou.default, torch.ops.cv.convex_giou.default
SQUARE = [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]
SQUARE_POINTS = SQUARE + [1.0] * 10


def hulls(pointsets: Tensor) -> NDArray[np.object_]:
    return np.array([shapely.MultiPoint(p).convex_hull for p in pointsets.reshape(-1, 9, 2).tolist()], object)


def oracle(pointsets: Tensor, polygons: Tensor) -> Tensor:
    p, q = hulls(pointsets)[:, None], outlines(polygons)[None]
    shared = shapely.area(shapely.intersection(p, q))
    union = shapely.area(p) + shapely.area(q) - shared
    return torch.from_numpy(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def oracle_giou(pointsets: Tensor, polygons: Tensor) -> Tensor:
    p, q = hulls(pointsets), outlines(polygons)
    shared = shapely.area(shapely.intersection(p, q))
    union = shapely.area(p) + shapely.area(q) - shared
    enclosing = shapely.area(shapely.convex_hull(shapely.union(p, q)))
    return torch.from_numpy(shared / union - (enclosing - union) / enclosing)


def oracle_derivative(pointsets: Tensor, polygons: Tensor, step: float = 1e-5) -> Tensor:
    columns = []
    for k in range(18):
        delta = torch.zeros(18, dtype=torch.float64)
        delta[k] = step
        more, less = oracle_giou(pointsets + delta, polygons), oracle_giou(pointsets - delta, polygons)
        columns.append((more - less) / (2 * step))
    return torch.stack(columns, 1)


def random_pointsets(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 9, 2, generator=g, dtype=torch.float64) * 6
    return (points + torch.rand(n, 1, 2, generator=g, dtype=torch.float64) * 6).reshape(n, 18)


class TestIou:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_random(self, device: str, dtype: torch.dtype) -> None:
        args = (random_pointsets(30), random_quadrilaterals(40))
        expected = oracle(*args)
        assert (expected > 0.3).sum() > 100
        assert (expected == 0).any()
        assert_matches_oracle(convex_iou, oracle, args, dtype=dtype, device=device)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=9, max_size=9),
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=4),
    )
    def test_touching_nested_and_degenerate_shapes(
        self, points: list[tuple[int, int]], corners: list[tuple[int, int]]
    ) -> None:
        """On a grid: equal points, points on a line and edges that coincide all the time."""
        outline = shapely.Polygon(corners)
        if not outline.is_valid:
            corners = sorted(corners[:3]) + sorted(corners[:3])[2:]  # a triangle, or a line
        pointset, polygon = (torch.tensor(v, dtype=torch.float64).reshape(1, -1) for v in (points, corners))
        torch.testing.assert_close(
            convex_iou(pointset, polygon), oracle(pointset, polygon), atol=1e-12, rtol=1e-12
        )

    def test_slightly_turned_shapes_are_as_exact(self) -> None:
        """Sides that are nearly parallel meet in ill-defined points; the area must not care."""
        corners = torch.tensor([[3.0, 1.0], [7.0, 2.0], [6.0, 6.0], [2.0, 5.0]], dtype=torch.float64)
        pointset = torch.cat([corners, corners.mean(0).expand(5, 2)]).reshape(1, 18)
        for exponent in range(-17, 0):
            c, s = math.cos(10.0**exponent), math.sin(10.0**exponent)
            turned = (corners @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)).reshape(1, 8)
            torch.testing.assert_close(
                convex_iou(pointset, turned), oracle(pointset, turned), atol=1e-11, rtol=0
            )

    def test_the_order_of_points_and_corners_does_not_matter(self) -> None:
        pointsets, polygons = random_pointsets(20), random_quadrilaterals(20)
        expected = convex_iou(pointsets, polygons)
        shuffled = pointsets.reshape(-1, 9, 2)[:, torch.randperm(9)].reshape(-1, 18)
        around = polygons.reshape(-1, 4, 2)
        for other in (around.roll(1, 1), around.flip(1)):
            actual = convex_iou(shuffled, other.reshape(-1, 8))
            torch.testing.assert_close(actual, expected, atol=1e-14, rtol=1e-12)

    def test_far_from_the_origin(self) -> None:
        pointsets = (random_pointsets(20) * 256).round() / 256
        polygons = (random_quadrilaterals(20) * 256).round() / 256
        far = convex_iou(pointsets + 2.0**40, polygons + 2.0**40)
        torch.testing.assert_close(far, convex_iou(pointsets, polygons), atol=1e-12, rtol=0)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0), (1, 1), (2, 700), (700, 2)])
    def test_sizes(self, device: str, m: int, n: int) -> None:
        pointsets, polygons = random_pointsets(m), random_quadrilaterals(n)
        actual = convex_iou(pointsets.to(device), polygons.to(device)).cpu()
        assert actual.shape == (m, n)
        if m and n:
            torch.testing.assert_close(actual, oracle(pointsets, polygons), atol=1e-9, rtol=0)

    def test_empty_of_any_kind_integers_and_mixed_dtypes(self) -> None:
        points, square = torch.tensor([SQUARE_POINTS]), torch.tensor([SQUARE])
        assert convex_iou(torch.tensor([]), square).shape == (0, 1)
        assert convex_iou(points, torch.tensor([])).shape == (1, 0)
        assert [t.shape for t in convex_giou(torch.tensor([]), torch.tensor([]))] == [(0,), (0, 18)]
        assert convex_iou(points.int(), square.int()).tolist() == [[1.0]]
        assert convex_iou(points.half(), square.double()).dtype == torch.float64

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_number_that_is_not_finite_gives_nan(self, device: str, value: float) -> None:
        points, square = (
            torch.tensor([SQUARE_POINTS] * 2, device=device),
            torch.tensor([SQUARE] * 2, device=device),
        )
        for k in range(18):
            broken = points.clone()
            broken[0, k] = value
            assert convex_iou(broken, square).isnan().tolist() == [[True, True], [False, False]]
            giou, grad = convex_giou(broken, square)
            assert giou.isnan().tolist() == [True, False]
            assert grad.isnan().all(1).tolist() == [True, False]
            assert not grad[1].isnan().any()
        for k in range(8):
            broken = square.clone()
            broken[1, k] = value
            assert convex_iou(points, broken).isnan().tolist() == [[False, True], [False, True]]
            assert convex_giou(points, broken)[0].isnan().tolist() == [False, True]


class TestGiou:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_random(self, device: str, dtype: torch.dtype) -> None:
        args = (random_pointsets(200), random_quadrilaterals(200))
        assert (oracle_giou(*args) < 0).any()
        assert_matches_oracle(
            lambda p, q: convex_giou(p, q)[0], oracle_giou, args, dtype=dtype, device=device
        )

    @pytest.mark.parametrize("device", DEVICES)
    def test_derivative(self, device: str) -> None:
        pointsets, polygons = random_pointsets(200, 2), random_quadrilaterals(200, 3)
        _, grad = convex_giou(pointsets.to(device), polygons.to(device))
        torch.testing.assert_close(grad.cpu(), oracle_derivative(pointsets, polygons), atol=1e-7, rtol=1e-6)

    def test_derivative_in_lower_precision(self) -> None:
        pointsets, polygons = random_pointsets(50, 4).float(), random_quadrilaterals(50, 5).float()
        _, expected = convex_giou(pointsets.double(), polygons.double())
        torch.testing.assert_close(
            convex_giou(pointsets, polygons)[1].double(), expected, atol=1e-4, rtol=1e-4
        )

    def test_at_the_maximum_the_derivative_is_0(self) -> None:
        giou, grad = convex_giou(torch.tensor([SQUARE_POINTS]), torch.tensor([SQUARE]))
        assert giou.tolist() == [1.0]
        assert not grad.any()

    def test_climbing_along_the_derivative_reaches_the_maximum(self) -> None:
        polygon = torch.tensor([[3.0, 1.0, 7.0, 2.0, 6.0, 6.0, 2.0, 5.0]], dtype=torch.float64)
        points = random_pointsets(1, 8)
        for step in range(4000):
            giou, grad = convex_giou(points, polygon)
            points = points + grad * 3 * 0.999**step
        assert giou.item() > 0.97

    def test_points_and_polygons_without_area(self) -> None:
        spot, line = torch.ones(1, 18), torch.tensor([[0.0, 0, 1, 1] * 4 + [2.0, 2.0]])
        square, nothing = torch.tensor([SQUARE]), torch.ones(1, 8)
        for points in (spot, line):
            giou, grad = convex_giou(points, square)
            assert giou.tolist() == [0.0]  # no overlap, and the square encloses both
            assert grad.isfinite().all()
            assert convex_iou(points, square).tolist() == [[0.0]]
        assert convex_giou(spot, nothing)[0].tolist() == [0.0]
        assert not convex_giou(spot, nothing)[1].any()


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        iou, giou = (
            (random_pointsets(5), random_quadrilaterals(4)),
            (random_pointsets(4), random_quadrilaterals(4)),
        )
        check_operator(convex_iou, iou, op=OP_IOU, device=device, gradient=False)
        check_operator(convex_giou, giou, op=OP_GIOU, device=device, gradient=False)

    def test_no_gradient(self) -> None:
        points, polygons = random_pointsets(2).requires_grad_(), random_quadrilaterals(2).requires_grad_()
        assert not convex_iou(points, polygons).requires_grad
        assert not any(t.requires_grad for t in convex_giou(points, polygons))

    def test_autocast_computes_in_float32(self) -> None:
        points, polygons = random_pointsets(2).half(), random_quadrilaterals(2).half()
        with torch.autocast("cpu", torch.bfloat16):
            assert convex_iou(points, polygons).dtype == torch.float32
            assert all(t.dtype == torch.float32 for t in convex_giou(points, polygons))

    def test_cpu_equals_cuda(self) -> None:
        for fn in (convex_iou, convex_giou):
            args = (random_pointsets(300, 9), random_quadrilaterals(300, 10))
            check_cpu_equals_cuda(fn, args, gradient=False, dtype=torch.float64)
            check_cpu_equals_cuda(lambda p, q, fn=fn: fn(p, q), args, gradient=False, scale=10)
            check_cuda_stream(fn, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        points, polygons = random_pointsets(3), random_quadrilaterals(3)
        for fn in (convex_iou, convex_giou):
            with pytest.raises(
                ValueError, match=r"pointsets must have shape \(N, 18\) or be empty, got \(3, 8\)"
            ):
                fn(polygons, polygons)
            with pytest.raises(
                ValueError, match=r"polygons must have shape \(N, 8\) or be empty, got \(8,\)"
            ):
                fn(points, polygons[0])
            with pytest.raises(ValueError, match="polygons must be on cpu as pointsets is, got meta"):
                fn(points, polygons.to("meta"))
            with pytest.raises(TypeError, match="polygons must be a tensor, got list"):
                fn(points, SQUARE)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must have the same length, got 3 and 2"):
            convex_giou(points, polygons[:2])

    def test_the_operators_below_check_again(self) -> None:
        points, polygons = random_pointsets(3), random_quadrilaterals(3)
        bad = [(polygons, polygons), (points, points), (points[0], polygons), (points, polygons.float())]
        for pair in bad:
            for op in (OP_IOU, OP_GIOU):
                with pytest.raises(RuntimeError, match="convex_iou"):
                    op(*pair)
        with pytest.raises(RuntimeError, match="as many polygons as pointsets"):
            OP_GIOU(points, polygons[:2])
