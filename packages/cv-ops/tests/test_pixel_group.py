"""pixel_group against a queue of coordinates in plain Python, float64."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv.ops import pixel_group
from cv_testing import conformance
from cv_testing.ops import DEVICES, check_compile, check_deterministic, check_export, check_opcheck

OP = torch.ops.cv.pixel_group.default


def oracle(
    score: np.ndarray, mask: np.ndarray, embedding: np.ndarray, label: np.ndarray, contour: np.ndarray,
    regions: int, threshold: float,
) -> list[list[float]]:  # fmt: skip
    height, width = label.shape
    result = np.where(label > 0, label, 0)
    vectors = embedding.astype(np.float64)
    centres = {r: vectors[result == r].mean(0) for r in range(1, regions) if (result == r).any()}
    queue = deque((y, x) for y in range(height) for x in range(width) if result[y, x] and contour[y, x])
    while queue:
        y, x = queue.popleft()
        for ny, nx in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if not (0 <= ny < height and 0 <= nx < width) or not mask[ny, nx] or result[ny, nx]:
                continue
            if math.dist(vectors[ny, nx], centres[result[y, x]]) < threshold:
                result[ny, nx] = result[y, x]
                queue.append((ny, nx))
    groups: list[list[float]] = [[0.0, 0.0]]
    for r in range(1, regions):
        ys, xs = np.nonzero(result == r)
        mean = score.astype(np.float64)[ys, xs].mean() if len(ys) else 0.0
        groups.append([mean, float(len(ys)), *np.stack([xs, ys], 1).flatten().tolist()])
    return groups


def random_case(
    height: int = 24, width: int = 33, channels: int = 4, regions: int = 4, seed: int = 0
) -> list[Any]:
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.int32)
    for r in range(1, regions):
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        label[y : y + 3, x : x + 3] = r
    contour = (label > 0) & (rng.random((height, width)) < 0.7)
    # Multiples of 1/4: distances at the threshold are exact.
    embedding = rng.integers(0, 4, (height, width, channels)).astype(np.float32) / 4
    mask = rng.random((height, width)) < 0.85
    return [
        rng.random((height, width), np.float32),
        mask,
        embedding,
        label,
        contour.astype(np.uint8),
        regions,
    ]


def assert_groups(actual: list[list[float]], expected: list[list[float]]) -> None:
    assert isinstance(actual, list)
    assert [a[1:] for a in actual] == [e[1:] for e in expected]
    np.testing.assert_allclose([a[0] for a in actual], [e[0] for e in expected], rtol=1e-6)
    assert all(isinstance(v, float) for a in actual for v in a)


class TestValues:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("threshold", [0.0, 0.5, 0.75, 10.0])
    def test_random_maps(self, seed: int, threshold: float) -> None:
        case = random_case(seed=seed)
        assert_groups(pixel_group(*case, threshold), oracle(*case, threshold))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.data())
    def test_any_small_maps(self, height: int, width: int, channels: int, data: Any) -> None:
        def draw(values: Any, *more: int) -> np.ndarray:
            size = math.prod((height, width, *more))
            return np.array(data.draw(st.lists(values, min_size=size, max_size=size))).reshape(
                height, width, *more
            )

        label = draw(st.sampled_from([-1, 0, 0, 0, 1, 2]))
        mask, contour = draw(st.booleans()), draw(st.booleans())
        embedding = draw(st.integers(0, 2), channels).astype(np.float32)
        case = (draw(st.floats(0, 1, width=32)), mask, embedding, label, contour, 3)
        assert_groups(pixel_group(*case, 1.3), oracle(*case, 1.3))

    def test_index_0_and_labels_without_pixels(self) -> None:
        case = random_case(regions=3)
        case[-1] = 6
        groups = pixel_group(*case, 0.5)
        assert len(groups) == 6
        assert groups[0] == groups[3] == groups[5] == [0, 0]
        nothing = pixel_group(*[np.zeros_like(a) for a in case[:5]], 1, 0.5)
        assert nothing == [[0, 0]]

    def test_pixels_are_x_y_in_reading_order(self) -> None:
        label = np.array([[0, 1], [1, 1]])
        score = np.array([[0.0, 0.25], [0.5, 1.5]], np.float32)
        groups = pixel_group(score, label, np.zeros((2, 2, 1), np.float32), label, label, 2, 0.0)
        assert groups == [[0, 0], [0.75, 3, 1, 0, 0, 1, 1, 1]]

    def test_only_the_contour_starts(self) -> None:
        label = np.array([[1, 0, 0, 0, 2]])
        everywhere = np.ones_like(label)
        embedding = np.zeros((1, 5, 1), np.float32)
        groups = pixel_group(everywhere, everywhere, embedding, label, label == 2, 3, 1.0)
        assert [g[1] for g in groups] == [0, 1, 4]

    def test_nan_embeddings_join_nothing(self) -> None:
        case = random_case()
        case[2][...] = np.nan
        groups = pixel_group(*case, 1e9)
        assert [g[1] for g in groups[1:]] == [(case[3] == r).sum() for r in (1, 2, 3)]


class TestContainers:
    @pytest.mark.parametrize("device", DEVICES)
    def test_tensors_of_any_dtype(self, device: str) -> None:
        case = random_case()
        expected = oracle(*case, 0.6)
        tensors = [torch.from_numpy(a).to(device) for a in case[:5]]
        with conformance.cell("forward", pixel_group, (*tensors, 4, 0.6), device):
            assert_groups(pixel_group(*tensors, 4, 0.6), expected)
        tensors[1], tensors[2], tensors[3] = tensors[1].float(), tensors[2].double(), tensors[3].long()
        assert_groups(pixel_group(*tensors, 4, 0.6), expected)

    def test_non_contiguous(self) -> None:
        case = random_case()
        flipped = [a[::-1, ::-1] for a in case[:5]]
        assert_groups(pixel_group(*flipped, 4, 0.6), oracle(*flipped, 4, 0.6))

    @pytest.mark.parametrize("size", [(0, 3), (3, 0)])
    def test_empty(self, size: tuple[int, int]) -> None:
        empty = torch.zeros(size)
        assert pixel_group(empty, empty, torch.zeros(*size, 2), empty, empty, 2, 1.0) == [[0, 0], [0, 0]]


def test_operator() -> None:
    score, mask, embedding, label, contour, regions = random_case(8, 9)
    args = tuple(torch.from_numpy(a) for a in (score, mask.astype(np.uint8), embedding, label, contour))
    check_opcheck(OP, (*args, regions, 0.5))
    check_compile(lambda *a: OP(*a, regions, 0.5), args, gradient=False)
    check_deterministic(lambda *a: OP(*a, regions, 0.5), args, gradient=False)
    check_export(lambda *a: OP(*a, regions, 0.5), args)
    bad_args = args[0].double(), args[1].bool(), args[2].double(), args[3].long(), args[4][1:]
    for i, bad in enumerate(bad_args):
        with pytest.raises(RuntimeError, match="pixel_group"):
            OP(*args[:i], bad, *args[i + 1 :], regions, 0.5)
    with pytest.raises(RuntimeError, match="kernel_label has the label"):
        OP(*args, 2, 0.5)


def test_errors() -> None:
    score, mask, embedding, label, contour, _ = random_case()
    with pytest.raises(ValueError, match=r"kernel_region_num must be at most 2\^24, got 2147483648"):
        pixel_group(score, mask, embedding, label, contour, 2**31, 0.5)
    with pytest.raises(ValueError, match=r"kernel_region_num must be greater than .* 3, got 3"):
        pixel_group(score, mask, embedding, label, contour, 3, 0.5)
    with pytest.raises(ValueError, match=r"embedding must have shape \(H, W, C\), got \(24, 33\)"):
        pixel_group(score, mask, score, label, contour, 4, 0.5)
    with pytest.raises(ValueError, match=r"mask must have shape \(24, 33\) as embedding has, got \(23, 33\)"):
        pixel_group(score, mask[1:], embedding, label, contour, 4, 0.5)
    with pytest.raises(TypeError, match="score must be a tensor or an array, got list"):
        pixel_group(score.tolist(), mask, embedding, label, contour, 4, 0.5)
