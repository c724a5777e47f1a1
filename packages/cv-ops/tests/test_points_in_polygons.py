"""points_in_polygons against shapely, and against what is known without computing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import points_in_polygons
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
)

OP = torch.ops.cv.points_in_polygons.default
SQUARE = [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]


def interior(corners: list[float]) -> shapely.Geometry:
    """What the outline encloses an odd number of times, as polygons without overlap."""
    parts = shapely.make_valid(shapely.Polygon(np.reshape(corners, (4, 2))))
    return shapely.union_all([p for p in shapely.get_parts(parts) if p.geom_type.endswith("Polygon")])


def oracle(points: Tensor, polygons: Tensor) -> Tensor:
    regions = np.array([interior(p) for p in polygons.tolist()])
    x, y = points.numpy().T
    return torch.from_numpy(shapely.contains_xy(regions[None], x[:, None], y[:, None])).double()


def exactly_inside(x: Fraction, y: Fraction, corners: list[tuple[Fraction, Fraction]]) -> bool:
    """For points and corners on a small grid: how often a ray that meets none of it crosses the outline."""
    odd = False
    for k in range(4):
        (ax, ay), (bx, by) = ((cx - x, cy - y) for cx, cy in (corners[k - 1], corners[k]))
        if ax * by == ay * bx and ax * bx + ay * by <= 0:
            return False
        side_a, side_b = 997 * ay - ax, 997 * by - bx  # of the ray in direction (997, 1)
        if side_a * side_b < 0:
            along = (997 * ax + ay) * side_b - (997 * bx + by) * side_a
            odd ^= along * side_b > 0
    return odd


def exact_oracle(points: Tensor, polygons: Tensor) -> Tensor:
    def fractions(t: Tensor) -> list[list[tuple[Fraction, Fraction]]]:
        return [
            [(Fraction(x), Fraction(y)) for x, y in zip(row[::2], row[1::2], strict=True)]
            for row in t.tolist()
        ]

    inside = [[exactly_inside(*p[0], q) for q in fractions(polygons)] for p in fractions(points)]
    return torch.tensor(inside, dtype=torch.float64)


def random_polygons(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10


def random_points(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_random_points(self, device: str, dtype: torch.dtype) -> None:
        """Half of the polygons cross themselves or are not convex."""
        args = (random_points(300), random_polygons(20))
        assert_matches_oracle(points_in_polygons, oracle, args, dtype=dtype, device=device)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(*[st.integers(0, 4)] * 8), min_size=1, max_size=4),
        st.sampled_from([1.0, 2.0**-20, 2.0**20]),
    )
    def test_points_on_edges_and_corners(self, rows: list[tuple[int, ...]], scale: float) -> None:
        """On a grid, half steps included: outlines, degenerate ones too, pass through points all the time."""
        polygons = torch.tensor(rows, dtype=torch.float64)
        steps = torch.arange(-1, 10, dtype=torch.float64) / 2
        points = torch.cartesian_prod(steps, steps)
        expected = exact_oracle(points, polygons)
        for dtype in (torch.float64, torch.float32):
            actual = points_in_polygons((points * scale).to(dtype), (polygons * scale).to(dtype))
            assert torch.equal(actual, expected.to(dtype))

    def test_the_direction_and_the_first_corner_do_not_matter(self) -> None:
        points, polygons = random_points(200), random_polygons(30)
        expected = points_in_polygons(points, polygons)
        corners = polygons.reshape(-1, 4, 2)
        assert torch.equal(points_in_polygons(points, corners.roll(1, 1).reshape(-1, 8)), expected)
        assert torch.equal(points_in_polygons(points, corners.flip(1).reshape(-1, 8)), expected)

    def test_a_few_by_hand(self) -> None:
        points = torch.tensor([[300.0, 300], [400, 400], [100, 100], [300, 250], [100, 0]])
        polygons = torch.tensor(
            [
                [200.0, 200, 400, 400, 500, 200, 400, 100],
                [400, 400, 500, 500, 600, 300, 500, 200],
                [300, 300, 600, 700, 700, 700, 700, 100],
            ]
        )
        assert points_in_polygons(points, polygons).tolist() == [
            [0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]
        ]  # fmt: skip

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0), (1, 1), (64, 1), (65, 2), (1000, 3)])
    def test_sizes(self, device: str, n: int, m: int) -> None:
        points, polygons = random_points(n), random_polygons(m)
        actual = points_in_polygons(points.to(device), polygons.to(device)).cpu()
        assert actual.shape == (n, m)
        if n and m:
            assert torch.equal(actual, oracle(points, polygons))

    def test_empty_of_any_kind_integers_and_mixed_dtypes(self) -> None:
        square = torch.tensor([SQUARE])
        assert points_in_polygons(torch.tensor([]), square).shape == (0, 1)
        assert points_in_polygons(torch.ones(1, 2), torch.tensor([])).shape == (1, 0)
        inside = points_in_polygons(torch.ones(1, 2).int(), square.int())
        assert inside.tolist() == [[1.0]]
        assert inside.dtype == torch.float32
        assert points_in_polygons(torch.ones(1, 2).half(), square.double()).dtype == torch.float64

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_contains_nothing(self, device: str, value: float) -> None:
        for k in range(8):
            broken = torch.tensor([SQUARE, SQUARE], device=device)
            broken[0, k] = value
            assert points_in_polygons(torch.ones(1, 2, device=device), broken).tolist() == [[0.0, 1.0]]
        points = torch.tensor([[value, 1.0], [1.0, value], [value, value]], device=device)
        assert not points_in_polygons(points, torch.tensor([SQUARE], device=device)).any()

    def test_beside_an_edge_by_the_last_bit(self) -> None:
        """The edge from (0, 0) to (3 t, t) at points (3 s, s), which float32 has; and their neighbours."""
        s = torch.arange(1, 2000, dtype=torch.float32)
        polygon = torch.tensor([[0.0, 0, 30000, 10000, 30000, 20000, -10000, 20000]])
        on = torch.stack([3 * s, s], 1)
        above = torch.stack([3 * s, s.nextafter(torch.tensor(math.inf))], 1)
        assert not points_in_polygons(on, polygon).any()
        assert points_in_polygons(above, polygon).all()


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        args = (random_points(6), random_polygons(4))
        check_operator(points_in_polygons, args, op=OP, device=device, gradient=False)

    def test_no_gradient(self) -> None:
        assert not points_in_polygons(
            random_points(2).requires_grad_(), random_polygons(2).requires_grad_()
        ).requires_grad

    def test_every_instruction_set(self) -> None:
        check_every_cpu_isa(points_in_polygons, (random_points(500), random_polygons(40)))

    def test_autocast_computes_in_float32(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            inside = points_in_polygons(random_points(2).half(), random_polygons(2).half())
        assert inside.dtype == torch.float32

    def test_cpu_equals_cuda(self) -> None:
        args = (random_points(700), random_polygons(30))
        check_cpu_equals_cuda(points_in_polygons, args, gradient=False)
        check_cpu_equals_cuda(points_in_polygons, args, gradient=False, dtype=torch.float64)
        check_cuda_stream(points_in_polygons, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        points, polygons = random_points(3), random_polygons(3)
        with pytest.raises(ValueError, match=r"points must have shape \(N, 2\) or be empty, got \(3, 8\)"):
            points_in_polygons(polygons, polygons)
        with pytest.raises(ValueError, match=r"polygons must have shape \(N, 8\) or be empty, got \(8,\)"):
            points_in_polygons(points, polygons[0])
        with pytest.raises(ValueError, match="polygons must be on cpu as points is, got meta"):
            points_in_polygons(points, polygons.to("meta"))
        with pytest.raises(TypeError, match="polygons must be a tensor, got list"):
            points_in_polygons(points, SQUARE)  # type: ignore[arg-type]

    def test_the_operator_below_checks_again(self) -> None:
        points, polygons = random_points(3), random_polygons(3)
        bad = [(polygons, polygons), (points, points), (points[0], polygons), (points, polygons.float())]
        for pair in bad:
            with pytest.raises(RuntimeError, match="points_in_polygons"):
                OP(*pair)
