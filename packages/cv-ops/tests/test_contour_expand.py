"""contour_expand against a queue of coordinates in plain Python."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv.ops import contour_expand
from cv_testing import conformance
from cv_testing.ops import DEVICES, check_compile, check_deterministic, check_export, check_opcheck

OP = torch.ops.cv.contour_expand.default


def oracle(masks: np.ndarray, labels: np.ndarray, min_area: int) -> np.ndarray:
    height, width = labels.shape
    kept = [v for v in np.unique(labels) if v > 0 and (labels == v).sum() >= min_area]
    result = np.where(np.isin(labels, kept), labels, 0)
    frontier = [(y, x) for y in range(height) for x in range(width) if result[y, x]]
    for mask in masks[::-1]:
        queue, frontier = deque(frontier), []
        while queue:
            y, x = queue.popleft()
            frontier.append((y, x))
            for ny, nx in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                inside = 0 <= ny < height and 0 <= nx < width
                if inside and mask[ny, nx] and not result[ny, nx]:
                    result[ny, nx] = result[y, x]
                    queue.append((ny, nx))
    return result


def nested_masks(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Largest first, each inside the one before."""
    noise = np.random.default_rng(seed).random((height, width))
    return np.stack([noise < 0.9 - 0.5 * k / count for k in range(count)]).astype(np.uint8)


def random_case(
    count: int = 4, height: int = 30, width: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = nested_masks(count, height, width, seed)
    seeds = (rng.random((height, width)) < 0.05) & (masks[-1] > 0)
    return masks, np.where(seeds, rng.integers(1, 6, (height, width)), 0).astype(np.int32)


class TestValues:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("min_area", [0, 1, 11, 10**6])
    def test_random_masks(self, seed: int, min_area: int) -> None:
        masks, labels = random_case(seed=seed)
        actual = contour_expand(masks, labels, min_area, 6)
        np.testing.assert_array_equal(actual, oracle(masks, labels, min_area))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7), st.data())
    def test_any_masks_and_labels(self, count: int, height: int, width: int, data: Any) -> None:
        """Masks that are not nested, labels outside of them, borders everywhere."""
        size = height * width
        bits = data.draw(st.lists(st.booleans(), min_size=count * size, max_size=count * size))
        numbers = data.draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size))
        masks = np.array(bits, np.uint8).reshape(count, height, width)
        labels = np.array(numbers, np.int32).reshape(height, width)
        np.testing.assert_array_equal(contour_expand(masks, labels, 2, 4), oracle(masks, labels, 2))

    def test_kernels_are_used_from_the_smallest_to_the_largest(self) -> None:
        # In the small mask label 1 has the middle to itself; in the large one alone label 2 takes half of it.
        large = np.ones((1, 9), np.uint8)
        middle = np.array([[1, 1, 1, 1, 1, 1, 0, 1, 1]], np.uint8)
        labels = np.array([[1, 0, 0, 0, 0, 0, 0, 2, 2]])
        actual = contour_expand(np.stack([large, middle]), labels, 1, 3)
        assert actual.tolist() == [[1, 1, 1, 1, 1, 1, 2, 2, 2]]
        at_once = contour_expand(large, labels, 1, 3)
        assert at_once.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 2]]

    def test_one_mask_may_come_without_its_axis(self) -> None:
        masks, labels = random_case(count=1)
        np.testing.assert_array_equal(
            contour_expand(masks[0], labels, 1, 6), contour_expand(masks, labels, 1, 6)
        )

    def test_labels_beyond_kernel_num_are_labels_like_others(self) -> None:
        masks, labels = random_case(seed=7)
        high = np.where(labels > 0, labels + (2**31 - 7), 0)
        expected = contour_expand(masks, labels, 5, 6)
        actual = contour_expand(masks, high, 5, 1)
        np.testing.assert_array_equal(actual, np.where(expected > 0, expected + (2**31 - 7), 0))

    def test_a_spiral_is_followed_to_its_end(self) -> None:
        size = 41
        mask = np.zeros((size, size), np.uint8)
        y, x, dy, dx = 0, 0, 0, 1
        mask[y, x] = 1
        while True:
            for _ in range(2):
                ahead = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
                inside = [0 <= a < size and 0 <= b < size for a, b in ahead]
                if inside[0] and not (inside[1] and mask[ahead[1]]):
                    break
                dy, dx = dx, -dy
            else:
                break
            y, x = y + dy, x + dx
            if mask[y, x]:
                break
            mask[y, x] = 1
        labels = np.zeros_like(mask, np.int32)
        labels[0, 0] = 5
        assert mask.sum() > size * size / 3
        np.testing.assert_array_equal(contour_expand(mask, labels, 1, 6), mask.astype(np.int32) * 5)


