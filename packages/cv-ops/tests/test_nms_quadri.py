"""nms_quadri against a greedy loop over overlaps by shapely."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cv.ops import batched_nms, box_iou_quadri, nms_quadri, nms_rotated
from cv.ops._load import available_cpu_isas, forced_cpu_isa
from cv_testing import conformance
from cv_testing.ops import DEVICES, DTYPES, check_cpu_equals_cuda, check_cuda_stream, check_operator
from cv_testing.rotated import outlines, overlaps_of, polygon, random_quadrilaterals, random_rotated_boxes

OP = torch.ops.cv.nms_quadri.default


def greedy(overlaps: np.ndarray, scores: Tensor, threshold: float, labels: Tensor | None = None) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        rivals = [k for k in kept if labels is None or labels[k] == labels[i]]
        if not (overlaps[rivals, i] > threshold).any():
            kept.append(i)
    return kept


def exact(boxes: Tensor) -> np.ndarray:
    shapes = outlines(boxes)
    return overlaps_of(shapes, shapes, "iou")


def boxes_and_scores(n: int, *, span: float = 10.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1000 + seed)
    scores = torch.rand(n, generator=g, dtype=torch.float64)
    return random_quadrilaterals(n, seed, span=span), scores


class TestGreedy:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("n", "span"), [(1, 1), (2, 1), (17, 5), (150, 20), (250, 40)])
    def test_against_shapely(self, device: str, n: int, span: float) -> None:
        boxes, scores = boxes_and_scores(n, span=span, seed=n)
        overlaps = exact(boxes)
        for threshold in (1e-9, 0.1, 0.5):
            dets, inds = nms_quadri(boxes.to(device), scores.to(device), threshold)
            assert inds.tolist() == greedy(overlaps, scores, threshold), threshold
            assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[inds.cpu()])

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("n", "span"), [(2500, 100), (2500, 10)])
    def test_against_our_overlaps_where_shapely_is_slow(self, device: str, n: int, span: float) -> None:
        boxes, scores = boxes_and_scores(n, span=span, seed=n)
        overlaps = box_iou_quadri(boxes, boxes).numpy()
        _, inds = nms_quadri(boxes.to(device), scores.to(device), 0.3)
        alive, kept = np.ones(n, bool), []
        for i in scores.argsort(descending=True, stable=True).tolist():
            if alive[i]:
                kept.append(i)
                alive &= ~(overlaps[i] > 0.3)
        assert inds.tolist() == kept

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_dtypes_and_gradients(self, device: str, dtype: torch.dtype) -> None:
        boxes, scores = (t.to(dtype) for t in boxes_and_scores(60, span=20))
        expected_inds = greedy(exact(boxes.double()), scores.double(), 0.3)
        args = boxes.to(device).requires_grad_(), scores.to(device).requires_grad_(), 0.3
        with conformance.cell("forward", nms_quadri, args, device):
            dets, inds = nms_quadri(*args)
            assert dets.dtype == dtype
            assert inds.tolist() == expected_inds
        with conformance.cell("backward", nms_quadri, args, device):
            weights = torch.rand(dets.shape, dtype=dtype, device=device)
            grads = torch.autograd.grad(dets, args[:2], weights)
            expected = torch.zeros(60, 9, dtype=dtype, device=device)
            expected[inds] = weights
            assert torch.equal(torch.cat([grads[0], grads[1][:, None]], 1), expected)

    def test_rectangles_are_rotated_boxes(self) -> None:
        rotated = random_rotated_boxes(500, span=40)
        around = [list(polygon(box).exterior.coords)[:4] for box in rotated.tolist()]
        boxes, scores = torch.tensor(around, dtype=torch.float64).reshape(-1, 8), boxes_and_scores(500)[1]
        assert torch.equal(nms_quadri(boxes, scores, 0.3)[1], nms_rotated(rotated, scores, 0.3)[1])


class TestOptions:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [40, 5000])
    def test_labels_keep_classes_apart(self, device: str, n: int) -> None:
        boxes, scores = (t.to(device) for t in boxes_and_scores(n, span=n**0.5 * 2))
        labels = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(0)).to(device)
        dets, inds = nms_quadri(boxes, scores, 0.2, labels)
        expected = []
        for label in range(4):
            members = torch.nonzero(labels == label).flatten()
            expected += members[nms_quadri(boxes[members], scores[members], 0.2)[1]].tolist()
        assert sorted(inds.tolist()) == sorted(expected)
        assert dets.shape == (len(expected), 9)
        assert (dets[:-1, 8] >= dets[1:, 8]).all()

    def test_batched_nms_takes_it_by_name(self) -> None:
        boxes, scores = boxes_and_scores(300, span=30)
        labels = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(0))
        config = {"type": "nms_quadri", "iou_thr": 0.2}
        dets, keep = batched_nms(boxes, scores, labels, config)
        expected, inds = nms_quadri(boxes, scores, 0.2, labels)
        assert torch.equal(dets, expected)
        assert torch.equal(keep, inds)
        limited = batched_nms(
            boxes, scores, labels, {**config, "max_num": 7, "score_threshold": 0.5}, class_agnostic=True
        )[1]
        full = nms_quadri(boxes, scores, 0.2)[1]
        assert limited.tolist() == [i for i in full.tolist() if scores[i] > 0.5][:7]

    def test_arrays_in_arrays_out(self) -> None:
        boxes, scores = boxes_and_scores(50)
        labels = torch.arange(50) % 2
        expected = nms_quadri(boxes, scores, 0.2, labels)
        dets, inds = nms_quadri(boxes.numpy(), scores.numpy(), 0.2, labels.numpy())
        assert isinstance(dets, np.ndarray)
        np.testing.assert_array_equal(dets, expected[0])
        np.testing.assert_array_equal(inds, expected[1])

    @pytest.mark.parametrize("device", DEVICES)
    def test_empty(self, device: str) -> None:
        none = torch.zeros(0, 8, device=device), torch.zeros(0, device=device), 0.5
        labels = torch.zeros(0, dtype=torch.int64, device=device)
        for dets, inds in (nms_quadri(*none), nms_quadri(*none, labels)):
            assert dets.shape == (0, 9)
            assert inds.shape == (0,)


class TestOddBoxes:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [0, 200])
    def test_boxes_that_overlap_nothing_are_kept(self, device: str, n: int) -> None:
        odd = torch.tensor([[0.0, 0, 9, 0, 9, 9, 0, 9]]).double().repeat(10, 1)
        nan, inf = math.nan, math.inf
        for k, value in enumerate([nan, inf, -inf, nan, inf, -inf, 1e300, nan]):
            odd[k, k] = value
        odd[6] = odd[6].sign() * 1e200  # its area is infinite
        odd[8], odd[9] = 5.0, torch.tensor([0.0, 0, 5, 5, 9, 9, 5, 5])
        boxes, scores = boxes_and_scores(n)
        expected = nms_quadri(boxes, scores, 0.3)[1].tolist()
        everything = torch.cat([boxes, odd, odd]).to(device)
        all_scores = torch.cat([scores, torch.full((2 * len(odd),), 2.0).double()]).to(device)
        inds = nms_quadri(everything, all_scores, 0.3)[1].tolist()
        assert inds == [*range(n, n + 2 * len(odd)), *expected]

    def test_nan_scores_rank_last_and_ties_go_to_the_lower_index(self) -> None:
        boxes = torch.tensor([[0.0, 0, 4, 0, 4, 4, 0, 4]]).repeat(4, 1)
        assert nms_quadri(boxes, torch.tensor([math.nan, 0.5, 0.5, -1.0]), 0.5)[1].tolist() == [1]
        boxes[0] += 100
        assert nms_quadri(boxes, torch.tensor([math.nan, 0.5, 0.5, -1.0]), 0.5)[1].tolist() == [1, 0]

    def test_identical_boxes_leave_one(self) -> None:
        boxes = random_quadrilaterals(1).repeat(1000, 1)
        assert nms_quadri(boxes, torch.full((1000,), 0.5).double(), 0.99)[1].tolist() == [0]


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        boxes, scores = boxes_and_scores(10)
        boxes.requires_grad_()
        scores.requires_grad_()
        check_operator(
            lambda b, s: nms_quadri(b, s, 0.3),
            (boxes, scores),
            op=OP,
            op_args=(boxes, scores, None, 0.3, 0.0, -1),
            device=device,
        )

    def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(self) -> None:
        boxes, scores = boxes_and_scores(5000, span=100)
        labels = torch.arange(5000) % 5
        expected = nms_quadri(boxes, scores, 0.3, labels)[0]
        for isa in available_cpu_isas():
            with forced_cpu_isa(isa):
                assert torch.equal(nms_quadri(boxes, scores, 0.3, labels)[0], expected)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            assert torch.equal(nms_quadri(boxes, scores, 0.3, labels)[0], expected)
        finally:
            torch.set_num_threads(before)

    def test_cpu_equals_cuda(self) -> None:
        args = boxes_and_scores(3000, span=100)
        check_cpu_equals_cuda(lambda b, s: nms_quadri(b, s, 0.3), args, gradient=False, dtype=torch.float64)
        check_cuda_stream(lambda b, s: nms_quadri(b, s, 0.3), args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        boxes, scores = boxes_and_scores(3)
        with pytest.raises(ValueError, match=r"dets must have shape \(N, 8\), got \(3, 4\)"):
            nms_quadri(boxes[:, :4], scores, 0.5)
        with pytest.raises(ValueError, match=r"scores must have shape \(3,\) as dets has rows, got \(2,\)"):
            nms_quadri(boxes, scores[:2], 0.5)
        with pytest.raises(ValueError, match=r"labels must have shape \(3,\), one for each box, got \(2,\)"):
            nms_quadri(boxes, scores, 0.5, torch.zeros(2))
        with pytest.raises(ValueError, match=r"iou_threshold must not be negative, got -1"):
            nms_quadri(boxes, scores, -1)
        with pytest.raises(TypeError, match=r"dets and scores must be floating point, got torch\.int64"):
            nms_quadri(boxes.long(), scores.long(), 0.5)
        with pytest.raises(TypeError, match="dets and scores must both be tensors or both be arrays"):
            nms_quadri(boxes, scores.numpy(), 0.5)  # type: ignore[call-overload]

    def test_the_operator_below_checks_again(self) -> None:
        boxes, scores = boxes_and_scores(3)
        labels = torch.zeros(3, dtype=torch.int64)
        for bad in (
            (boxes[:, :4], scores, None),
            (boxes, scores[:2], None),
            (boxes, scores.float(), None),
            (boxes, scores, labels[:2]),
            (boxes, scores, labels.int()),
        ):
            with pytest.raises(RuntimeError, match="nms_quadri"):
                OP(*bad, 0.5, 0.0, -1)
