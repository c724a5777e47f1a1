"""Pointwise functions against Pillow for uint8, and against their formula in float64 for the other dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageEnhance, ImageOps

from cv import image
from cv_testing.images import smooth_image

UINT8 = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12).map(lambda shape: (*shape[:2], 3)),
)
FACTORS = st.floats(0, 3, width=32)


def pillow(img: np.ndarray) -> Image.Image:
    """BGR to a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(img[..., ::-1]))


def back(img: Image.Image) -> np.ndarray:
    return np.asarray(img)[..., ::-1]


@given(UINT8)
def test_iminvert_is_pillows(img):
    np.testing.assert_array_equal(image.iminvert(img), back(ImageOps.invert(pillow(img))))


def test_iminvert_of_other_dtypes():
    np.testing.assert_array_equal(image.iminvert(np.array([[0, 1, 65535]], np.uint16)), [[65535, 65534, 0]])
    floats = np.array([[0, 0.5, 255, 300]], np.float32)
    np.testing.assert_array_equal(image.iminvert(floats), [[255, 254.5, 0, -45]])


@given(UINT8, st.integers(1, 8))
def test_posterize_is_pillows(img, bits):
    np.testing.assert_array_equal(image.posterize(img, bits), back(ImageOps.posterize(pillow(img), bits)))


def test_posterize_of_other_dtypes():
    values = np.array([[0, 1, 0x7FFF, 0xABCD, 0xFFFF]], np.uint16)
    np.testing.assert_array_equal(image.posterize(values, 4), [[0, 0, 0x7000, 0xA000, 0xF000]])
    np.testing.assert_array_equal(image.posterize(values, 0), np.zeros((1, 5)))
    floats = np.array([[0, 31.9, 32, 100.5, 255]], np.float32)
    np.testing.assert_array_equal(image.posterize(floats, 3), [[0, 0, 32, 96, 224]])


@pytest.mark.parametrize("bits", [-1, 9, 2.0, None, True])
def test_posterize_refuses(bits):
    with pytest.raises(ValueError, match="bits must be an integer from 0 to 8"):
        image.posterize(np.zeros((2, 2), np.uint8), bits)


@given(UINT8, st.integers(0, 256))
def test_solarize_is_pillows(img, thr):
    np.testing.assert_array_equal(image.solarize(img, thr), back(ImageOps.solarize(pillow(img), thr)))


