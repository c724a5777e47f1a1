"""bbox_overlaps against rational arithmetic and a float64 oracle written from the definition."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import bbox_overlaps
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_close,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_every_cpu_isa,
    check_gradient,
    check_operator,
)

OP = torch.ops.cv.bbox_overlaps.default


def exact(a: list[int], b: list[int], mode: str, offset: int) -> float:
    """One overlap by counting with fractions."""
    sides = [max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + offset, 0) for k in (0, 1)]
    area_a, area_b = ((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b))
    inter = sides[0] * sides[1]
    base = max(area_a if mode == "iof" else area_a + area_b - inter, offset)
    return float(Fraction(inter, base)) if inter else 0.0


def oracle(a: Tensor, b: Tensor, *, mode: str = "iou", aligned: bool = False, offset: int = 0) -> Tensor:
    """One box at a time, differentiable: union and intersection of intervals, as products of lengths."""

    def one(p: Tensor, q: Tensor) -> Tensor:
        width = (torch.min(p[2], q[2]) - torch.max(p[0], q[0]) + offset).clamp(min=0)
        height = (torch.min(p[3], q[3]) - torch.max(p[1], q[1]) + offset).clamp(min=0)
        areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (p, q)]
        inter = width * height
        if inter == 0:
            return inter
        return inter / (areas[0] if mode == "iof" else areas[0] + areas[1] - inter).clamp(min=offset)

    if aligned:
        return torch.stack([one(p, q) for p, q in zip(a, b, strict=True)])
    return torch.stack([torch.stack([one(p, q) for q in b]) for p in a])


def random_boxes(n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g, dtype=torch.float64) * 5
    return torch.cat([low, low + 0.5 + torch.rand(n, 2, generator=g, dtype=torch.float64) * 4], 1)


class TestDocumented:
    def test_example(self) -> None:
        a = torch.tensor([[0.0, 0, 10, 10], [10, 10, 20, 20], [32, 32, 38, 42]])
        b = torch.tensor([[0.0, 0, 10, 20], [0, 10, 10, 19], [10, 10, 20, 20]])
        expected = torch.tensor([[0.5, 0, 0], [0, 0, 1], [0, 0, 0]])
        torch.testing.assert_close(bbox_overlaps(a, b), expected)

    @pytest.mark.parametrize("device", DEVICES)
    def test_empty(self, device: str) -> None:
        empty = torch.tensor([], device=device)
        some = torch.tensor([[0.0, 0, 10, 9]], device=device)
        assert bbox_overlaps(empty, some).shape == (0, 1)
        assert bbox_overlaps(some, empty).shape == (1, 0)
        assert bbox_overlaps(empty, empty).shape == (0, 0)
        assert bbox_overlaps(empty, empty, aligned=True).shape == (0,)
        assert bbox_overlaps(some[:0], some).shape == (0, 1)


class TestValues:
    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(st.tuples(*[st.integers(-8, 8)] * 4), min_size=1, max_size=6),
        st.lists(st.tuples(*[st.integers(-8, 8)] * 4), min_size=1, max_size=6),
        st.sampled_from(["iou", "iof"]),
        st.integers(0, 1),
    )
    def test_any_integer_boxes(
        self, a: list[tuple[int, ...]], b: list[tuple[int, ...]], mode: str, offset: int
    ) -> None:
        """Inverted and empty boxes included; correctly rounded, since all terms are exact."""
        result = bbox_overlaps(torch.tensor(a).double(), torch.tensor(b).double(), mode, offset=offset)
        expected = [[exact(list(p), list(q), mode, offset) for q in b] for p in a]
        assert result.tolist() == expected

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("mode", ["iou", "iof"])
    @pytest.mark.parametrize("offset", [0, 1])
    def test_pairwise(self, device: str, dtype: torch.dtype, mode: str, offset: int) -> None:
        args = (random_boxes(7, 0).requires_grad_(), random_boxes(5, 1).requires_grad_())
        assert_matches_oracle(
            lambda a, b: bbox_overlaps(a, b, mode, offset=offset),
            lambda a, b: oracle(a, b, mode=mode, offset=offset),
            args,
            dtype=dtype,
            device=device,
            backward=dtype in (torch.float64, torch.float32),
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("mode", ["iou", "iof"])
    def test_aligned(self, device: str, dtype: torch.dtype, mode: str) -> None:
        assert_matches_oracle(
            lambda a, b: bbox_overlaps(a, b, mode, aligned=True),
            lambda a, b: oracle(a, b, mode=mode, aligned=True),
            (random_boxes(33, 0), random_boxes(33, 1)),
            dtype=dtype,
            device=device,
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 1000), (1000, 3), (65, 257), (300, 300)])
    def test_sizes_against_the_diagonal_and_symmetry(self, device: str, m: int, n: int) -> None:
        a, b = random_boxes(m, 2).to(device), random_boxes(n, 3).to(device)
        pairs = bbox_overlaps(a, b)
        assert_close(pairs, bbox_overlaps(b, a).T, dtype=torch.float64)
        k = min(m, n)
        assert_close(pairs.diagonal(), bbox_overlaps(a[:k], b[:k], aligned=True), dtype=torch.float64)
        assert ((pairs >= 0) & (pairs <= 1)).all()
        assert_close(bbox_overlaps(a, a).diagonal(), torch.ones(m), dtype=torch.float64)

    @pytest.mark.parametrize("device", DEVICES)
    def test_odd_boxes(self, device: str) -> None:
        nan, inf = math.nan, math.inf
        good = torch.tensor([[0.0, 0, 4, 4]], device=device)
        odd = torch.tensor(
            [[nan, 0, 4, 4], [0, 0, 4, nan], [0, 0, inf, 4], [-inf, -inf, inf, inf],
             [2, 2, 2, 2], [4, 4, 0, 0], [0, 0, 4, 0]], device=device,
        )  # fmt: skip
        row = bbox_overlaps(good, odd)[0].tolist()
        assert all(math.isnan(v) for v in row[:4])
        assert row[4:] == [0, 0, 0]
        column = bbox_overlaps(odd, good, "iof")[:, 0].tolist()
        assert all(math.isnan(v) for v in column[:4])
        assert column[4:] == [0, 0, 0]
        assert bbox_overlaps(odd[4:], odd[4:]).abs().max() == 0  # no 0 / 0

    def test_tiny_boxes_keep_their_ratio(self) -> None:
        box = torch.tensor([[0.0, 0.0, 1e-15, 1e-15]])
        half = torch.tensor([[0.0, 0.0, 1e-15, 0.5e-15]])
        torch.testing.assert_close(bbox_overlaps(box, half), torch.tensor([[0.5]]))

    def test_a_denominator_below_the_offset_counts_as_the_offset(self) -> None:
        box = torch.tensor([[0.0, 0.0, -0.5, -0.5]])  # with offset 1 half a pixel wide and high
        for mode in ("iou", "iof"):
            assert bbox_overlaps(box, box, mode, offset=1).tolist() == [[0.25]]

    def test_integer_and_mixed_boxes(self) -> None:
        a = torch.tensor([[0, 0, 4, 4]])
        assert bbox_overlaps(a, a.half()).dtype == torch.float16
        assert bbox_overlaps(a, a).dtype == torch.float32
        assert bbox_overlaps(a, a.double()).item() == 1


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("aligned", [False, True])
    def test_operator(self, device: str, aligned: bool) -> None:
        a, b = random_boxes(4, 4).requires_grad_(), random_boxes(4, 5).requires_grad_()
        check_operator(
            lambda a, b: bbox_overlaps(a, b, aligned=aligned),
            (a, b),
            op=OP,
            op_args=(a, b, False, aligned, 0),
            device=device,
            dynamic_shapes=None
            if aligned
            else [{0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}],
        )

    def test_second_derivative(self) -> None:
        a, b = random_boxes(3, 6).requires_grad_(), random_boxes(2, 7).requires_grad_()
        for mode in ("iou", "iof"):
            check_gradient(lambda a, b, mode=mode: bbox_overlaps(a, b, mode), (a, b))
            assert torch.autograd.gradgradcheck(lambda a, b, mode=mode: bbox_overlaps(a, b, mode), (a, b))

    def test_gradient_to_one_side_only(self) -> None:
        a, b = random_boxes(3, 6), random_boxes(2, 7).requires_grad_()
        (grad,) = torch.autograd.grad(bbox_overlaps(a, b).sum(), b)
        assert grad.shape == b.shape

    def test_backends_agree(self) -> None:
        check_every_cpu_isa(bbox_overlaps, (random_boxes(40, 8), random_boxes(70, 9)))
        check_cpu_equals_cuda(bbox_overlaps, (random_boxes(400, 8), random_boxes(700, 9)))

    def test_autocast_computes_in_float32(self) -> None:
        a, b = random_boxes(3, 1).bfloat16(), random_boxes(3, 2).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            assert bbox_overlaps(a, b).dtype == torch.float32


class TestErrors:
    def test_messages(self) -> None:
        a = random_boxes(3, 1)
        with pytest.raises(ValueError, match="mode must be 'iou' or 'iof', got 'giou'"):
            bbox_overlaps(a, a, mode="giou")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="offset must be 0 or 1, got 3"):
            bbox_overlaps(a, a, offset=3)
        with pytest.raises(ValueError, match=r"bboxes2 must have shape \(N, 4\) or be empty, got \(3, 5\)"):
            bbox_overlaps(a, torch.zeros(3, 5))
        with pytest.raises(ValueError, match="bboxes2 must be on cpu as bboxes1 is, got meta"):
            bbox_overlaps(a, a.to("meta"))
        with pytest.raises(ValueError, match="same length with aligned=True, got 3 and 2"):
            bbox_overlaps(a, a[:2], aligned=True)