class TestContainers:
    @pytest.mark.parametrize("device", DEVICES)
    def test_tensors(self, device: str) -> None:
        masks, labels = random_case()
        args = torch.from_numpy(masks).to(device).bool(), torch.from_numpy(labels).to(device).long(), 1, 6
        with conformance.cell("forward", contour_expand, args, device):
            actual = contour_expand(*args)
            assert actual.device.type == device
            assert actual.dtype == torch.int32
            np.testing.assert_array_equal(actual.cpu(), oracle(masks, labels, 1))

    def test_arrays_and_mixtures(self) -> None:
        masks, labels = random_case()
        expected = oracle(masks, labels, 1)
        array = contour_expand(masks.astype(np.float32), torch.from_numpy(labels), 1, 6)
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, expected)
        flipped = contour_expand(masks[:, ::-1, ::-1], labels[::-1, ::-1], 10**6, 6)
        assert not flipped.any()

    @pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
    def test_empty(self, shape: tuple[int, ...]) -> None:
        labels = torch.ones(shape[1:], dtype=torch.int32)
        assert torch.equal(contour_expand(torch.zeros(shape), labels, 1, 2), labels)

    def test_inputs_are_left_alone(self) -> None:
        masks, labels = random_case()
        before = masks.copy(), labels.copy()
        contour_expand(masks, labels, 1, 6)
        np.testing.assert_array_equal(masks, before[0])
        np.testing.assert_array_equal(labels, before[1])


def test_operator() -> None:
    masks, labels = (torch.from_numpy(a) for a in random_case(2, 6, 7))
    check_opcheck(OP, (masks, labels, 1))
    check_compile(lambda m, i: contour_expand(m, i, 1, 6), (masks, labels), gradient=False)
    check_deterministic(lambda m, i: contour_expand(m, i, 1, 6), (masks, labels), gradient=False)
    check_export(lambda m, i: contour_expand(m, i, 1, 6), (masks, labels))


def test_errors() -> None:
    masks, labels = random_case()
    with pytest.raises(ValueError, match=r"kernel_mask must have shape \(K, H, W\) or \(H, W\), got \(40,\)"):
        contour_expand(masks[0, 0], labels, 1, 6)
    with pytest.raises(ValueError, match=r"internal_kernel_label must have shape \(30, 40\).*got \(29, 40\)"):
        contour_expand(masks, labels[1:], 1, 6)
    with pytest.raises(ValueError, match="internal_kernel_label must fit into int32, got 2147483648"):
        contour_expand(masks, np.where(labels > 0, 2**31, 0), 1, 6)
    with pytest.raises(TypeError, match="kernel_mask must be a tensor or an array, got list"):
        contour_expand(masks.tolist(), labels, 1, 6)  # type: ignore[call-overload]
    m, i = torch.from_numpy(masks), torch.from_numpy(labels)
    for bad in ((m[0], i), (m.float(), i), (m, i.long()), (m, i[1:])):
        with pytest.raises(RuntimeError, match="contour_expand"):
            OP(*bad, 1)
