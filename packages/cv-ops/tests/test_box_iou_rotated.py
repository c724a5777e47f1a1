"""box_iou_rotated against polygons intersected by shapely, and against what is known without computing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import bbox_overlaps, box_iou_rotated
from cv.ops._load import available_cpu_isas, forced_cpu_isa
from cv_testing.emulator import emulated
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)
from cv_testing.rotated import exact_overlaps, random_rotated_boxes

OP = torch.ops.cv.box_iou_rotated.default


def oracle(a: Tensor, b: Tensor, mode: str = "iou") -> Tensor:
    return torch.from_numpy(exact_overlaps(a, b, mode))


def iou(a: list[float], b: list[float]) -> float:
    pair = torch.tensor([a, b], dtype=torch.float64)
    return box_iou_rotated(pair[:1], pair[1:]).item()


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("mode", ["iou", "iof"])
    def test_random_boxes(self, device: str, dtype: torch.dtype, mode: str) -> None:
        a, b = random_rotated_boxes(40, seed=1), random_rotated_boxes(50, seed=2)
        assert_matches_oracle(
            lambda p, q: box_iou_rotated(p, q, mode),  # type: ignore[arg-type]
            lambda p, q: oracle(p, q, mode),
            (a, b),
            dtype=dtype,
            device=device,
        )

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(-4, 4),
                st.integers(-4, 4),
                st.integers(1, 6),
                st.integers(1, 6),
                st.integers(-8, 8),
            ),
            min_size=2,
            max_size=12,
        )
    )
    def test_touching_nested_and_identical_boxes(self, rows: list[tuple[int, ...]]) -> None:
        """On a grid, at multiples of 45 degrees: sides and corners coincide all the time."""
        boxes = torch.tensor(rows, dtype=torch.float64) * torch.tensor([1, 1, 1, 1, math.pi / 4])
        np.testing.assert_allclose(box_iou_rotated(boxes, boxes), exact_overlaps(boxes, boxes), atol=1e-9)

    def test_slightly_turned_boxes_are_as_exact(self) -> None:
        """Sides that are nearly parallel meet in ill-defined points; the area must not care."""
        box = random_rotated_boxes(1, seed=3)
        for exponent in range(-17, 0):
            turned = box + torch.tensor([0, 0, 0, 0, 10.0**exponent], dtype=torch.float64)
            np.testing.assert_allclose(
                box_iou_rotated(box, turned), exact_overlaps(box, turned), atol=1e-11, err_msg=str(exponent)
            )

    def test_without_rotation_it_is_the_iou_of_corners(self) -> None:
        boxes = random_rotated_boxes(200, span=50, size=20)
        boxes[:, 4] = 0
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], 1)
        torch.testing.assert_close(
            box_iou_rotated(boxes, boxes), bbox_overlaps(corners, corners), atol=1e-12, rtol=0
        )

    def test_symmetry_translation_rotation_and_scale(self) -> None:
        a, b = random_rotated_boxes(30, seed=4), random_rotated_boxes(30, seed=5)
        expected = box_iou_rotated(a, b)
        torch.testing.assert_close(box_iou_rotated(b, a).T, expected, atol=1e-12, rtol=0)
        angle = 0.7
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
        )

        def moved(boxes: Tensor) -> Tensor:
            centre = 3 * boxes[:, :2] @ turn.T + torch.tensor([100.0, -50.0])
            return torch.cat([centre, 3 * boxes[:, 2:4], boxes[:, 4:] + angle], 1)

        torch.testing.assert_close(box_iou_rotated(moved(a), moved(b)), expected, atol=1e-11, rtol=0)

    def test_clockwise(self) -> None:
        # In image coordinates (y down) the width of a box at +45 degrees points right and down.
        long, spot = [0.0, 0.0, 10.0, 1.0, math.pi / 4], [3.0, 3.0, 0.5, 0.5, 0.0]
        pair = torch.tensor([spot, long])
        assert box_iou_rotated(pair[:1], pair[1:], "iof").item() == pytest.approx(1)
        assert box_iou_rotated(pair[:1], pair[1:], "iof", False, False).item() == 0
        a, b = random_rotated_boxes(20, seed=6), random_rotated_boxes(20, seed=7)
        mirror = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0])
        assert torch.equal(box_iou_rotated(a, b, clockwise=False), box_iou_rotated(a * mirror, b * mirror))

    @pytest.mark.parametrize("device", DEVICES)
    def test_aligned_is_the_diagonal(self, device: str) -> None:
        a = random_rotated_boxes(60, seed=8).to(device)
        b = random_rotated_boxes(60, seed=9).to(device)
        for mode in ("iou", "iof"):
            assert torch.equal(box_iou_rotated(a, b, mode, True), box_iou_rotated(a, b, mode).diagonal())

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0), (1, 1), (2, 1500), (1500, 2)])
    def test_sizes(self, device: str, m: int, n: int) -> None:
        a, b = random_rotated_boxes(m, seed=10), random_rotated_boxes(n, seed=11)
        actual = box_iou_rotated(a.to(device), b.to(device)).cpu()
        assert actual.shape == (m, n)
        if m and n:
            np.testing.assert_allclose(actual, exact_overlaps(a, b), atol=1e-9)

    def test_empty_of_any_kind(self) -> None:
        some = torch.tensor([[0.0, 0, 1, 1, 0]])
        assert box_iou_rotated(torch.tensor([]), some).shape == (0, 1)
        assert box_iou_rotated(some, torch.tensor([])).shape == (1, 0)
        assert box_iou_rotated(torch.tensor([]), torch.tensor([]), aligned=True).shape == (0,)

    def test_integers_and_mixed_dtypes_are_promoted(self) -> None:
        whole = torch.tensor([[0, 0, 2, 2, 0]])
        assert box_iou_rotated(whole, whole).tolist() == [[1.0]]
        assert box_iou_rotated(whole, whole.half()).dtype == torch.float16
        assert box_iou_rotated(whole.float(), whole.double()).dtype == torch.float64


class TestOddBoxes:
    def test_disjoint_boxes_are_exactly_0(self) -> None:
        boxes = random_rotated_boxes(200, span=40, seed=22)
        expected, actual = exact_overlaps(boxes, boxes), box_iou_rotated(boxes, boxes).numpy()
        assert (actual[expected == 0] == 0).all()
        assert (actual[expected > 1e-12] > 0).all()
        squares = torch.tensor([[0.0, 0, 2, 2, 0], [2, 0, 2, 2, 0], [2, 2, 2, 2, 0]]).double()
        assert torch.equal(box_iou_rotated(squares, squares), torch.eye(3).double())  # touching

    def test_identical_boxes(self) -> None:
        boxes = random_rotated_boxes(300, span=1e4, size=100, seed=12)
        for dtype in (torch.float32, torch.float64):
            same = box_iou_rotated(boxes.to(dtype), boxes.to(dtype), aligned=True)
            # The CPU computes float32 in double, CUDA in float32.
            atol = 1e-6 if emulated() and dtype == torch.float32 else 1e-13
            torch.testing.assert_close(same, torch.ones(300, dtype=dtype), atol=atol, rtol=0)
            assert (same <= 1).all()

    @pytest.mark.parametrize("device", DEVICES)
    def test_boxes_without_area_overlap_nothing(self, device: str) -> None:
        boxes = torch.tensor(
            [[0.0, 0, 0, 4, 0.3], [0, 0, 4, 0, 0.3], [0, 0, 0, 0, 0], [0, 0, -4, 4, 0], [0, 0, -4, -4, 0]],
            device=device,
        )
        solid = torch.tensor([[0.0, 0, 4, 4, 0]], device=device)
        for mode in ("iou", "iof"):
            assert not box_iou_rotated(boxes, solid, mode).any()
            assert not box_iou_rotated(solid, boxes, mode).any()
            assert not box_iou_rotated(boxes, boxes, mode).any()
            assert not box_iou_rotated(boxes, boxes, mode, aligned=True).any()

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_number_that_is_not_finite_gives_nan(self, device: str, value: float) -> None:
        solid = torch.tensor([[0.0, 0, 4, 4, 0.5]], device=device)
        for k in range(5):
            broken = solid.clone()
            broken[0, k] = value
            for pair in ((broken, solid), (solid, broken), (broken, broken)):
                assert box_iou_rotated(*pair).isnan().all(), k
                assert box_iou_rotated(*pair, aligned=True).isnan().all(), k
            three = torch.cat([solid, broken, solid])
            assert box_iou_rotated(three, three).isnan().tolist() == [
                [False, True, False], [True, True, True], [False, True, False]
            ]  # fmt: skip

    def test_huge_and_tiny_boxes(self) -> None:
        boxes = random_rotated_boxes(40, seed=13)
        expected = exact_overlaps(boxes, boxes)
        for scale in (1e-100, 1e-30, 1e30, 1e100):
            scaled = boxes * torch.tensor([scale, scale, scale, scale, 1], dtype=torch.float64)
            np.testing.assert_allclose(box_iou_rotated(scaled, scaled), expected, atol=1e-9)

    def test_far_from_the_origin(self) -> None:
        """What is lost is what the coordinates themselves cannot hold, nothing more."""
        boxes = (random_rotated_boxes(40, seed=14) * 256).round() / 256
        moved = boxes + torch.tensor([2.0**40, -(2.0**40), 0, 0, 0])
        torch.testing.assert_close(
            box_iou_rotated(moved, moved), box_iou_rotated(boxes, boxes), atol=1e-12, rtol=0
        )

    def test_a_needle_across_a_square(self) -> None:
        needle, square = [0.5, 0.5, 1000.0, 1e-6, 0.3], [0.5, 0.5, 1.0, 1.0, 0.0]
        crossing = 1e-6 / math.cos(0.3)  # a parallelogram: the needle's thickness along y, over a width of 1
        assert iou(needle, square) == pytest.approx(crossing / (1e-3 + 1 - crossing), rel=1e-9)

    def test_far_apart_sizes(self) -> None:
        a, b = [0.0, 0.0, 1e6, 1e6, 0.3], [1.0, 2.0, 1e-3, 1e-3, 0.7]
        pair = torch.tensor([a, b], dtype=torch.float64)
        assert box_iou_rotated(pair[1:], pair[:1], "iof").item() == pytest.approx(1, abs=1e-12)
        assert iou(a, b) == pytest.approx(1e-18, rel=1e-9)


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        a, b = random_rotated_boxes(5, seed=15), random_rotated_boxes(4, seed=16)
        check_operator(
            lambda p, q: box_iou_rotated(p, q, clockwise=False),
            (a, b),
            op=OP,
            op_args=(a, b, False, False),
            device=device,
            gradient=False,
        )

    def test_no_gradient(self) -> None:
        a = random_rotated_boxes(3).requires_grad_()
        assert not box_iou_rotated(a, a).requires_grad

    def test_every_instruction_set_gives_the_same_bits(self) -> None:
        a, b = random_rotated_boxes(100, seed=17), random_rotated_boxes(600, seed=18)
        results = []
        for isa in available_cpu_isas():
            with forced_cpu_isa(isa):
                results.append(box_iou_rotated(a, b))
        for other in results[1:]:
            assert torch.equal(results[0], other)

    def test_the_number_of_threads_does_not_matter(self) -> None:
        boxes = random_rotated_boxes(400, seed=19)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                results.append(box_iou_rotated(boxes, boxes))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(*results)

    def test_autocast_computes_in_float32(self) -> None:
        boxes = random_rotated_boxes(4).half()
        with torch.autocast("cpu", torch.bfloat16):
            assert box_iou_rotated(boxes, boxes).dtype == torch.float32

    def test_cpu_equals_cuda(self) -> None:
        a, b = random_rotated_boxes(300, seed=20), random_rotated_boxes(200, seed=21)
        check_cpu_equals_cuda(box_iou_rotated, (a, b), gradient=False)
        check_cpu_equals_cuda(box_iou_rotated, (a, b), gradient=False, dtype=torch.float64)
        check_cuda_stream(box_iou_rotated, (a, b))


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        boxes = random_rotated_boxes(3)
        with pytest.raises(ValueError, match="mode must be 'iou' or 'iof', got 'giou'"):
            box_iou_rotated(boxes, boxes, "giou")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"bboxes1 must have shape \(N, 5\) or be empty, got \(3, 4\)"):
            box_iou_rotated(boxes[:, :4], boxes)
        with pytest.raises(ValueError, match=r"bboxes2 must have shape \(N, 5\) or be empty, got \(5,\)"):
            box_iou_rotated(boxes, boxes[0])
        with pytest.raises(ValueError, match=r"same length with aligned=True, got 3 and 2"):
            box_iou_rotated(boxes, boxes[:2], aligned=True)
        with pytest.raises(ValueError, match="bboxes2 must be on cpu as bboxes1 is, got meta"):
            box_iou_rotated(boxes, boxes.to("meta"))

    def test_the_operator_below_checks_again(self) -> None:
        boxes = random_rotated_boxes(3)
        for bad in ((boxes[:, :4], boxes), (boxes, boxes[:, :4]), (boxes, boxes.float()), (boxes[0], boxes)):
            with pytest.raises(RuntimeError, match="box_iou_rotated"):
                OP(*bad, False, False)
        with pytest.raises(RuntimeError, match="aligned"):
            OP(boxes, boxes[:2], False, True)