@pytest.mark.parametrize("thr", [-3, 0, 0.5, 127.5, 255, 255.5, 256, 1000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_solarize_is_its_formula(thr, dtype):
    top = 65535 if dtype == np.uint16 else 255
    img = np.arange(0, top + 1, 1 if top == 255 else 17).astype(dtype).reshape(1, -1)
    exact = np.where(img.astype(float) < thr, img, top - img.astype(float))
    np.testing.assert_array_equal(image.solarize(img, thr), exact)


@given(UINT8, FACTORS)
@settings(max_examples=200)
def test_adjust_brightness_is_pillows(img, factor):
    expected = back(ImageEnhance.Brightness(pillow(img)).enhance(factor))
    np.testing.assert_array_equal(image.adjust_brightness(img, factor), expected)


@pytest.mark.parametrize("factor", [0, 0.1, 0.3, 0.5, 0.7, 0.999, 1, 1.001, 1.1, 1.5, 2, 3.3, 100])
def test_adjust_brightness_for_every_value(factor):
    img = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = back(ImageEnhance.Brightness(pillow(img)).enhance(factor))
    np.testing.assert_array_equal(image.adjust_brightness(img, factor), expected)
    floats = img.astype(np.float32)
    exact = np.clip(img * np.float64(factor), 0, 255)
    np.testing.assert_allclose(image.adjust_brightness(floats, factor), exact, rtol=1e-6)
    wide = img.astype(np.uint16) * 257
    exact = np.clip(np.floor(wide * np.float64(factor) + 1e-9), 0, 65535)
    np.testing.assert_array_equal(image.adjust_brightness(wide, factor), exact)


@pytest.mark.parametrize("width", [1, 17, 43, 256])
def test_adjust_brightness_by_many_factors(width):
    """Computed or looked up, at the ends of rows too: Pillow's float32 product, cut off."""
    rng = np.random.default_rng(width)
    img = np.resize(np.arange(256, dtype=np.uint8), (256, width))
    for factor in rng.uniform(0.2, 3, 100).tolist():
        exact = np.minimum(np.float32(factor) * img.astype(np.float32), 255).astype(np.uint8)
        np.testing.assert_array_equal(image.adjust_brightness(img, factor), exact)


def test_adjust_sharpness_by_many_factors():
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)
    for factor in [-1.5, 0.0, 0.3, 1 / 3, 1.0, 1.1, 100.0, 12345.6, *rng.uniform(0, 3, 60).tolist()]:
        expected = back(ImageEnhance.Sharpness(pillow(img)).enhance(factor))
        np.testing.assert_array_equal(image.adjust_sharpness(img, factor)[1:-1, 1:-1], expected[1:-1, 1:-1])


@given(UINT8, FACTORS)
@settings(max_examples=200)
def test_adjust_contrast_is_pillows(img, factor):
    # Pillow and OpenCV may round the grey of a pixel differently, and so the mean.
    grey = np.asarray(pillow(img).convert("L"), float)
    if not 0.05 < (grey.mean() + 0.5) % 1 < 0.95:
        return
    grey_difference = np.abs(image.bgr2gray(img).astype(int) - grey)
    if grey_difference.any():
        return
    expected = back(ImageEnhance.Contrast(pillow(img)).enhance(factor))
    np.testing.assert_array_equal(image.adjust_contrast(img, factor), expected)


@pytest.mark.parametrize("factor", [0, 0.2, 0.5, 0.9, 1, 1.3, 2, 5])
def test_adjust_contrast_of_a_photo(factor):
    img = smooth_image(64, 48)
    expected = back(ImageEnhance.Contrast(pillow(img)).enhance(factor))
    np.testing.assert_array_equal(image.adjust_contrast(img, factor), expected)
    for dtype, top, scale in ((np.float32, 255, 1), (np.uint16, 65535, 257)):
        values = img.astype(dtype) * dtype(scale)
        mean = int((values @ np.array([0.114, 0.587, 0.299])).mean() + 0.5)
        exact = np.clip(mean + factor * (values.astype(float) - mean), 0, top)
        result = image.adjust_contrast(values, factor)
        assert np.abs(result - exact).max() <= (1 if dtype == np.uint16 else 1e-2) + abs(1 - factor)


def test_adjust_contrast_of_grey():
    img = np.array([[0, 100], [100, 200]], np.uint8)
    np.testing.assert_array_equal(image.adjust_contrast(img, 0), np.full((2, 2), 100))
    np.testing.assert_array_equal(image.adjust_contrast(img, 2), [[0, 100], [100, 255]])


@given(UINT8, st.floats(-1, 2), st.none() | st.floats(-1, 2), st.floats(-50, 50))
def test_adjust_color_is_its_formula(img, alpha, beta, gamma):
    grey = image.bgr2gray(img, keepdim=True).astype(float)
    exact = img * alpha + grey * (1 - alpha if beta is None else beta) + gamma
    result = image.adjust_color(img, alpha, beta, gamma)
    assert np.abs(result - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-3
    floats = image.adjust_color(img.astype(np.float32), alpha, beta, gamma)
    exact = (
        img * alpha
        + (img @ np.array([0.114, 0.587, 0.299]))[..., None] * (1 - alpha if beta is None else beta)
        + gamma
    )
    np.testing.assert_allclose(floats, np.clip(exact, 0, 255), rtol=1e-4, atol=1e-3)


def test_adjust_color_ends():
    img = smooth_image()
    np.testing.assert_array_equal(image.adjust_color(img), img)
    np.testing.assert_array_equal(image.adjust_color(img, 0), image.gray2bgr(image.bgr2gray(img)))
    with pytest.raises(ValueError, match=r"got \(2, 2, 4\)"):
        image.adjust_color(np.zeros((2, 2, 4), np.uint8))


@given(UINT8, FACTORS)
def test_adjust_sharpness_is_pillows_inside(img, factor):
    expected = back(ImageEnhance.Sharpness(pillow(img)).enhance(factor)).astype(int)
    result = image.adjust_sharpness(img, factor).astype(int)
    inside = (slice(1, -1), slice(1, -1))
    assert np.abs(result - expected)[inside].max(initial=0) <= 1


@pytest.mark.parametrize("factor", [0, 0.5, 1, 1.5, 2, 4])
def test_adjust_sharpness_of_a_photo(factor):
    img = smooth_image(64, 48)
    expected = back(ImageEnhance.Sharpness(pillow(img)).enhance(factor))
    result = image.adjust_sharpness(img, factor)
    np.testing.assert_array_equal(result[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_adjust_sharpness_with_a_kernel():
    img = np.random.default_rng(0).random((8, 9, 3), np.float32) * 255
    kernel = np.full((3, 5), 1 / 15)
    padded = np.pad(img.astype(float), ((1, 1), (2, 2), (0, 0)), "reflect")
    smooth = sum(padded[y : y + 8, x : x + 9] for y in range(3) for x in range(5)) / 15
    exact = np.clip(img * 1.5 - smooth * 0.5, 0, 255)
    np.testing.assert_allclose(image.adjust_sharpness(img, 1.5, kernel), exact, atol=1e-3)
    for bad in ([[1]], np.ones(3), "3x3"):
        with pytest.raises(AssertionError, match="kernel must be a two-dimensional ndarray"):
            image.adjust_sharpness(img, 1.0, bad)


def test_adjust_lighting_is_its_formula():
    img = smooth_image()
    values, vectors = np.array([55.4, 4.8, 1.1]), np.random.default_rng(0).normal(size=(3, 3))
    np.random.seed(3)  # noqa: NPY002 - it draws from the global generator
    result = image.adjust_lighting(img, values, vectors, 0.5)
    np.random.seed(3)  # noqa: NPY002
    alpha = np.random.normal(0, 0.5, 3)  # noqa: NPY002
    exact = img[..., ::-1] + vectors @ (alpha * values)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, atol=1e-4)
    same = image.adjust_lighting(img, values, vectors, 0, to_rgb=False)
    np.testing.assert_array_equal(same, img)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (([1, 1, 1], np.eye(3)), "must be ndarrays"),
        ((np.ones(3), [[1]]), "must be ndarrays"),
        ((np.ones(2), np.eye(3)), r"\(2,\) and \(3, 3\)"),
        ((np.ones(3), np.eye(3), "0.1"), "alphastd"),
        ((np.ones(3), np.eye(3), -1), "alphastd"),
        ((np.ones(3), np.eye(3), True), "alphastd"),
        ((np.ones(2), np.eye(2)), "img must have shape"),
    ],
)
def test_adjust_lighting_refuses(args, reason):
    with pytest.raises(AssertionError, match=reason):
        image.adjust_lighting(np.zeros((2, 2, 3), np.uint8), *args)


@given(UINT8, st.floats(-0.5, 0.5))
def test_adjust_hue(img, factor):
    import colorsys

    result = image.adjust_hue(img, factor)
    assert result.shape == img.shape
    assert result.dtype == np.uint8
    # HSV: the value (largest channel) stays but for rounding, the hue turns by that part of a circle.
    assert np.abs(result.max(axis=2).astype(int) - img.max(axis=2)).max() <= 1
    for before, after in zip(img.reshape(-1, 3) / 255, result.reshape(-1, 3) / 255, strict=True):
        h0, s0, v0 = colorsys.rgb_to_hsv(*before[::-1])
        h1, _, _ = colorsys.rgb_to_hsv(*after[::-1])
        if s0 * v0 > 0.5:
            assert abs((h1 - h0 - factor + 0.5) % 1 - 0.5) <= 0.02


def test_adjust_hue_backends_and_errors():
    img = smooth_image()
    for factor in (-0.5, -0.2, 0, 0.3):
        ours, pillows = image.adjust_hue(img, factor), image.adjust_hue(img, factor, backend="pillow")
        assert np.abs(ours.astype(int) - pillows).mean() < 4
    grey = img[..., 0]
    np.testing.assert_array_equal(image.adjust_hue(grey, 0.3), grey)
    with pytest.raises(ValueError, match="hue_factor"):
        image.adjust_hue(img, 0.6)
    with pytest.raises(ValueError, match="backend"):
        image.adjust_hue(img, 0.1, "tifffile")
    with pytest.raises(TypeError, match="uint8"):
        image.adjust_hue(img.astype(np.float32), 0.1)
    with pytest.raises(TypeError, match="one or three channels"):
        image.adjust_hue(np.zeros((2, 2, 2), np.uint8), 0.1)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.int8, np.complex64])
def test_dtypes_without_a_known_range_are_refused(dtype):
    with pytest.raises(TypeError, match="img must be uint8, uint16, float32 or float64"):
        image.iminvert(np.zeros((2, 2), dtype))


def test_large_factors_and_nan_do_not_crash():
    img = np.array([[np.nan, np.inf, -np.inf, 1e30]], np.float32)
    result = image.adjust_brightness(img, 2)
    np.testing.assert_array_equal(result, [[np.nan, 255, 0, 255]])
