from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cv import image
from cv_testing.images import smooth_image


def bilinear(img: np.ndarray, width: int, height: int) -> np.ndarray:
    """Slow float64 bilinear resizing with pixel centres at half-integers and edges repeated."""

    def weights(old: int, new: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for i in range(new):
            position = (i + 0.5) * old / new - 0.5
            low = int(np.floor(position))
            for index, weight in ((low, low + 1 - position), (low + 1, position - low)):
                matrix[i, min(max(index, 0), old - 1)] += weight
        return matrix

    rows = np.tensordot(weights(img.shape[0], height), img.astype(float), 1)
    return np.moveaxis(np.tensordot(weights(img.shape[1], width), rows, (1, 1)), 0, 1)


@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1), (9, 14, 3), (9, 14, 6)])
@pytest.mark.parametrize("size", [(21, 6), (7, 30), (14, 9), (1, 1)])
def test_bilinear_against_float64(shape, size):
    img = np.random.default_rng(0).random(shape).astype(np.float32) * 255
    np.testing.assert_allclose(image.imresize(img, size), bilinear(img, *size), atol=2e-2)
    rounded = img.astype(np.uint8)
    assert np.abs(image.imresize(rounded, size) - bilinear(rounded, *size)).max() <= 1


def test_nearest_and_area():
    img = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(
        image.imresize(img, (16, 12), interpolation="nearest"), img.repeat(2, axis=0).repeat(2, axis=1)
    )
    mean = img.reshape(3, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image.imresize(img, (4, 3), interpolation="area"), mean, atol=0.5)
    mask = np.arange(6).reshape(2, 3) % 2 == 0
    wide = image.imresize(mask, (6, 4), interpolation="nearest")
    assert wide.dtype == np.bool_
    np.testing.assert_array_equal(wide, mask.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "box", "lanczos", "hamming"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4, 5])
def test_pillow(interpolation, channels):
    img = smooth_image(20, 30, channels or 1)
    img = img[..., 0] if channels is None else img
    result = image.imresize(img, (13, 9), interpolation=interpolation, backend="pillow")
    assert result.shape == (9, 13, *img.shape[2:])
    for channel in range(channels or 1):
        plane = Image.fromarray(np.ascontiguousarray(img.reshape(20, 30, -1)[..., channel]))
        expected = np.asarray(plane.resize((13, 9), Image.Resampling[interpolation.upper()]))
        np.testing.assert_array_equal(result.reshape(9, 13, -1)[..., channel], expected)


def test_the_selected_backend_is_used():
    img = smooth_image(20, 30)
    with image.use_backend("pillow"):
        np.testing.assert_array_equal(
            image.imresize(img, (7, 5)), image.imresize(img, (7, 5), backend="pillow")
        )
        np.testing.assert_array_equal(image.imresize(img, (7, 5), backend="cv2"), cv2.resize(img, (7, 5)))
    np.testing.assert_array_equal(image.imresize(img, (7, 5)), cv2.resize(img, (7, 5)))


def test_return_scale_and_out():
    img = smooth_image(20, 30)
    resized, w_scale, h_scale = image.imresize(img, (60, 10), return_scale=True)
    assert (resized.shape, w_scale, h_scale) == ((10, 60, 3), 2.0, 0.5)
    for out in (np.empty((10, 60, 3), np.uint8), np.empty((60, 10, 3), np.uint8).swapaxes(0, 1)):
        assert image.imresize(img, (60, 10), out=out) is out
        np.testing.assert_array_equal(out, resized)
    with pytest.raises(ValueError, match=r"out must have shape \(10, 60, 3\)"):
        image.imresize(img, (60, 10), out=np.empty((10, 60), np.uint8))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5, 5, 5), (5.0, 5)])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size must be two positive integers"):
        image.imresize(np.zeros((4, 4), np.uint8), size)


