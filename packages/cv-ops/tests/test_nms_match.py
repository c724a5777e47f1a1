"""nms_match against a loop over pairs in float64, and against nms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import bbox_overlaps, nms, nms_match
from cv_testing import conformance
from cv_testing.ops import DEVICES, DTYPES, check_compile, check_deterministic, check_export, check_opcheck

OP = torch.ops.cv.nms_match.default


def oracle(dets: Tensor, threshold: float) -> list[list[int]]:
    overlaps = bbox_overlaps(dets[:, :4].double(), dets[:, :4].double())
    groups: list[list[int]] = []
    for i in dets[:, 4].argsort(descending=True, stable=True).tolist():
        for group in groups:
            if overlaps[group[0], i] > threshold:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def random_dets(n: int, *, span: float = 100.0, size: float = 60.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    low, sides = (torch.rand(n, 2, generator=g, dtype=torch.float64) * k for k in (span, size))
    return torch.cat([low, low + 1 + sides, torch.rand(n, 1, generator=g, dtype=torch.float64)], 1)


class TestGroups:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("n", [1, 2, 16, 17, 300])
    def test_random_boxes(self, device: str, n: int) -> None:
        dets = random_dets(n, seed=n)
        for threshold in (0.0, 0.3, 0.7):
            groups = nms_match(dets.to(device), threshold)
            assert [g.tolist() for g in groups] == oracle(dets, threshold)
            assert all(g.dtype == torch.int64 and g.device.type == device for g in groups)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 5)] * 2, st.integers(0, 3)), min_size=1
        ),
        st.sampled_from([0.0, 0.31, 0.57]),
    )
    def test_grids_with_equal_scores(self, rows: list[tuple[int, ...]], threshold: float) -> None:
        table = torch.tensor(rows, dtype=torch.float32)
        dets = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4], table[:, 4:]], 1)
        assert [g.tolist() for g in nms_match(dets, threshold)] == oracle(dets, threshold)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_box_once_and_the_kept_ones_first(self, device: str, dtype: torch.dtype) -> None:
        dets = random_dets(400).to(device, dtype)
        with conformance.cell("forward", nms_match, (dets, 0.4), device):
            groups = nms_match(dets, 0.4)
            assert sorted(i for g in groups for i in g.tolist()) == list(range(400))
            assert [g[0].item() for g in groups] == nms(dets[:, :4], dets[:, 4], 0.4)[1].tolist()
            for group in groups:
                assert (dets[group, 4].diff() <= 0).all()

    def test_the_container_follows_the_input(self) -> None:
        dets = random_dets(50)
        groups = nms_match(dets.numpy(), 0.5)
        assert isinstance(groups, list)
        assert all(isinstance(g, np.ndarray) and g.dtype == np.int64 for g in groups)
        assert [g.tolist() for g in groups] == [g.tolist() for g in nms_match(dets, 0.5)]

    def test_empty(self) -> None:
        assert nms_match(torch.zeros(0, 5), 0.5) == []
        assert nms_match(np.zeros((0, 5), np.float32), 0.5) == []

    @pytest.mark.parametrize("device", DEVICES)
    def test_odd_boxes_are_groups_of_their_own_and_nan_scores_come_last(self, device: str) -> None:
        nan, inf = math.nan, math.inf
        dets = torch.tensor(
            [[0, 0, 9, 9, nan], [0, 0, 9, 9, 0.1], [nan, 0, 9, 9, 0.9], [9, 9, 0, 0, 0.8],
             [0, 0, inf, 9, 0.7], [0, 0, 9, 9, -inf]],
            device=device,
        )  # fmt: skip
        assert [g.tolist() for g in nms_match(dets, 0.5)] == [[2], [3], [4], [1, 0, 5]]


def test_operator() -> None:
    dets = random_dets(30)
    args = dets[:, :4].contiguous(), dets[:, 4].contiguous(), nms(dets[:, :4], dets[:, 4], 0.5)[1]
    check_opcheck(OP, (*args, 0.5))
    check_compile(lambda b, s, k: OP(b, s, k, 0.5), args, gradient=False)
    check_deterministic(lambda b, s, k: OP(b, s, k, 0.5), args, gradient=False)
    check_export(lambda b, s, k: OP(b, s, k, 0.5), args)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_and_inference_mode(device: str) -> None:
    dets = random_dets(20).to(device)
    expected = [g.tolist() for g in nms_match(dets, 0.3)]
    assert [g.tolist() for g in nms_match(dets.requires_grad_(), 0.3)] == expected
    with torch.inference_mode():
        assert [g.tolist() for g in nms_match(dets, 0.3)] == expected


def test_errors() -> None:
    with pytest.raises(AssertionError, match=r"dets must have shape \(N, 5\), got \(2, 4\)"):
        nms_match(torch.zeros(2, 4), 0.5)
    with pytest.raises(AssertionError, match=r"got \(5,\)"):
        nms_match(np.zeros(5), 0.5)
    with pytest.raises(TypeError, match="dets must be a tensor or an array, got list"):
        nms_match([[0.0] * 5], 0.5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="floating point"):
        nms_match(torch.zeros(2, 5, dtype=torch.int64), 0.5)
    with pytest.raises(ValueError, match="iou_threshold must not be negative, got -1"):
        nms_match(torch.zeros(2, 5), -1)
    boxes, scores, keep = torch.zeros(3, 4), torch.zeros(3), torch.tensor([0])
    for bad in (
        (boxes[:, :3], scores, keep),
        (boxes, scores[:2], keep),
        (boxes, scores.double(), keep),
        (boxes, scores, keep.int()),
        (boxes, scores, keep.repeat(4)),
    ):
        with pytest.raises(RuntimeError, match="nms_match"):
            OP(*bad, 0.5)


def test_kept_indices_outside_are_refused_on_the_cpu() -> None:  # a GPU would have to wait for the answer
    boxes, scores, keep = torch.zeros(3, 4), torch.zeros(3), torch.tensor([0])
    for bad in (keep + 3, keep - 1):
        with pytest.raises(RuntimeError, match="nms_match"):
            OP(boxes, scores, bad, 0.5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_box_that_overlaps_no_kept_one_is_refused(device: str) -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]], device=device)
    with pytest.raises(RuntimeError, match="box 1 overlaps none of keep"):
        OP(boxes, boxes[:, 0].contiguous(), torch.tensor([0], device=device), 0.5)
