"""nms and batched_nms against a greedy oracle with exact or float64 IoU."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv.ops import batched_nms, nms
from cv.ops._load import available_cpu_isas, forced_cpu_isa
from cv_testing import conformance
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP = torch.ops.cv.nms.default


def exact_nms(boxes: list[list[int]], scores: list[float], threshold: Fraction, offset: int = 0) -> list[int]:
    """Greedy suppression with rational IoU: no rounding anywhere."""

    def side(low: int, high: int) -> int:
        return max(high - low + offset, 0)

    def suppresses(a: list[int], b: list[int]) -> bool:
        if min(side(a[0], a[2]), side(a[1], a[3]), side(b[0], b[2]), side(b[1], b[3])) == 0:
            return False
        inter = side(max(a[0], b[0]), min(a[2], b[2])) * side(max(a[1], b[1]), min(a[3], b[3]))
        areas = side(a[0], a[2]) * side(a[1], a[3]) + side(b[0], b[2]) * side(b[1], b[3])
        return Fraction(inter, areas - inter) > threshold

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(suppresses(boxes[k], boxes[i]) for k in kept):
            kept.append(i)
    return kept


def float64_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: float = 0) -> list[int]:
    """Greedy suppression in float64, one numpy row at a time; fast enough for thousands of boxes."""
    b = boxes.double().numpy()
    area = np.prod(b[:, 2:] - b[:, :2] + offset, axis=1)
    order = np.argsort(-scores.double().numpy(), kind="stable")
    alive = np.ones(len(b), dtype=bool)
    kept = []
    for position, i in enumerate(order):
        if not alive[i]:
            continue
        kept.append(int(i))
        rest = order[position + 1 :]
        low, high = np.maximum(b[i, :2], b[rest, :2]), np.minimum(b[i, 2:], b[rest, 2:])
        inter = np.prod(np.clip(high - low + offset, 0, None), axis=1)
        alive[rest[inter / (area[i] + area[rest] - inter) > threshold]] = False
    return kept


def random_boxes(
    n: int, *, span: float = 1000.0, size: float = 100.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g) * span
    return torch.cat([low, low + torch.rand(n, 2, generator=g) * size], 1), torch.rand(n, generator=g)


DOCUMENTED_BOXES = [
    [49.1, 32.4, 51.0, 35.9],
    [49.3, 32.9, 51.0, 35.3],
    [49.2, 31.8, 51.0, 35.4],
    [35.1, 11.5, 39.1, 15.7],
    [35.6, 11.8, 39.3, 14.2],
    [35.3, 11.5, 39.9, 14.5],
    [35.2, 11.7, 39.7, 15.7],
]
DOCUMENTED_SCORES = [0.9, 0.9, 0.5, 0.5, 0.5, 0.4, 0.3]


class TestContainers:
    def test_documented_example_with_arrays(self) -> None:
        boxes = np.array(DOCUMENTED_BOXES, dtype=np.float32)
        scores = np.array(DOCUMENTED_SCORES, dtype=np.float32)
        dets, inds = nms(boxes, scores, 0.6)
        assert isinstance(dets, np.ndarray)
        assert isinstance(inds, np.ndarray)
        assert inds.tolist() == [0, 3, 4]
        assert inds.dtype == np.int64
        np.testing.assert_array_equal(dets, np.c_[boxes, scores][inds])

    @pytest.mark.parametrize("device", DEVICES)
    def test_documented_example_with_tensors(self, device: str) -> None:
        boxes = torch.tensor(DOCUMENTED_BOXES, device=device)
        dets, inds = nms(boxes, torch.tensor(DOCUMENTED_SCORES, device=device), iou_threshold=0.6)
        assert inds.tolist() == [0, 3, 4]
        assert inds.device == dets.device == boxes.device
        torch.testing.assert_close(dets[:, :4], boxes[inds], rtol=0, atol=0)

    def test_different_dtypes_are_promoted(self) -> None:
        boxes, scores = random_boxes(5)
        assert nms(boxes, scores.half(), 0.5)[0].dtype == torch.float32
        assert nms(boxes, scores.double(), 0.5)[0].dtype == torch.float64

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_empty(self, device: str, dtype: torch.dtype) -> None:
        dets, inds = nms(
            torch.zeros(0, 4, dtype=dtype, device=device), torch.zeros(0, dtype=dtype, device=device), 0.5
        )
        assert dets.shape == (0, 5)
        assert dets.dtype == dtype
        assert inds.shape == (0,)
        assert inds.dtype == torch.int64


class TestGreedy:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("offset", [0, 1])
    def test_integer_boxes_against_exact_iou(self, device: str, dtype: torch.dtype, offset: int) -> None:
        # Integers up to 127 are exact in every dtype, so even ties of the IoU with the threshold are.
        g = torch.Generator().manual_seed(offset)
        low = torch.randint(0, 12, (150, 2), generator=g)
        boxes = torch.cat([low, low + torch.randint(0, 9, (150, 2), generator=g)], 1)
        scores = torch.randint(0, 40, (150,), generator=g)
        for threshold in (0.0, 0.25, 0.5, 0.75, 1.0):
            expected = exact_nms(boxes.tolist(), scores.tolist(), Fraction(threshold), offset)
            args = boxes.to(device=device, dtype=dtype), scores.to(device=device, dtype=dtype), threshold
            with conformance.cell("forward", nms, args, device):
                assert nms(*args, offset=offset)[1].tolist() == expected, threshold

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(*[st.integers(-6, 6)] * 4, st.integers(0, 5)), min_size=1, max_size=30),
        st.sampled_from([Fraction(0), Fraction(1, 8), Fraction(1, 2), Fraction(3, 4)]),
        st.integers(0, 1),
    )
    def test_any_integer_boxes(self, rows: list[tuple[int, ...]], threshold: Fraction, offset: int) -> None:
        """Inverted and empty boxes included."""
        boxes, scores = [list(r[:4]) for r in rows], [float(r[4]) for r in rows]
        _, inds = nms(
            torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), float(threshold), offset
        )
        assert inds.tolist() == exact_nms(boxes, scores, threshold, offset)

    def test_an_iou_equal_to_the_threshold_keeps_the_box(self) -> None:
        # 7 / 10 has no exact float: the rounded quotient must still not exceed the threshold.
        for width, threshold in ((7.0, 0.7), (6.0, 0.6), (9.0, 0.9)):
            boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, width, 10.0]])
            assert len(nms(boxes, torch.tensor([1.0, 0.5]), threshold)[1]) == 2

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(
        ("n", "span", "size"),
        [(2, 10, 10), (16, 10, 10), (17, 10, 10), (384, 200, 60), (385, 200, 60), (1023, 300, 60),
         (1025, 300, 60), (3000, 500, 400), (17000, 600, 100)],
    )  # fmt: skip
    def test_random_boxes_of_every_code_path(self, device: str, n: int, span: float, size: float) -> None:
        boxes, scores = random_boxes(n, span=span, size=size, seed=n)
        boxes, scores = boxes.double(), scores.double()
        for threshold in (0.1, 0.5) if n < 10000 else (0.2,):
            _, inds = nms(boxes.to(device), scores.to(device), threshold)
            assert inds.tolist() == float64_nms(boxes, scores, threshold)

    def test_the_number_of_threads_does_not_matter(self) -> None:
        boxes, scores = random_boxes(20000, span=800, size=150)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(nms(boxes, scores, 0.4)[1])
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    def test_every_instruction_set_gives_the_same_bits(self) -> None:
        boxes, scores = random_boxes(3000, span=400, size=100)
        results = []
        for isa in available_cpu_isas():
            with forced_cpu_isa(isa):
                results.append(nms(boxes, scores, 0.5)[0])
        for other in results[1:]:
            assert torch.equal(results[0], other)

    def test_boxes_of_very_different_size(self) -> None:
        g = torch.Generator().manual_seed(0)
        size = 10 ** (torch.rand(2000, 2, generator=g, dtype=torch.float64) * 6 - 3)
        centre = torch.rand(2000, 2, generator=g, dtype=torch.float64) * 100
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
        scores = torch.rand(2000, generator=g, dtype=torch.float64)
        assert nms(boxes, scores, 0.3)[1].tolist() == float64_nms(boxes, scores, 0.3)

    def test_identical_boxes_leave_the_first_of_the_best(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0]]).repeat(1000, 1)
        scores = torch.full((1000,), 0.5)
        scores[700:] = 0.75
        assert nms(boxes, scores, 0.99)[1].tolist() == [700]


class TestOptions:
    @pytest.mark.parametrize("device", DEVICES)
    def test_score_threshold_is_strict_and_off_when_not_positive(self, device: str) -> None:
        boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10], [20, 20, 21, 21]], device=device)
        scores = torch.tensor([0.5, 0.25, -1.0, 0.0], device=device)
        assert nms(boxes, scores, 0.5, score_threshold=0.25)[1].tolist() == [0]
        assert nms(boxes, scores, 0.5, score_threshold=0)[1].tolist() == [0, 1, 3, 2]
        assert nms(boxes, scores, 0.5, score_threshold=-5.0)[1].tolist() == [0, 1, 3, 2]
        assert nms(boxes, scores, 0.5, score_threshold=2.0)[1].tolist() == []

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [50, 900, 5000])
    def test_max_num_gives_the_first_of_the_full_result(self, device: str, n: int) -> None:
        boxes, scores = (t.to(device) for t in random_boxes(n, span=300))
        full = nms(boxes, scores, 0.5)[1]
        for max_num in (1, 7, len(full), len(full) + 5):
            assert torch.equal(nms(boxes, scores, 0.5, max_num=max_num)[1], full[:max_num])
        for unlimited in (0, -1):
            assert torch.equal(nms(boxes, scores, 0.5, max_num=unlimited)[1], full)

    def test_offset_counts_inclusive_pixels(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 4.0]])  # 100 and 50 pixels
        scores = torch.tensor([0.9, 0.8])
        assert len(nms(boxes, scores, 0.49, offset=1)[1]) == 1
        assert len(nms(boxes, scores, 0.49, offset=0)[1]) == 2  # 36 / 81


class TestOddBoxes:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [0, 500])
    def test_boxes_that_overlap_nothing_are_kept(self, device: str, n: int) -> None:
        """NaN, infinite, inverted and empty boxes, alone and among many ordinary ones."""
        nan, inf = math.nan, math.inf
        odd = torch.tensor(
            [[nan, 0, 9, 9], [0, 0, 9, nan], [nan] * 4, [-inf, -inf, inf, inf], [0, 0, inf, 9], [9, 9, 0, 0],
             [5, 5, 5, 5], [0, 5, 9, 5], [inf, inf, inf, inf], [-3e38, -3e38, 3e38, 3e38]]
        )  # fmt: skip
        ordinary, scores = random_boxes(n, span=50, size=20)
        expected = nms(ordinary, scores, 0.3)[1]
        all_scores = torch.cat([scores, torch.full((2 * len(odd),), 2.0)])
        boxes = torch.cat([ordinary, odd, odd])
        _, inds = nms(boxes.to(device), all_scores.to(device), 0.3)
        assert inds.tolist() == [*range(n, n + 2 * len(odd)), *expected.tolist()]

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [20, 400])
    def test_nan_scores_rank_last(self, device: str, n: int) -> None:
        boxes = torch.arange(n, dtype=torch.float32)[:, None].repeat(1, 4) * 10 + torch.tensor(
            [0.0, 0.0, 5.0, 5.0]
        )
        scores = torch.linspace(-1, 1, n)
        scores[3] = math.nan
        scores[5] = math.inf
        dets, inds = nms(boxes.to(device), scores.to(device), 0.5)
        assert inds[0].item() == 5
        assert inds[-1].item() == 3
        assert torch.isnan(dets[-1, 4])
        assert 3 not in nms(boxes.to(device), scores.to(device), 0.5, score_threshold=1e-9)[1].tolist()

    def test_positive_and_negative_zero_scores_tie(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0]]).repeat(300, 1)
        assert nms(boxes, torch.tensor([-0.0, 0.0]).repeat(150), 0.5)[1].tolist() == [0]


class TestBatched:
    @staticmethod
    def one_class_at_a_time(
        boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, threshold: float
    ) -> list[int]:
        kept: list[int] = []
        for label in idxs.unique():
            members = torch.nonzero(idxs == label).flatten()
            kept += [int(members[i]) for i in float64_nms(boxes[members], scores[members], threshold)]
        return sorted(kept, key=lambda i: (-float(scores[i]), i))

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("n", "classes"), [(30, 3), (800, 2), (3000, 80), (5000, 7), (5000, 1)])
    def test_equals_one_class_at_a_time(self, device: str, n: int, classes: int) -> None:
        boxes, scores = random_boxes(n, span=200, size=80, seed=n)
        boxes, scores = boxes.double(), scores.double()
        idxs = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(1))
        dets, keep = batched_nms(
            boxes.to(device), scores.to(device), idxs.to(device), {"type": "nms", "iou_threshold": 0.4}
        )
        assert keep.tolist() == self.one_class_at_a_time(boxes, scores, idxs, 0.4)
        torch.testing.assert_close(
            dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[keep.cpu()], rtol=0, atol=0
        )

    @pytest.mark.parametrize("device", DEVICES)
    def test_split_thr_changes_nothing(self, device: str) -> None:
        boxes, scores = (t.to(device) for t in random_boxes(2000, span=200))
        idxs = torch.randint(0, 5, (2000,), device=device)
        whole = batched_nms(boxes, scores, idxs, {"iou_threshold": 0.5, "split_thr": 10000})
        split = batched_nms(boxes, scores, idxs, {"iou_threshold": 0.5, "split_thr": 100})
        assert torch.equal(whole[0], split[0])
        assert torch.equal(whole[1], split[1])

    def test_class_agnostic_by_argument_or_config(self) -> None:
        boxes, scores = random_boxes(200, span=100)
        idxs = torch.arange(200)
        plain = nms(boxes, scores, 0.5)[1]
        assert torch.equal(
            batched_nms(boxes, scores, idxs, {"iou_threshold": 0.5}, class_agnostic=True)[1], plain
        )
        config = {"iou_threshold": 0.5, "class_agnostic": True}
        assert torch.equal(batched_nms(boxes, scores, idxs, config)[1], plain)
        assert len(batched_nms(boxes, scores, idxs, {"iou_threshold": 0.5})[1]) == 200

    def test_any_integers_name_groups(self) -> None:
        boxes, scores = random_boxes(900, span=100)
        labels = torch.randint(0, 3, (900,))
        expected = batched_nms(boxes, scores, labels, {"iou_threshold": 0.5})[1]
        for names in ([-5, 0, 7], [-(2**63), 0, 2**63 - 1], [2**40, 2**40 + 1, -1]):
            renamed = torch.tensor(names)[labels]
            assert torch.equal(batched_nms(boxes, scores, renamed, {"iou_threshold": 0.5})[1], expected)
        assert torch.equal(batched_nms(boxes, scores, labels.int(), {"iou_threshold": 0.5})[1], expected)

    def test_far_apart_coordinates_do_not_matter(self) -> None:
        """Moving classes apart by an offset, as others do, loses these boxes' fractions."""
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.4, 0.0, 1.4, 1.0], [1e7, 1e7, 1e7 + 10, 1e7 + 10]])
        scores = torch.tensor([0.9, 0.8, 0.7])
        keep = batched_nms(boxes, scores, torch.tensor([5, 5, 0]), {"iou_threshold": 0.5})[1]
        assert keep.tolist() == [0, 1, 2]  # IoU 0.43

    def test_options_reach_nms_and_the_config_is_left_alone(self) -> None:
        boxes, scores = random_boxes(300, span=100)
        idxs = torch.randint(0, 3, (300,))
        config = {"type": "nms", "iou_thr": 0.5, "score_threshold": 0.3, "max_num": 11, "split_thr": 20}
        before = dict(config)
        dets, keep = batched_nms(boxes, scores, idxs, config)
        assert config == before
        full = batched_nms(boxes, scores, idxs, {"iou_threshold": 0.5})[1]
        assert keep.tolist() == [i for i in full.tolist() if scores[i] > 0.3][:11]
        assert (dets[:, 4] > 0.3).all()

    def test_no_config_sorts_only(self) -> None:
        boxes, scores = random_boxes(20, span=5)
        dets, keep = batched_nms(boxes, scores, torch.zeros(20, dtype=torch.int64), None)
        assert torch.equal(keep, scores.argsort(descending=True, stable=True))
        assert torch.equal(dets[:, 4], scores[keep])

    def test_empty(self) -> None:
        empty = torch.zeros(0, dtype=torch.int64)
        dets, keep = batched_nms(torch.zeros(0, 4), torch.zeros(0), empty, {"iou_threshold": 0.5})
        assert dets.shape == (0, 5)
        assert keep.shape == (0,)


