"""soft_nms against a float64 loop written from the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import batched_nms, nms, soft_nms
from cv.ops._load import available_cpu_isas, forced_cpu_isa
from cv_testing import conformance
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    TOLERANCES,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP = torch.ops.cv.soft_nms.default
METHODS = ["linear", "gaussian", "naive"]


def oracle(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    b = boxes.double().tolist()
    left = {i: s for i, s in enumerate(scores.double().tolist()) if s >= min_score}
    chosen, values = [], []

    def iou(p: list[float], q: list[float]) -> float:
        w = min(p[2], q[2]) - max(p[0], q[0]) + offset
        h = min(p[3], q[3]) - max(p[1], q[1]) + offset
        sides = [x[k + 2] - x[k] + offset for x in (p, q) for k in (0, 1)]
        if w <= 0 or h <= 0 or min(sides) <= 0:
            return 0.0
        return w * h / (sides[0] * sides[1] + sides[2] * sides[3] - w * h)

    while left:
        best = max(left, key=lambda i: (left[i], -i))
        chosen.append(best)
        values.append(left.pop(best))
        for i in list(left):
            overlap = iou(b[best], b[i])
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold and overlap > 0:
                left[i] *= 1 - overlap if method == "linear" else 0
            if not left[i] >= min_score:
                del left[i]
    return chosen, values


def random_boxes(n: int, *, span: float = 100.0, size: float = 60.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g, dtype=torch.float64) * span
    sides = torch.rand(n, 2, generator=g, dtype=torch.float64) * size
    return torch.cat([low, low + sides], 1), torch.rand(n, generator=g, dtype=torch.float64)


class TestValues:
    def test_documented_example(self) -> None:
        boxes = np.array([[4.0, 3, 5, 3], [4, 3, 5, 4], *[[3, 1, 3, 1]] * 4], dtype=np.float32)
        scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], dtype=np.float32)
        dets, inds = soft_nms(boxes, scores, 0.6, sigma=0.5)
        assert isinstance(dets, np.ndarray)
        assert inds.tolist() == [0, 1, 2, 3, 4]
        assert dets.dtype == np.float32
        np.testing.assert_array_equal(dets[:, 4], scores[:5])

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(("n", "offset"), [(1, 0), (15, 0), (16, 1), (17, 0), (200, 1), (300, 0)])
    def test_random_boxes(self, device: str, method: str, n: int, offset: int) -> None:
        boxes, scores = random_boxes(n, seed=n)
        for threshold, sigma, min_score in ((0.3, 0.5, 1e-3), (0.0, 0.1, 0.2), (0.9, 2.0, 0.0)):
            chosen, values = oracle(boxes, scores, threshold, sigma, min_score, method, offset)
            dets, inds = soft_nms(
                boxes.to(device), scores.to(device), threshold, sigma, min_score, method, offset
            )  # type: ignore[call-overload]
            if method != "naive":  # where several scores have become 0, their order is that of the index
                assert inds.tolist() == chosen
            assert sorted(inds.tolist()) == sorted(chosen)
            np.testing.assert_allclose(dets[:, 4].cpu(), values, rtol=1e-10, atol=1e-15)
            assert torch.equal(dets[:, :4].cpu(), boxes[inds.cpu()])

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(*[st.integers(-6, 6)] * 4, st.integers(0, 4)), min_size=1, max_size=30),
        st.sampled_from(METHODS),
        st.integers(0, 1),
    )
    def test_any_integer_boxes(self, rows: list[tuple[int, ...]], method: str, offset: int) -> None:
        """Inverted and empty boxes, equal scores."""
        table = torch.tensor(rows, dtype=torch.float64)
        expected = oracle(table[:, :4], table[:, 4] / 4, 0.3, 0.5, 1e-3, method, offset)
        dets, inds = soft_nms(table[:, :4], table[:, 4] / 4, 0.3, 0.5, 1e-3, method, offset)  # type: ignore[call-overload]
        assert sorted(inds.tolist()) == sorted(expected[0])
        np.testing.assert_allclose(dets[:, 4], expected[1], rtol=1e-12)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("method", METHODS)
    def test_dtypes(self, device: str, dtype: torch.dtype, method: str) -> None:
        boxes, scores = (t.to(dtype) for t in random_boxes(12, span=60))
        args = boxes.to(device), scores.to(device)
        with conformance.cell("forward", soft_nms, args, device):
            dets, inds = soft_nms(*args, method=method)  # type: ignore[call-overload]
            assert dets.dtype == dtype
            chosen, values = oracle(boxes, scores, 0.3, 0.5, 1e-3, method, 0)
            rtol, atol = TOLERANCES[dtype]
            assert sorted(inds.tolist()) == sorted(chosen)
            np.testing.assert_allclose(dets[:, 4].double().cpu(), values, rtol=rtol, atol=atol)

    def test_naive_is_nms(self) -> None:
        boxes, scores = random_boxes(1000)
        dets, inds = soft_nms(boxes, scores, 0.4, min_score=1e-9, method="naive")
        expected = nms(boxes, scores, 0.4)
        assert torch.equal(inds, expected[1])
        assert torch.equal(dets, expected[0])

    def test_disjoint_boxes_keep_their_scores(self) -> None:
        boxes = torch.arange(50.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
        scores = torch.rand(50)
        for method in METHODS:
            dets, inds = soft_nms(boxes, scores, method=method, min_score=0)  # type: ignore[call-overload]
            assert torch.equal(inds, scores.argsort(descending=True, stable=True))
            assert torch.equal(dets[:, 4], scores[inds])


class TestOddInput:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("method", METHODS)
    def test_boxes_that_overlap_nothing(self, device: str, method: str) -> None:
        nan, inf = math.nan, math.inf
        boxes = torch.tensor(
            [[nan, 0, 9, 9], [-inf, -inf, inf, inf], [9, 9, 0, 0], [5, 5, 5, 5], [0, 0, 9, 9], [0, 0, 9, 8]],
            device=device,
        )
        scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.45], device=device)
        dets, inds = soft_nms(boxes, scores, min_score=0.44, method=method)  # type: ignore[call-overload]
        assert inds.tolist() == [0, 1, 2, 3, 4]
        assert dets[:, 4].tolist() == scores[:5].tolist()

    @pytest.mark.parametrize("device", DEVICES)
    def test_a_score_equal_to_min_score_stays(self, device: str) -> None:
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2]], device=device)  # an IoU of a half
        scores = torch.tensor([0.5, 0.5], device=device)
        dets, inds = soft_nms(boxes, scores, min_score=0.25)
        assert inds.tolist() == [0, 1]
        assert dets[:, 4].tolist() == [0.5, 0.25]
        assert soft_nms(boxes, scores, min_score=0.5)[1].tolist() == [0]

    @pytest.mark.parametrize("device", DEVICES)
    def test_nan_scores_are_out_and_ties_go_to_the_lower_index(self, device: str) -> None:
        boxes = torch.tensor([[0.0, 0, 5, 5]], device=device).repeat(40, 1)
        scores = torch.full((40,), 0.5, device=device)
        scores[0] = math.nan
        _, inds = soft_nms(boxes, scores, method="naive")
        assert inds.tolist() == [1]
        apart = boxes + torch.arange(40, device=device)[:, None] * 10
        assert soft_nms(apart, scores)[1].tolist() == list(range(1, 40))
        assert soft_nms(apart, scores, min_score=0.6)[0].shape == (0, 5)

    @pytest.mark.parametrize("device", DEVICES)
    def test_empty(self, device: str) -> None:
        dets, inds = soft_nms(torch.zeros(0, 4, device=device), torch.zeros(0, device=device))
        assert dets.shape == (0, 5)
        assert inds.shape == (0,)
        assert inds.dtype == torch.int64


class TestBatched:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(("n", "classes"), [(40, 3), (300, 1), (5000, 90)])
    def test_equals_one_class_at_a_time(self, device: str, method: str, n: int, classes: int) -> None:
        boxes, scores = (t.to(device) for t in random_boxes(n, seed=n))
        idxs = torch.randint(-2, classes - 2, (n,), generator=torch.Generator().manual_seed(0)).to(device)
        config = {
            "type": "soft_nms",
            "iou_threshold": 0.4,
            "method": method,
            "min_score": 0.05,
            "split_thr": 9,
        }
        dets, keep = batched_nms(boxes, scores, idxs, config)
        expected = {}
        for label in idxs.unique():
            members = torch.nonzero(idxs == label).flatten()
            d, k = soft_nms(boxes[members], scores[members], 0.4, 0.5, 0.05, method)  # type: ignore[call-overload]
            expected.update(zip(members[k].tolist(), d[:, 4].tolist(), strict=True))
        assert dict(zip(keep.tolist(), dets[:, 4].tolist(), strict=True)) == expected
        assert (dets[:-1, 4] >= dets[1:, 4]).all()
        assert torch.equal(dets[:, :4], boxes[keep])
        limited = batched_nms(boxes, scores, idxs, {**config, "max_num": 5})
        assert torch.equal(limited[0], dets[:5])
        assert torch.equal(limited[1], keep[:5])
        agnostic = batched_nms(boxes, scores, None, config, class_agnostic=True)  # type: ignore[arg-type]
        whole = soft_nms(boxes, scores, 0.4, 0.5, 0.05, method)  # type: ignore[call-overload]
        assert torch.equal(agnostic[1], whole[1])


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        boxes, scores = random_boxes(12, span=60)
        check_operator(
            lambda b, s: soft_nms(b, s, method="gaussian"),
            (boxes, scores),
            op=OP,
            op_args=(boxes, scores, None, 0.3, 0.5, 1e-3, 1, 0),
            device=device,
            gradient=False,
        )

    def test_no_gradient(self) -> None:
        boxes, scores = (t.requires_grad_() for t in random_boxes(5))
        assert not soft_nms(boxes, scores)[0].requires_grad

    def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(self) -> None:
        boxes, scores = (t.float() for t in random_boxes(5000, span=1000))
        idxs = torch.arange(5000) % 7
        before = torch.get_num_threads()
        for method in METHODS:
            config = {"type": "soft_nms", "method": method}
            expected = batched_nms(boxes, scores, idxs, config)[0]
            for isa in available_cpu_isas():
                with forced_cpu_isa(isa):
                    assert torch.equal(batched_nms(boxes, scores, idxs, config)[0], expected)
            try:
                torch.set_num_threads(3)
                assert torch.equal(batched_nms(boxes, scores, idxs, config)[0], expected)
            finally:
                torch.set_num_threads(before)

    def test_cpu_equals_cuda(self) -> None:
        args = random_boxes(3000, span=500)
        for method in METHODS:
            check_cpu_equals_cuda(
                lambda b, s, m=method: soft_nms(b, s, method=m), args, gradient=False, dtype=torch.float64
            )
        check_cuda_stream(lambda b, s: soft_nms(b, s), args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        boxes, scores = random_boxes(3)
        with pytest.raises(ValueError, match=r"method must be one of .*, got 'hard'"):
            soft_nms(boxes, scores, method="hard")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="sigma must be positive, got 0"):
            soft_nms(boxes, scores, sigma=0)
        with pytest.raises(ValueError, match="iou_threshold must not be negative, got -1"):
            soft_nms(boxes, scores, -1)
        with pytest.raises(ValueError, match="offset must be 0 or 1, got 2"):
            soft_nms(boxes, scores, offset=2)
        with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\), got \(3, 3\)"):
            soft_nms(boxes[:, :3], scores)
        with pytest.raises(TypeError, match="both be tensors or both be arrays"):
            soft_nms(boxes.numpy(), scores)  # type: ignore[call-overload]
        with pytest.raises(RuntimeError, match="soft_nms: method"):
            OP(boxes, scores, None, 0.3, 0.5, 0.0, 3, 0)
