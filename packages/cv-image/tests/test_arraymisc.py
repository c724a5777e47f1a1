from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cv.arraymisc import dequantize, quantize


@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3), elements=st.floats(-1e6, 1e6)),
    st.floats(-100, 99),
    st.floats(0.5, 100),
    st.integers(1, 300),
)
def test_quantize_is_its_formula(arr, low, width, levels):
    before = arr.copy()
    result = quantize(arr, low, low + width, levels)
    np.testing.assert_array_equal(arr, before)
    assert result.dtype == np.int64
    assert result.shape == arr.shape
    exact = (np.clip(arr, low, low + width) - low) * levels / (low + width - low)
    expected = np.minimum(np.floor(exact), levels - 1)
    off = result != expected
    assert np.abs(exact - np.rint(exact))[off].max(initial=0) < 1e-9  # only on the border of two levels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [0.0625, 0.75, 1.0, 2.0, 3.0, 4.0, 256.0])
@pytest.mark.parametrize("levels", [1, 7, 10, 255, 256])
def test_on_the_border_of_two_levels(dtype, width, levels):
    borders = (np.arange(levels + 1) * width / levels - 2).astype(dtype)
    arr = np.concatenate([borders, np.nextafter(borders, dtype(-9)), np.nextafter(borders, dtype(999))])
    steps = (np.clip(arr, -2, width - 2) - dtype(-2)) * dtype(levels) / dtype(width)
    expected = np.minimum(np.floor(steps), levels - 1)
    np.testing.assert_array_equal(quantize(arr, -2, width - 2, levels), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.float16])
def test_dtypes(dtype):
    arr = np.array([[0, 1, 2, 3], [4, 5, 6, 250]], dtype)
    for out in (np.uint8, np.int32, np.float32):
        result = quantize(arr, 0, 6, 3, out)
        assert result.dtype == out
        np.testing.assert_array_equal(result, [[0, 0, 1, 1], [2, 2, 2, 2]])
        np.testing.assert_array_equal(quantize(arr[::-1, ::2], 0, 6, 3, out), result[::-1, ::2])


def test_outside_and_not_a_number():
    arr = np.array([-np.inf, -1, 0, 1, np.inf, np.nan])
    np.testing.assert_array_equal(quantize(arr, 0, 1, 10), [0, 0, 0, 9, 9, 0])
    assert quantize(np.zeros((0, 3)), 0, 1, 2).shape == (0, 3)
    assert quantize(np.float64(0.7), 0, 1, 10) == 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [1, 7, 16, 33, 65535, 65537])
def test_not_a_number_anywhere(dtype, length):
    arr = np.full(length, np.nan, dtype)
    np.testing.assert_array_equal(quantize(arr, 0, 1, 5), np.zeros(length))
    arr[::3], arr[1::5] = 0.5, np.inf
    expected = np.select([arr == 0.5, arr == np.inf], [2, 4], 0)
    np.testing.assert_array_equal(quantize(arr, 0, 1, 5), expected)
    np.testing.assert_array_equal(quantize(arr, 0, 1, 5, np.float32), expected)


@given(st.integers(1, 1000), st.floats(-100, 100), st.floats(0.1, 100))
def test_dequantize_gives_the_middle(levels, low, width):
    every = np.arange(levels)
    values = dequantize(every, low, low + width, levels)
    np.testing.assert_allclose(values, low + (every + 0.5) * (low + width - low) / levels)
    np.testing.assert_array_equal(quantize(values, low, low + width, levels), every)


def test_dequantize_dtype():
    assert dequantize(np.array([1], np.uint8), 0, 1, 4, np.float32).dtype == np.float32
    np.testing.assert_array_equal(dequantize(np.array([[0, 3]], np.uint8), -1, 1, 4), [[-0.75, 0.75]])


@pytest.mark.parametrize("function", [quantize, dequantize])
def test_refuses(function):
    arr = np.zeros(3)
    for levels in (0, -1, 2.5, "3", None, True):
        with pytest.raises(ValueError, match="levels must be a positive integer"):
            function(arr, 0, 1, levels)
    for low, high in ((1, 1), (2, 1), (np.nan, 1)):
        with pytest.raises(ValueError, match="min_val must be below max_val"):
            function(arr, low, high, 2)
