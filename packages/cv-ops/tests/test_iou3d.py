"""Overlaps and NMS of boxes in space, against shapely and greedy loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from cv.ops import (
    box_iou_rotated,
    boxes_iou3d,
    boxes_iou_bev,
    boxes_overlap_bev,
    diff_iou_rotated_3d,
    nms3d,
    nms3d_normal,
    nms_bev,
    nms_normal_bev,
)
from cv_testing.ops import DEVICES, DTYPES, check_compile
from cv_testing.rotated import polygon, random_rotated_boxes

OVERLAPS = [(boxes_overlap_bev, 7), (boxes_iou3d, 7), (boxes_iou_bev, 5)]
SUPPRESSORS = [(nms_bev, 5, "thresh"), (nms_normal_bev, 5, "thresh")]
SUPPRESSORS += [(nms3d, 7, "iou_threshold"), (nms3d_normal, 7, "iou_threshold")]


def in_space(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(100 + seed)
    x, y, w, h, angle = random_rotated_boxes(n, seed=seed).unbind(1)
    z, dz = torch.rand(2, n, generator=g, dtype=torch.float64) * 4
    return torch.stack([x, y, z, w, h, dz + 0.1, angle], 1)


def bev(boxes: Tensor) -> Tensor:
    x, y, _, w, h, _, angle = boxes.unbind(1)
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2, angle], 1)


def shared_area(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    first, second = (np.array([polygon([r[0], r[1], r[3], r[4], r[6]]) for r in t.tolist()]) for t in (a, b))
    return np.asarray(shapely.area(shapely.intersection(first[:, None], second[None])))


def area(boxes: Tensor) -> NDArray[np.float64]:
    return (boxes[:, 3] * boxes[:, 4]).numpy()


def iou_above(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    shared = shared_area(a, b)
    return shared / (area(a)[:, None] + area(b) - shared)


def iou_in_space(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    shared = shared_area(a, b)
    for i, p in enumerate(a.tolist()):
        for j, q in enumerate(b.tolist()):
            top, bottom = min(p[2] + p[5] / 2, q[2] + q[5] / 2), max(p[2] - p[5] / 2, q[2] - q[5] / 2)
            shared[i, j] *= max(top - bottom, 0.0)
    volumes = [area(t) * t[:, 5].numpy() for t in (a, b)]
    return shared / (volumes[0][:, None] + volumes[1] - shared)


def greedy(overlaps: NDArray[np.float64], scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not (overlaps[kept, i] > threshold).any():
            kept.append(i)
    return kept


class TestOverlaps:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_against_shapely(self, dtype: torch.dtype, device: str) -> None:
        a, b = (t.to(dtype) for t in (in_space(30, 1), in_space(40, 2)))
        exact = [t.double() for t in (a, b)]
        rtol = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, 2 * torch.finfo(dtype).eps)
        for function, oracle in ((boxes_overlap_bev, shared_area), (boxes_iou3d, iou_in_space)):
            actual = function(a.to(device), b.to(device))
            assert actual.dtype == dtype
            np.testing.assert_allclose(actual.double().cpu(), oracle(*exact), rtol=rtol, atol=rtol)
        corners = [bev(t) for t in (a, b)]
        boxes = [
            torch.cat([(c[:, :2] + c[:, 2:4]) / 2, c[:, 2:4] - c[:, :2], c[:, 4:]], 1)
            for c in (t.double() for t in corners)
        ]
        expected = box_iou_rotated(*boxes)
        actual = boxes_iou_bev(*(t.to(device) for t in corners))
        torch.testing.assert_close(actual.double().cpu(), expected, rtol=rtol, atol=rtol)

    def test_bev_is_the_view_from_above(self) -> None:
        a, b = in_space(30, 3), in_space(30, 4)
        np.testing.assert_allclose(boxes_iou_bev(bev(a), bev(b)), iou_above(a, b), atol=1e-10)

    def test_pairs_are_those_of_diff_iou_rotated_3d(self) -> None:
        a, b = in_space(50, 5), in_space(50, 6)
        torch.testing.assert_close(boxes_iou3d(a, b).diagonal(), diff_iou_rotated_3d(a[None], b[None])[0])

    @pytest.mark.parametrize(("function", "columns"), OVERLAPS)
    @pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0), (1, 1)])
    def test_sizes(self, function: Callable[..., Tensor], columns: int, m: int, n: int) -> None:
        assert function(torch.ones(m, columns), torch.ones(n, columns)).shape == (m, n)
        assert function(torch.tensor([]), torch.ones(n, columns)).shape == (0, n)

    def test_boxes_without_volume_and_those_not_finite(self) -> None:
        solid = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0.3]])
        for k in (3, 4, 5):
            flat = solid.clone()
            flat[0, k] = 0
            for pair in ((flat, solid), (solid, flat), (flat, flat), (-flat, -flat)):
                assert boxes_iou3d(*pair).tolist() == [[0.0]]
        for k in range(7):
            broken = solid.clone()
            broken[0, k] = math.nan
            assert boxes_iou3d(broken, solid).isnan().all()
            assert boxes_iou3d(solid, broken).isnan().all()
        assert boxes_iou3d(solid, solid).item() == pytest.approx(1, abs=1e-6)

    def test_integers_are_promoted_and_no_gradient_flows(self) -> None:
        whole = torch.tensor([[0, 0, 0, 2, 2, 2, 0]])
        assert boxes_iou3d(whole, whole).tolist() == [[1.0]]
        a = in_space(3).requires_grad_()
        assert not boxes_iou3d(a, a).requires_grad

    def test_compile(self) -> None:
        check_compile(boxes_iou3d, (in_space(4, 7), in_space(3, 8)), gradient=False)
        check_compile(boxes_iou_bev, (bev(in_space(4, 7)), bev(in_space(3, 8))), gradient=False)

    @pytest.mark.parametrize(("function", "columns"), OVERLAPS)
    def test_errors(self, function: Callable[..., Tensor], columns: int) -> None:
        good = torch.ones(2, columns)
        with pytest.raises(TypeError, match="boxes_a must be a tensor, got list"):
            function([1.0], good)
        with pytest.raises(
            ValueError, match=rf"boxes_b must have shape \(N, {columns}\) or be empty, got \(2, 4\)"
        ):
            function(good, torch.ones(2, 4))
        with pytest.raises(ValueError, match="boxes_b must be on cpu as boxes_a is, got meta"):
            function(good, good.to("meta"))


class TestNms:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
    def test_against_shapely(self, threshold: float, device: str) -> None:
        boxes = in_space(80, 9)
        scores = torch.rand(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        straight = boxes.clone()
        straight[:, 6] = 0
        turned, upright = (greedy(iou_above(t, t), scores, threshold) for t in (boxes, straight))
        assert turned != upright
        b, s = boxes.to(device), scores.to(device)
        assert nms3d(b, s, threshold).tolist() == turned
        assert nms_bev(bev(b), s, threshold).tolist() == turned
        assert nms3d_normal(b, s, threshold).tolist() == upright
        assert nms_normal_bev(bev(b), s, threshold).tolist() == upright
        best = scores.argsort(descending=True)[:30]
        few = best[greedy(iou_above(boxes[best], boxes[best]), scores[best], threshold)].tolist()
        assert nms_bev(bev(b), s, threshold, 30).tolist() == few
        assert nms_bev(bev(b), s, threshold, 30, 5).tolist() == few[:5]
        assert nms_bev(bev(b), s, threshold, None, 5).tolist() == turned[:5]

    @pytest.mark.parametrize(("function", "columns", "_"), SUPPRESSORS)
    def test_empty_half_and_ties(self, function: Callable[..., Tensor], columns: int, _: str) -> None:
        assert function(torch.zeros(0, columns), torch.zeros(0), 0.5).shape == (0,)
        boxes = torch.tensor([[0.0, 0, 2, 2, 2, 2, 0]]).repeat(3, 1)[:, :columns]
        assert function(boxes, torch.tensor([0.5, 0.5, math.nan]), 0.5).tolist() == [0]
        for dtype in (torch.float16, torch.bfloat16):
            assert function(boxes.to(dtype), torch.ones(3, dtype=dtype), 0.5).tolist() == [0]

    def test_nan_scores_come_last_before_boxes_are_left_out(self) -> None:
        boxes = torch.tensor([[0.0, 0, 2, 2, 0], [5, 5, 7, 7, 0], [9, 9, 11, 11, 0]])
        scores = torch.tensor([math.nan, 0.1, 0.2])
        assert nms_bev(boxes, scores, 0.5, 2).tolist() == [2, 1]
        assert nms_bev(boxes, scores, 0.5, 3).tolist() == [2, 1, 0]

    @pytest.mark.parametrize(("function", "columns", "name"), SUPPRESSORS)
    def test_errors(self, function: Callable[..., Tensor], columns: int, name: str) -> None:
        boxes, scores = torch.ones(3, columns), torch.ones(3)
        with pytest.raises(ValueError, match=rf"{name} must not be negative, got -1"):
            function(boxes, scores, -1)
        with pytest.raises(ValueError, match=r"scores must have shape \(3,\) as boxes has rows, got \(2,\)"):
            function(boxes, scores[:2], 0.5)
        with pytest.raises(ValueError, match=rf"boxes must have shape \(N, {columns}\)"):
            function(boxes[:, :4], scores, 0.5)
        with pytest.raises(TypeError, match="must be floating point"):
            function(boxes.long(), scores, 0.5)
        with pytest.raises(TypeError, match="boxes must be a tensor, got list"):
            function([1.0], scores, 0.5)

    def test_sizes_must_not_be_negative(self) -> None:
        with pytest.raises(ValueError, match="pre_max_size must not be negative, got -1"):
            nms_bev(torch.ones(3, 5), torch.ones(3), 0.5, -1)
