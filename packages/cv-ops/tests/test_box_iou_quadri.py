"""box_iou_quadri against polygons intersected by shapely, and against what is known without computing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import box_iou_quadri, box_iou_rotated
from cv_testing.emulator import emulated
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
)
from cv_testing.rotated import (
    outlines,
    overlaps_of,
    polygon,
    random_quadrilaterals,
    random_rotated_boxes,
)

OP = torch.ops.cv.box_iou_quadri.default
SQUARE = [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]


def oracle(a: Tensor, b: Tensor, mode: str = "iou") -> Tensor:
    return torch.from_numpy(overlaps_of(outlines(a), outlines(b), mode))


def corners_of(boxes: Tensor) -> Tensor:
    """Rotated boxes as quadrilaterals."""
    around = [list(polygon(box).exterior.coords)[:4] for box in boxes.tolist()]
    return torch.tensor(around, dtype=torch.float64).reshape(-1, 8)


grid_corners = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=4)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("mode", ["iou", "iof"])
    def test_random(self, device: str, dtype: torch.dtype, mode: str) -> None:
        args = (random_quadrilaterals(30, 1), random_quadrilaterals(40, 2))
        expected = oracle(*args, mode)
        assert (expected > 0.3).sum() > 100
        assert (expected == 0).any()
        assert_matches_oracle(
            lambda p, q: box_iou_quadri(p, q, mode),  # type: ignore[arg-type]
            lambda p, q: oracle(p, q, mode),
            args,
            dtype=dtype,
            device=device,
        )

    @settings(max_examples=150, deadline=None)
    @given(grid_corners, grid_corners)
    def test_touching_nested_and_degenerate_shapes(
        self, first: list[tuple[int, int]], second: list[tuple[int, int]]
    ) -> None:
        """On a grid: equal corners, corners on a line and edges that coincide all the time."""
        simple = []
        for corners in (first, second):
            if not shapely.Polygon(corners).is_valid:
                corners = sorted(corners[:3]) + sorted(corners[:3])[2:]  # a triangle, or a line
            simple.append(torch.tensor(corners, dtype=torch.float64).reshape(1, -1))
        for mode in ("iou", "iof"):
            actual = box_iou_quadri(*simple, mode)
            torch.testing.assert_close(actual, oracle(*simple, mode), atol=1e-12, rtol=1e-12)

    def test_rectangles_are_rotated_boxes(self) -> None:
        a, b = random_rotated_boxes(40, seed=4), random_rotated_boxes(50, seed=5)
        for mode in ("iou", "iof"):
            actual = box_iou_quadri(corners_of(a), corners_of(b), mode)
            torch.testing.assert_close(actual, box_iou_rotated(a, b, mode), atol=1e-12, rtol=0)

    def test_slightly_turned_shapes_are_as_exact(self) -> None:
        """Sides that are nearly parallel meet in ill-defined points; the area must not care."""
        corners = random_quadrilaterals(6, 3).reshape(-1, 4, 2)
        for exponent in range(-17, 0):
            c, s = math.cos(10.0**exponent), math.sin(10.0**exponent)
            turned = corners @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
            pair = corners.reshape(-1, 8), turned.reshape(-1, 8)
            torch.testing.assert_close(box_iou_quadri(*pair), oracle(*pair), atol=1e-11, rtol=0)

    def test_where_corners_begin_and_which_way_they_go_does_not_matter(self) -> None:
        a, b = random_quadrilaterals(20, 6), random_quadrilaterals(20, 7)
        expected = box_iou_quadri(a, b)
        torch.testing.assert_close(box_iou_quadri(b, a).T, expected, atol=1e-14, rtol=1e-12)
        around = b.reshape(-1, 4, 2)
        for other in (around.roll(1, 1), around.flip(1)):
            torch.testing.assert_close(
                box_iou_quadri(a, other.reshape(-1, 8)), expected, atol=1e-14, rtol=1e-12
            )

    @pytest.mark.parametrize("device", DEVICES)
    def test_aligned_is_the_diagonal(self, device: str) -> None:
        a, b = random_quadrilaterals(60, 8).to(device), random_quadrilaterals(60, 9).to(device)
        for mode in ("iou", "iof"):
            assert torch.equal(box_iou_quadri(a, b, mode, True), box_iou_quadri(a, b, mode).diagonal())

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0), (1, 1), (2, 700), (700, 2)])
    def test_sizes(self, device: str, m: int, n: int) -> None:
        a, b = random_quadrilaterals(m, 10), random_quadrilaterals(n, 11)
        actual = box_iou_quadri(a.to(device), b.to(device)).cpu()
        assert actual.shape == (m, n)
        if m and n:
            torch.testing.assert_close(actual, oracle(a, b), atol=1e-9, rtol=0)

    def test_empty_of_any_kind(self) -> None:
        some = torch.tensor([SQUARE])
        assert box_iou_quadri(torch.tensor([]), some).shape == (0, 1)
        assert box_iou_quadri(some, torch.tensor([])).shape == (1, 0)
        assert box_iou_quadri(torch.tensor([]), torch.tensor([]), aligned=True).shape == (0,)

    def test_integers_and_mixed_dtypes_are_promoted(self) -> None:
        whole = torch.tensor([SQUARE]).long()
        assert box_iou_quadri(whole, whole).tolist() == [[1.0]]
        assert box_iou_quadri(whole, whole.half()).dtype == torch.float16
        assert box_iou_quadri(whole.float(), whole.double()).dtype == torch.float64


class TestOddBoxes:
    def test_identical_boxes(self) -> None:
        boxes = random_quadrilaterals(300, 12, span=1e4)
        for dtype in (torch.float32, torch.float64):
            same = box_iou_quadri(boxes.to(dtype), boxes.to(dtype), aligned=True)
            # The CPU computes float32 in double, CUDA in float32.
            atol = 1e-5 if emulated() and dtype == torch.float32 else 1e-12
            torch.testing.assert_close(same, torch.ones(300, dtype=dtype), atol=atol, rtol=0)
            assert (same <= 1).all()

    @pytest.mark.parametrize("device", DEVICES)
    def test_boxes_without_area_overlap_nothing(self, device: str) -> None:
        line, point = [0.0, 0.0, 1, 1, 2, 2, 1, 1], [1.0] * 8
        flat, solid = (torch.tensor(v, device=device) for v in ([line, point], [SQUARE]))
        for mode in ("iou", "iof"):
            assert not box_iou_quadri(flat, solid, mode).any()
            assert not box_iou_quadri(solid, flat, mode).any()
            assert not box_iou_quadri(flat, flat, mode).any()
            assert not box_iou_quadri(flat, flat, mode, aligned=True).any()

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_number_that_is_not_finite_gives_nan(self, device: str, value: float) -> None:
        solid = torch.tensor([SQUARE], device=device)
        for k in range(8):
            broken = solid.clone()
            broken[0, k] = value
            for pair in ((broken, solid), (solid, broken), (broken, broken)):
                assert box_iou_quadri(*pair).isnan().all(), k
                assert box_iou_quadri(*pair, aligned=True).isnan().all(), k
            three = torch.cat([solid, broken, solid])
            assert box_iou_quadri(three, three).isnan().tolist() == [
                [False, True, False], [True, True, True], [False, True, False]
            ]  # fmt: skip

    def test_a_box_that_crosses_itself_stays_within_0_and_1(self) -> None:
        g = torch.Generator().manual_seed(13)
        a, b = torch.rand(2, 200, 8, generator=g, dtype=torch.float64)
        for mode in ("iou", "iof"):
            values = box_iou_quadri(a, b, mode)
            assert ((values >= 0) & (values <= 1)).all()

    def test_huge_and_tiny_boxes(self) -> None:
        boxes = random_quadrilaterals(40, 14)
        expected = box_iou_quadri(boxes, boxes)
        for scale in (2.0**-300, 2.0**-100, 2.0**100, 2.0**300):
            assert torch.equal(box_iou_quadri(boxes * scale, boxes * scale), expected)

    def test_far_from_the_origin(self) -> None:
        """What is lost is what the coordinates themselves cannot hold, nothing more."""
        boxes = (random_quadrilaterals(40, 15) * 256).round() / 256
        moved = boxes + torch.tensor([2.0**40, -(2.0**40)]).double().repeat(4)
        torch.testing.assert_close(
            box_iou_quadri(moved, moved), box_iou_quadri(boxes, boxes), atol=1e-12, rtol=0
        )


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        args = (random_quadrilaterals(5, 16), random_quadrilaterals(4, 17))
        check_operator(
            box_iou_quadri, args, op=OP, op_args=(*args, False, False), device=device, gradient=False
        )

    def test_no_gradient(self) -> None:
        a = random_quadrilaterals(3).requires_grad_()
        assert not box_iou_quadri(a, a).requires_grad

    def test_every_instruction_set_and_number_of_threads_agree(self) -> None:
        a, b = random_quadrilaterals(100, 18), random_quadrilaterals(300, 19)
        check_every_cpu_isa(box_iou_quadri, (a, b))
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                results.append(box_iou_quadri(a, b))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(*results)

    def test_autocast_computes_in_float32(self) -> None:
        boxes = random_quadrilaterals(4).half()
        with torch.autocast("cpu", torch.bfloat16):
            assert box_iou_quadri(boxes, boxes).dtype == torch.float32

    def test_cpu_equals_cuda(self) -> None:
        args = (random_quadrilaterals(100, 20), random_quadrilaterals(80, 21))
        check_cpu_equals_cuda(box_iou_quadri, args, gradient=False)
        check_cpu_equals_cuda(box_iou_quadri, args, gradient=False, dtype=torch.float64)
        check_cuda_stream(box_iou_quadri, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        boxes = random_quadrilaterals(3)
        with pytest.raises(TypeError, match="bboxes1 must be a tensor, got ndarray"):
            box_iou_quadri(np.zeros((1, 8)), boxes)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="mode must be 'iou' or 'iof', got 'giou'"):
            box_iou_quadri(boxes, boxes, "giou")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"bboxes1 must have shape \(N, 8\) or be empty, got \(3, 4\)"):
            box_iou_quadri(boxes[:, :4], boxes)
        with pytest.raises(ValueError, match=r"bboxes2 must have shape \(N, 8\) or be empty, got \(8,\)"):
            box_iou_quadri(boxes, boxes[0])
        with pytest.raises(ValueError, match=r"same length with aligned=True, got 3 and 2"):
            box_iou_quadri(boxes, boxes[:2], aligned=True)
        with pytest.raises(ValueError, match="bboxes2 must be on cpu as bboxes1 is, got meta"):
            box_iou_quadri(boxes, boxes.to("meta"))

    def test_the_operator_below_checks_again(self) -> None:
        boxes = random_quadrilaterals(3)
        for bad in ((boxes[:, :4], boxes), (boxes, boxes[:, :4]), (boxes, boxes.float()), (boxes[0], boxes)):
            with pytest.raises(RuntimeError, match="box_iou_quadri"):
                OP(*bad, False, False)
        with pytest.raises(RuntimeError, match="aligned"):
            OP(boxes, boxes[:2], False, True)