class TestGradient:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_flows_from_dets_to_the_kept_boxes_and_scores(self, device: str, dtype: torch.dtype) -> None:
        boxes, scores = (t.to(device, dtype).requires_grad_() for t in random_boxes(50, span=100))
        with conformance.cell("backward", nms, (boxes, scores, 0.5), device):
            dets, keep = nms(boxes, scores, 0.5)
            assert not keep.requires_grad
            weights = torch.rand(dets.shape, device=device, dtype=dtype)
            grads = torch.autograd.grad(dets, (boxes, scores), weights)
            expected = torch.zeros(50, 5, device=device, dtype=dtype)
            expected[keep] = weights
            torch.testing.assert_close(grads[0], expected[:, :4], rtol=0, atol=0)
            torch.testing.assert_close(grads[1], expected[:, 4], rtol=0, atol=0)


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        boxes, scores = random_boxes(12, span=60)
        boxes, scores = boxes.double().requires_grad_(), scores.double().requires_grad_()
        check_operator(
            lambda b, s: nms(b, s, 0.5),
            (boxes, scores),
            op=OP,
            op_args=(boxes, scores, None, 0.5, 0, 0.0, -1),
            device=device,
            gradient=True,
        )

    def test_batched_operator(self) -> None:
        boxes, scores = random_boxes(12, span=60)
        idxs = torch.randint(0, 3, (12,))
        check_operator(
            lambda b, s, i: batched_nms(b, s, i, {"iou_threshold": 0.5, "max_num": 7}),
            (boxes.double(), scores.double(), idxs),
            op=OP,
            op_args=(boxes, scores, idxs, 0.5, 1, 0.1, 5),
            gradient=False,
        )

    def test_cpu_equals_cuda(self) -> None:
        boxes, scores = random_boxes(5000, span=400)
        check_cpu_equals_cuda(lambda b, s: nms(b, s, 0.5), (boxes, scores), gradient=False)
        check_cuda_stream(lambda b, s: nms(b, s, 0.5), (boxes, scores))


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        boxes, scores = random_boxes(3)
        with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\), got \(3, 5\)"):
            nms(torch.zeros(3, 5), scores, 0.5)
        with pytest.raises(ValueError, match=r"scores must have shape \(3,\).*got \(2,\)"):
            nms(boxes, scores[:2], 0.5)
        with pytest.raises(ValueError, match=r"iou_threshold must not be negative, got -0\.1"):
            nms(boxes, scores, -0.1)
        with pytest.raises(ValueError, match="iou_threshold must not be negative, got nan"):
            nms(boxes, scores, math.nan)
        with pytest.raises(ValueError, match="offset must be 0 or 1, got 2"):
            nms(boxes, scores, 0.5, offset=2)
        with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
            nms(boxes.long(), scores.long(), 0.5)
        with pytest.raises(ValueError, match="scores must be on cpu as boxes is, got meta"):
            nms(boxes, scores.to("meta"), 0.5)
        with pytest.raises(TypeError, match="both be tensors or both be arrays, got Tensor and ndarray"):
            nms(boxes, scores.numpy(), 0.5)

    def test_the_operator_below_checks_again(self) -> None:
        """For C++ callers; without the check these would read beyond the tensors."""
        boxes, scores = random_boxes(3)
        idxs = torch.zeros(3, dtype=torch.int64)
        for bad in (
            (boxes[:, :3], scores, None),
            (boxes, scores[:2], None),
            (boxes, scores.double(), None),
            (boxes, scores, idxs[:1]),
            (boxes, scores, idxs.int()),
            (boxes.long(), scores.long(), None),
        ):
            with pytest.raises(RuntimeError, match="nms"):
                OP(*bad, 0.5, 0, 0.0, -1)

    def test_batched_messages(self) -> None:
        boxes, scores = random_boxes(3)
        idxs = torch.zeros(3, dtype=torch.int64)
        with pytest.raises(ValueError, match=r"nms_cfg\['type'\] must be one of .*, got 'magic'"):
            batched_nms(boxes, scores, idxs, {"type": "magic", "iou_threshold": 0.5})
        with pytest.raises(ValueError, match="iou_treshold"):
            batched_nms(boxes, scores, idxs, {"iou_treshold": 0.5})
        with pytest.raises(ValueError, match="iou_threshold"):
            batched_nms(boxes, scores, idxs, {})
        with pytest.raises(ValueError, match=r"idxs must have shape \(3,\)"):
            batched_nms(boxes, scores, idxs[:2], {"iou_threshold": 0.5})


def test_old_argument_name_warns() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10]]), torch.tensor([0.9, 0.8])
    with pytest.warns(DeprecationWarning, match="iou_threshold"):
        _, kept = nms(boxes, scores, iou_thr=0.5)  # type: ignore[call-overload]
    assert kept.tolist() == [0]
