from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from cv import image
from cv_testing.images import smooth_image

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))
UINT8 = hnp.arrays(np.uint8, SHAPES)


def pillow(img: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(img[..., ::-1]))


def back(img: Image.Image) -> np.ndarray:
    return np.asarray(img)[..., ::-1]


@given(UINT8)
def test_imequalize_is_pillows(img):
    np.testing.assert_array_equal(image.imequalize(img), back(ImageOps.equalize(pillow(img))))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (120, 90), (400, 300)])
@pytest.mark.parametrize("seed", range(3))
def test_imequalize_of_photos(size, seed):
    img = smooth_image(*size, seed=seed)
    np.testing.assert_array_equal(image.imequalize(img), back(ImageOps.equalize(pillow(img))))
    grey = img[..., 0]
    expected = np.asarray(ImageOps.equalize(Image.fromarray(np.ascontiguousarray(grey))))
    np.testing.assert_array_equal(image.imequalize(grey), expected)
    np.testing.assert_array_equal(image.imequalize(grey.astype(np.float32)), expected)


def test_imequalize_of_16_bits_is_the_rank():
    img = np.random.default_rng(0).permutation(1000).reshape(20, 50).astype(np.uint16) * 40 + 7
    result = image.imequalize(img)
    rank = (img.astype(float) - 7) / 40
    np.testing.assert_allclose(result, np.clip(rank * 65535 / 999, 0, 65535), atol=0.51)
    constant = np.full((4, 4), 777, np.uint16)
    np.testing.assert_array_equal(image.imequalize(constant), constant)


@given(UINT8, st.tuples(st.integers(0, 60), st.integers(0, 60)))
@settings(max_examples=200)
def test_auto_contrast_is_pillows(img, cutoff):
    expected = back(ImageOps.autocontrast(pillow(img), cutoff))
    np.testing.assert_array_equal(image.auto_contrast(img, cutoff), expected)


@pytest.mark.parametrize("cutoff", [0, 1, 5.5, 49, 50, (0, 10), (30, 0), (100, 0), 100])
def test_auto_contrast_of_a_photo(cutoff):
    img = smooth_image(50, 80) // 2 + 40
    expected = back(ImageOps.autocontrast(pillow(img), cutoff))
    np.testing.assert_array_equal(image.auto_contrast(img, cutoff), expected)
    np.testing.assert_array_equal(image.auto_contrast(img.astype(np.float32), cutoff), expected)


