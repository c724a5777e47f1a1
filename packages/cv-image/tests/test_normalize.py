from __future__ import annotations

import numpy as np
import pytest

from cv import image
from cv_testing.images import smooth_image

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("to_rgb", [True, False])
def test_imnormalize_against_float64(dtype, to_rgb):
    img = smooth_image().astype(dtype)
    exact = (img[..., ::-1] if to_rgb else img).astype(float)
    exact = (exact - MEAN) / STD
    result = image.imnormalize(img, MEAN, STD, to_rgb)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, exact, atol=1e-6)
    np.testing.assert_allclose(image.imnormalize(img, list(MEAN), tuple(STD), to_rgb), exact, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("to_rgb", [True, False])
def test_imnormalize_in_place(dtype, to_rgb):
    original = smooth_image().astype(dtype)
    exact = ((original[..., ::-1] if to_rgb else original) - MEAN) / STD
    for img in (original.copy(), original[:, ::-1].copy()[:, ::-1], np.asfortranarray(original)):
        result = image.imnormalize_(img, MEAN, STD, to_rgb)
        assert result is img
        np.testing.assert_allclose(img, exact, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_in_place_needs_floats(dtype):
    with pytest.raises(AssertionError, match="float32 or float64"):
        image.imnormalize_(np.zeros((2, 2, 3), dtype), MEAN, STD)
    with pytest.raises(AssertionError, match="float32 or float64"):
        image.imdenormalize(np.zeros((2, 2, 3), dtype), MEAN, STD)


@pytest.mark.parametrize("swap", [True, False])
def test_denormalize_is_the_inverse(swap):
    img = smooth_image()
    back = image.imdenormalize(image.imnormalize(img, MEAN, STD, swap), MEAN, STD, swap)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, img, atol=1e-4)


def test_nan_stays_in_its_channel():
    img = np.zeros((1, 2, 3), np.float32)
    img[0, 0] = np.nan, 1, np.inf
    result = image.imnormalize(img, np.zeros(3), np.ones(3), to_rgb=True)
    np.testing.assert_array_equal(result[0, 0], [np.inf, 1, np.nan])


def test_grey_and_many_channels():
    grey = smooth_image(channels=1)[..., 0]
    np.testing.assert_allclose(image.imnormalize(grey, 10.0, 2.0), (grey.astype(float) - 10) / 2, atol=1e-5)
    many = smooth_image(channels=3).repeat(3, axis=2)
    mean = np.arange(9.0)
    exact = (many - mean) / (mean + 1)
    np.testing.assert_allclose(image.imnormalize(many, mean, mean + 1, to_rgb=False), exact, atol=1e-5)


def test_imnormalize_refuses():
    img = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="mean must have 1 or 3 values"):
        image.imnormalize(img, np.zeros(2), STD)
    with pytest.raises(ValueError, match="std must have 1 or 3 values"):
        image.imnormalize(img, MEAN, np.zeros(4))
    with pytest.raises(ValueError, match="std must not be 0"):
        image.imnormalize(img, MEAN, np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="three channels for to_rgb"):
        image.imnormalize(np.zeros((2, 2, 5), np.uint8), 0.0, 1.0)


def test_tensor2imgs():
    torch = pytest.importorskip("torch", reason="tensor2imgs takes torch tensors")
    photos = [smooth_image(20, 30, seed=seed) for seed in range(3)]
    for to_rgb in (True, False):
        batch = np.stack([image.imnormalize(photo, MEAN, STD, to_rgb) for photo in photos])
        tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
        results = image.tensor2imgs(tensor, tuple(MEAN), tuple(STD), to_rgb)
        assert len(results) == 3
        for result, photo in zip(results, photos, strict=True):
            assert result.flags.c_contiguous
            np.testing.assert_array_equal(result, photo)  # the way there and back loses nothing
    numbers = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 255
    for result, single in zip(image.tensor2imgs(numbers), numbers, strict=True):
        exact = single.flip(0).permute(1, 2, 0).numpy()
        assert np.abs(result - np.floor(exact)).max() <= 1
        np.testing.assert_array_equal(result, np.floor(exact + 2.0**-15))
    np.testing.assert_array_equal(
        image.tensor2imgs(torch.tensor([-5.0, 300.0, 7.9]).reshape(1, 3, 1, 1))[0][0, 0], [7, 255, 0]
    )


def test_tensor2imgs_refuses():
    torch = pytest.importorskip("torch", reason="tensor2imgs takes torch tensors")
    for bad in (np.zeros((1, 3, 2, 2)), torch.zeros(3, 2, 2), torch.zeros(1, 1, 2, 2)):
        with pytest.raises(AssertionError, match="tensor must"):
            image.tensor2imgs(bad)
    with pytest.raises(AssertionError, match="mean and std"):
        image.tensor2imgs(torch.zeros(1, 3, 2, 2), mean=(1,))
