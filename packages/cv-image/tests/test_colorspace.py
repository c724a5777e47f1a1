from __future__ import annotations

import colorsys

import numpy as np
import pytest

from cv import image

# MATLAB's documentation of rgb2ycbcr gives the matrix and the offset below; its results for the corners
# of the colour cube, rounded.
MATLAB_CORNERS = {
    (0, 0, 0): (16, 128, 128),
    (255, 255, 255): (235, 128, 128),
    (255, 0, 0): (81, 90, 240),
    (0, 255, 0): (145, 54, 34),
    (0, 0, 255): (41, 240, 110),
    (255, 255, 0): (210, 16, 146),
    (0, 255, 255): (170, 166, 16),
    (255, 0, 255): (106, 202, 222),
}
MATRIX = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]])
OFFSET = np.array([16, 128, 128])


def all_levels(step):
    levels = np.append(np.arange(0, 255, step), 255)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3).astype(np.uint8)


def test_ycbcr_of_the_colour_cube():
    rgb = np.array([list(MATLAB_CORNERS)], np.uint8)
    np.testing.assert_array_equal(image.rgb2ycbcr(rgb)[0], list(MATLAB_CORNERS.values()))


def test_ycbcr_against_float64():
    rgb = all_levels(5)
    exact = rgb / 255.0 @ MATRIX.T + OFFSET
    got = image.rgb2ycbcr(rgb)
    assert np.abs(got - exact).max() <= 0.5 + 1e-4
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    assert np.abs(image.bgr2ycbcr(bgr) - exact).max() <= 0.5 + 1e-4
    for y_only in (image.rgb2ycbcr(rgb, True), image.bgr2ycbcr(bgr, y_only=True)):
        assert np.abs(y_only - exact[..., 0]).max() <= 0.5 + 1e-4
    unit = (rgb / 255.0).astype(np.float32)
    np.testing.assert_allclose(image.rgb2ycbcr(unit), exact / 255, atol=1e-6)
    np.testing.assert_allclose(image.rgb2ycbcr(unit, y_only=True), exact[..., 0] / 255, atol=1e-6)


def test_ycbcr_back_against_float64():
    ycbcr = all_levels(5)
    exact = np.clip((ycbcr.astype(float) - OFFSET) @ np.linalg.inv(MATRIX.T) * 255, 0, 255)
    got = image.ycbcr2rgb(ycbcr)
    assert np.abs(got - exact).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(image.ycbcr2bgr(ycbcr), got[..., ::-1])
    unit = (ycbcr / 255.0).astype(np.float32)
    unclipped = (unit.astype(float) - OFFSET / 255) @ np.linalg.inv(MATRIX.T) * 255
    np.testing.assert_allclose(image.ycbcr2rgb(unit), unclipped, atol=2e-6)


def test_ycbcr_round_trip():
    rgb = np.random.default_rng(0).random((6, 7, 3), np.float32)
    np.testing.assert_allclose(image.ycbcr2rgb(image.rgb2ycbcr(rgb)), rgb, atol=2e-6)
    np.testing.assert_allclose(image.ycbcr2bgr(image.bgr2ycbcr(rgb)), rgb, atol=2e-6)


@pytest.mark.parametrize("name", ["rgb2ycbcr", "bgr2ycbcr", "ycbcr2rgb", "ycbcr2bgr"])
def test_ycbcr_dtypes(name):
    for dtype in (np.uint16, np.float64, np.int32):
        with pytest.raises(TypeError, match=f"uint8 or float32, got {np.dtype(dtype)}"):
            getattr(image, name)(np.zeros((2, 2, 3), dtype))


def test_grey_is_bt601():
    bgr = all_levels(17)
    exact = bgr @ np.array([0.114, 0.587, 0.299])
    assert np.abs(image.bgr2gray(bgr) - exact).max() <= 0.51
    np.testing.assert_array_equal(image.rgb2gray(np.ascontiguousarray(bgr[..., ::-1])), image.bgr2gray(bgr))
    assert image.bgr2gray(bgr).shape == bgr.shape[:2]
    assert image.bgr2gray(bgr, keepdim=True).shape == (*bgr.shape[:2], 1)
    assert image.rgb2gray(bgr, True).shape == (*bgr.shape[:2], 1)
    np.testing.assert_allclose(image.bgr2gray(bgr.astype(np.float32)), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("to", "back", "oracle"),
    [
        ("bgr2hsv", "hsv2bgr", colorsys.rgb_to_hsv),
        ("bgr2hls", "hls2bgr", colorsys.rgb_to_hls),
    ],
)
def test_hue_spaces_against_the_standard_library(to, back, oracle):
    rgb = np.random.default_rng(1).random((5, 40, 3))
    bgr = np.ascontiguousarray(rgb[..., ::-1]).astype(np.float32)
    exact = np.array([[oracle(*pixel) for pixel in row] for row in rgb]) * [360, 1, 1]
    converted = getattr(image, to)(bgr)
    np.testing.assert_allclose(converted, exact, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(getattr(image, back)(converted), bgr, atol=1e-4)
    # uint8: hue halved; uint16: hue in whole degrees
    eight = getattr(image, to)(np.rint(bgr * 255).astype(np.uint8)).astype(float)
    sixteen_in = np.rint(bgr * 65535).astype(np.uint16)
    sixteen = getattr(image, to)(sixteen_in).astype(float)
    assert sixteen.max() <= 65535
    hue = np.abs((eight[..., 0] * 2 - exact[..., 0] + 180) % 360 - 180)
    assert np.median(hue) <= 1.5
    assert np.abs((sixteen[..., 0] - exact[..., 0] + 180) % 360 - 180).max() <= 0.52
    np.testing.assert_allclose(sixteen[..., 1:] / 65535, exact[..., 1:], atol=2e-4)
    again = getattr(image, back)(getattr(image, to)(sixteen_in))
    np.testing.assert_allclose(again / 65535, bgr, atol=0.01)


def test_exchanging_channels():
    img = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(image.bgr2rgb(img), img[..., ::-1])
    np.testing.assert_array_equal(image.rgb2bgr(image.bgr2rgb(img)), img)


def test_imconvert():
    img = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(image.imconvert(img, "bgr", "rgb"), image.bgr2rgb(img))
    np.testing.assert_array_equal(image.imconvert(img, "bgr", "hsv"), image.bgr2hsv(img))
    np.testing.assert_array_equal(image.imconvert(img[..., 0], "gray", "bgr"), image.gray2bgr(img[..., 0]))
    lab = image.imconvert(np.full((1, 1, 3), 255, np.uint8), "bgr", "lab")
    np.testing.assert_array_equal(lab, [[[255, 128, 128]]])
    with pytest.raises(ValueError, match="'bgr' to 'nowhere'"):
        image.imconvert(img, "bgr", "nowhere")
    with pytest.raises(ValueError, match="int64"):
        image.imconvert(img.astype(np.int64), "bgr", "hsv")


def test_wrong_channels():
    for name in ("bgr2gray", "bgr2hsv", "bgr2rgb"):
        with pytest.raises(ValueError, match=r"\(H, W, 3\), got \(4, 5\)"):
            getattr(image, name)(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"\(H, W, 1\), got \(4, 5, 3\)"):
        image.gray2bgr(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got \(4, 5, 4\)"):
        image.rgb2ycbcr(np.zeros((4, 5, 4), np.uint8))