def test_auto_contrast_of_many_rows_and_of_views():
    """More than one block of rows; channels whose line is computed beside some whose line is looked up."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        limits = np.sort(rng.integers(0, 256, (2, 3)), axis=0)
        img = rng.integers(limits[0], limits[1] + 1, (311, 479, 3)).astype(np.uint8)
        expected = back(ImageOps.autocontrast(pillow(img)))
        np.testing.assert_array_equal(image.auto_contrast(img), expected)
        flipped = back(ImageOps.autocontrast(pillow(img[::-1, 40:])))
        np.testing.assert_array_equal(image.auto_contrast(img[::-1, 40:]), flipped)


def test_auto_contrast_of_16_bits():
    img = np.array([[1000, 2000, 3000]], np.uint16)
    np.testing.assert_array_equal(image.auto_contrast(img), [[0, 32767, 65535]])


def test_auto_contrast_refuses():
    img = np.zeros((2, 2), np.uint8)
    for cutoff in ([1, 2], (1, 2, 3), "5"):
        with pytest.raises(AssertionError, match="cutoff must be a number or a tuple of two"):
            image.auto_contrast(img, cutoff)
    with pytest.raises(ValueError, match="percent"):
        image.auto_contrast(img, 101)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int64, np.int32, np.bool_])
@pytest.mark.parametrize("columns", [None, 1, 3])
def test_lut_transform(dtype, columns):
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (256,) if columns is None else (256, columns)).astype(dtype)
    img = rng.integers(0, 256, (5, 6, 3))
    column = table.reshape(256, -1)
    expected = column[img, np.arange(3) % column.shape[1]]
    layouts = [table] if columns is None else [table, table[None], table[:, None]]
    for given_table in layouts:
        for given_img in (img, img.astype(np.uint8), img.astype(np.uint8)[:, ::-1][:, ::-1]):
            result = image.lut_transform(given_img, given_table)
            np.testing.assert_array_equal(result, expected)
            assert result.dtype == dtype


@pytest.mark.parametrize("height", [1, 2, 5, 6])
@pytest.mark.parametrize("width", [1, 2, 7, 8])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_lut_transform_of_large_images(height, width, channels, monkeypatch):
    # Large ones are looked up two bytes at a time, where their number is even.
    monkeypatch.setattr("cv.image._pointwise._PAIRS_PAY", 1)
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    for columns in {1, channels}:
        table = rng.integers(0, 256, (256, columns), dtype=np.uint8)
        expected = table[img, np.arange(channels) % columns]
        for given_img in (img, np.asfortranarray(img)):
            np.testing.assert_array_equal(image.lut_transform(given_img, table), expected)
    wide = rng.integers(0, 256, (height, width + 3, channels), dtype=np.uint8)
    column = table[:, 0].copy()
    np.testing.assert_array_equal(image.lut_transform(wide[:, 3:], column), column[wide[:, 3:]])


def test_lut_transform_of_any_shape():
    table = np.arange(256)[::-1]
    for shape in ((), (3,), (2, 3, 4, 5), (0, 3)):
        img = np.full(shape, 5)
        np.testing.assert_array_equal(image.lut_transform(img, table), np.full(shape, 250))


@pytest.mark.parametrize(
    ("img", "table"),
    [
        ([[1]], np.arange(256)),
        (np.array([[256]]), np.arange(256)),
        (np.array([[-1]]), np.arange(256)),
        (np.array([[1.5, np.nan]]), np.arange(256)),
        (np.array([["1"]]), np.arange(256)),
        (np.zeros((2, 2), np.uint8), list(range(256))),
        (np.zeros((2, 2), np.uint8), np.arange(257)),
        (np.zeros((2, 2), np.uint8), np.zeros((256, 3))),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((256, 2))),
    ],
)
def test_lut_transform_refuses(img, table):
    with pytest.raises(AssertionError, match=r"(img|lut_table) must"):
        image.lut_transform(img, table)


def test_clahe():
    img = smooth_image(60, 80)
    for limit, grid in ((40.0, (8, 8)), (2, (4, 3))):
        method = cv2.createCLAHE(limit, grid)
        grey = np.ascontiguousarray(img[..., 0])
        np.testing.assert_array_equal(image.clahe(grey, limit, grid), method.apply(grey))
        np.testing.assert_array_equal(image.clahe(img, limit, grid)[..., 0], method.apply(grey))


def test_clahe_spreads_a_flat_histogram():
    dull = (smooth_image(64, 64)[..., 0] // 8 + 100).astype(np.uint8)
    assert image.clahe(dull, 4.0).std() > 2 * dull.std()


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((np.zeros(4, np.uint8),), "img"),
        (([[1]],), "img"),
        ((np.zeros((4, 4), np.uint8), "40"), "clip_limit"),
        ((np.zeros((4, 4), np.uint8), 40.0, [8, 8]), "tile_grid_size"),
        ((np.zeros((4, 4), np.uint8), 40.0, (8,)), "tile_grid_size"),
        ((np.zeros((4, 4), np.uint8), 40.0, (8.0, 8)), "tile_grid_size"),
        ((np.zeros((4, 4), np.uint8), 40.0, (0, 8)), "tile_grid_size"),
    ],
)
def test_clahe_refuses(args, reason):
    with pytest.raises(AssertionError, match=reason):
        image.clahe(*args)