def test_bad_options():
    img = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="backend must be"):
        image.imresize(img, (2, 2), backend="not support")
    with pytest.raises(ValueError, match=r"interpolation must be one of.*'cubic'"):
        image.imresize(img, (2, 2), interpolation="cubic")
    with pytest.raises(ValueError, match=r"interpolation must be one of.*'area'"):
        image.imresize(img, (2, 2), interpolation="area", backend="pillow")
    with pytest.raises(TypeError, match="must be uint8 for backend pillow"):
        image.imresize(img.astype(np.float32), (2, 2), backend="pillow")
    with pytest.raises(TypeError, match="int64"):
        image.imresize(img.astype(np.int64), (2, 2))


def test_imresize_like():
    img, other = smooth_image(20, 30), np.zeros((7, 11))
    resized, w_scale, h_scale = image.imresize_like(img, other, return_scale=True, interpolation="nearest")
    assert (resized.shape, w_scale, h_scale) == ((7, 11, 3), 11 / 30, 7 / 20)
    np.testing.assert_array_equal(image.imresize_like(img, other, interpolation="nearest"), resized)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"divisor": 16, "size": (25, 30)}, (32, 32)),
        ({"divisor": (33, 32), "size": (25, 30)}, (32, 33)),
        ({"divisor": 16, "size": 31}, (32, 32)),
        ({"divisor": 16, "size": (20, 60), "keep_ratio": True}, (32, 32)),
        ({"divisor": 1, "size": (20, 60), "keep_ratio": True}, (20, 30)),
        ({"divisor": 16, "scale_factor": 2}, (48, 64)),
        ({"divisor": 5, "scale_factor": (0.5, 1.5)}, (30, 15)),
    ],
)
def test_imresize_to_multiple(options, shape):
    img = smooth_image(20, 30)
    resized, w_scale, h_scale = image.imresize_to_multiple(img, return_scale=True, **options)
    assert resized.shape == (*shape, 3)
    assert (w_scale, h_scale) == (shape[1] / 30, shape[0] / 20)
    np.testing.assert_array_equal(image.imresize_to_multiple(img, **options), resized)


def test_imresize_to_multiple_refuses():
    img = smooth_image(20, 30)
    with pytest.raises(ValueError, match="only one of size and scale_factor"):
        image.imresize_to_multiple(img, 16, size=(5, 5), scale_factor=2)
    with pytest.raises(ValueError, match="got neither"):
        image.imresize_to_multiple(img, 16)
    with pytest.raises(ValueError, match="divisor must be positive"):
        image.imresize_to_multiple(img, 0, size=5)


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        (1.5, (600, 450)),
        (0.5, (200, 150)),
        ((1000, 600), (800, 600)),
        ((600, 1000), (800, 600)),
        ((900, 100), (133, 100)),
        (np.float32(2), (800, 600)),
        (1e-9, (1, 1)),
    ],
)
def test_rescale_size(scale, size):
    assert image.rescale_size((400, 300), scale) == size


def test_rescale_size_return_scale_and_errors():
    assert image.rescale_size((400, 300), (1000, 600), return_scale=True) == ((800, 600), 2.0)
    for bad in (0, -0.5, float("nan"), (-1, 5), (1, 2, 3)):
        with pytest.raises(ValueError, match="scale must be"):
            image.rescale_size((400, 300), bad)
    for bad in ([100, 100], "2", None):
        with pytest.raises(TypeError, match="scale must be a number or a tuple"):
            image.rescale_size((400, 300), bad)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 500), st.integers(1, 500))
def test_rescaling_fits(width, height, long_side, short_side):
    new = image.rescale_size((width, height), (long_side, short_side))
    assert max(new) <= max(long_side, short_side)
    assert min(new) <= min(long_side, short_side) or min(new) == 1
    assert max(new) == max(long_side, short_side) or min(new) == min(long_side, short_side)


def test_imrescale():
    img = smooth_image(20, 30)
    resized, factor = image.imrescale(img, (60, 60), return_scale=True)
    assert (resized.shape, factor) == ((40, 60, 3), 2.0)
    np.testing.assert_array_equal(image.imrescale(img, 2.0), resized)
    assert image.imrescale(img, 0.5, interpolation="nearest", backend="pillow").shape == (10, 15, 3)
