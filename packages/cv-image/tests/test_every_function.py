"""What holds for every function: any shape, dtype and layout; the dtype and the input stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from cv import image
from cv_testing.images import variants

GREY_AND_COLOR = [(7, 9), (7, 9, 1), (7, 9, 3)]
ANY_CHANNELS = [*GREY_AND_COLOR, (7, 9, 2), (7, 9, 4), (7, 9, 5), (7, 9, 13)]
DTYPES = [np.uint8, np.uint16, np.float32]

SAME_SHAPE = {
    "imflip": lambda img: image.imflip(img, "diagonal"),
    "imflip_": lambda img: image.imflip_(img.copy(), "vertical"),
    "imrotate": lambda img: image.imrotate(img, 30, border_value=7),
    "imrotate 180": lambda img: image.imrotate(img, 180),
    "imshear": lambda img: image.imshear(img, 0.3, border_value=3),
    "imtranslate": lambda img: image.imtranslate(img, 2.5),
    "imtranslate whole": lambda img: image.imtranslate(img, -3, "vertical", border_value=9),
    "cutout": lambda img: image.cutout(img, 3, 5),
    "iminvert": image.iminvert,
    "posterize": lambda img: image.posterize(img, 3),
    "solarize": lambda img: image.solarize(img, 99.5),
    "adjust_brightness": lambda img: image.adjust_brightness(img, 1.4),
    "adjust_contrast": lambda img: image.adjust_contrast(img, 0.6),
    "adjust_sharpness": lambda img: image.adjust_sharpness(img, 1.7),
    "imequalize": image.imequalize,
    "auto_contrast": lambda img: image.auto_contrast(img, (2, 5)),
}
OTHER_SHAPE = {
    "imresize": lambda img: image.imresize(img, (13, 5)),
    "imresize nearest": lambda img: image.imresize(img, (13, 5), interpolation="nearest"),
    "imresize area": lambda img: image.imresize(img, (4, 3), interpolation="area"),
    "imresize bicubic": lambda img: image.imresize(img, (4, 12), interpolation="bicubic"),
    "imresize lanczos": lambda img: image.imresize(img, (14, 12), interpolation="lanczos"),
    "imrescale": lambda img: image.imrescale(img, 1.6),
    "imrotate bound": lambda img: image.imrotate(img, 25, auto_bound=True),
    "imrotate 90": lambda img: image.imrotate(img, 90, auto_bound=True),
    "impad": lambda img: image.impad(img, padding=(1, 2, 3, 4), pad_val=8),
    "impad reflect": lambda img: image.impad(img, padding=2, padding_mode="reflect"),
    "impad_to_multiple": lambda img: image.impad_to_multiple(img, 4),
    "imcrop": lambda img: image.imcrop(img, np.array([1, 1, 4, 5])),
    "imcrop padded": lambda img: image.imcrop(img, np.array([-2, 1, 4, 15]), pad_fill=3),
}
COLOR_ONLY = {
    name: getattr(image, name)
    for name in ("bgr2gray", "rgb2gray", "bgr2rgb", "rgb2bgr", "bgr2hsv", "hsv2bgr", "bgr2hls", "hls2bgr")
}
NO_UINT16 = {name: getattr(image, name) for name in ("bgr2ycbcr", "rgb2ycbcr", "ycbcr2bgr", "ycbcr2rgb")}


def check(function, shape, dtype, keeps_shape=True, keeps_dtype=True):
    expected = None
    for layout, img in variants(shape, dtype):
        before = img.copy()
        np.random.seed(0)  # noqa: NPY002 - cutout and adjust_lighting draw from it
        result = function(img)
        np.testing.assert_array_equal(img, before, err_msg=f"{layout}: the input was changed")
        assert result.ndim == len(shape) or not keeps_shape, layout
        if keeps_shape:
            assert result.shape[2:] == shape[2:], layout
        if keeps_dtype:
            assert result.dtype.newbyteorder("=") == dtype, layout
        if expected is None:
            expected = result
        # Floats may differ in the last bits: vectorised and single values are added in another order.
        rtol, atol = (2e-6, 5e-5) if result.dtype.kind == "f" else (0, 0)
        np.testing.assert_allclose(result, expected, rtol, atol, err_msg=f"{layout} gives another result")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ANY_CHANNELS, ids=str)
@pytest.mark.parametrize("name", [*SAME_SHAPE, *OTHER_SHAPE])
def test_shape_dtype_and_layout(name, shape, dtype):
    function = SAME_SHAPE.get(name) or OTHER_SHAPE[name]
    check(function, shape, dtype)
    if name in SAME_SHAPE:
        assert function(np.zeros(shape, dtype)).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COLOR_ONLY)
def test_colour_functions(name, dtype):
    check(COLOR_ONLY[name], (7, 9, 3), dtype, keeps_shape=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", NO_UINT16)
def test_ycbcr_functions(name, dtype):
    check(NO_UINT16[name], (7, 9, 3), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", GREY_AND_COLOR, ids=str)
def test_adjust_color(shape, dtype):
    check(lambda img: image.adjust_color(img, 0.3, 0.9, 4), shape, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", ANY_CHANNELS, ids=str)
def test_clahe(shape, dtype):
    check(lambda img: image.clahe(img, 4.0, (2, 2)), shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1)], ids=str)
def test_grey_to_colour(shape, dtype):
    check(image.gray2bgr, shape, dtype, keeps_shape=False)
    img = variants(shape, dtype)[0][1]
    np.testing.assert_array_equal(image.gray2rgb(img), np.stack([img.reshape(7, 9)] * 3, axis=2))


@pytest.mark.parametrize("dtype", [*DTYPES, np.float64, np.int32])
@pytest.mark.parametrize("shape", ANY_CHANNELS, ids=str)
def test_imnormalize(shape, dtype):
    def normalize(img):
        return image.imnormalize(img, np.array([3.5]), np.array([2.0]), to_rgb=img.shape[-1] == 3)

    check(normalize, shape, dtype, keeps_dtype=False)
    assert normalize(np.zeros(shape, dtype)).dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_adjust_lighting(dtype):
    values, vectors = np.array([3.0, 2.0, 1.0]), np.eye(3)
    check(lambda img: image.adjust_lighting(img, values, vectors), (7, 9, 3), dtype, keeps_dtype=False)


POINTWISE = [name for name in SAME_SHAPE if name.split()[0] not in ("imrotate", "imshear", "imtranslate")]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 5), (0, 0, 1)], ids=str)
def test_empty_images_pointwise(shape):
    for dtype in DTYPES:
        img = np.zeros(shape, dtype)
        for name in POINTWISE:
            if name == "cutout" and 0 in shape[:2]:
                continue
            assert SAME_SHAPE[name](img).shape == shape, name
        assert image.imnormalize(img, 0.0, 1.0).shape == shape
        if shape[-1] == 3:
            assert image.bgr2gray(img).shape == shape[:2]
            assert image.bgr2hsv(img).shape == shape
            assert image.adjust_color(img).shape == shape
        if dtype != np.uint16 and shape[-1] == 3:
            assert image.rgb2ycbcr(img).shape == shape
    assert image.impad(np.zeros(shape, np.uint8), padding=2).shape[:2] == (shape[0] + 4, shape[1] + 4)


@pytest.mark.parametrize(
    "name", ["imresize", "imrescale", "imrotate", "imshear", "imtranslate", "imcrop", "impad reflect"]
)
def test_empty_images_are_refused_where_there_is_nothing_to_give(name):
    function = SAME_SHAPE.get(name) or OTHER_SHAPE[name]
    with pytest.raises(ValueError, match="empty"):
        function(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("name", [*SAME_SHAPE, *OTHER_SHAPE])
def test_not_an_image(name):
    function = SAME_SHAPE.get(name) or OTHER_SHAPE[name]
    with pytest.raises((TypeError, AttributeError)):
        function([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="img must have shape"):
        function(np.zeros((2, 3, 4, 5), np.uint8))
