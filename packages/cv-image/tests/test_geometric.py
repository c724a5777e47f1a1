from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv import image
from cv_testing.images import smooth_image, variants

DTYPES = [np.uint8, np.uint16, np.float32]
SHAPES = [(7, 10), (7, 10, 1), (7, 10, 3), (7, 10, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def warp(img: np.ndarray, matrix: np.ndarray, border: float) -> np.ndarray:
    """Slow float64 bilinear warping; `matrix` (2 x 3) maps source to target."""
    full = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    height, width = img.shape[:2]
    padded = np.pad(img.astype(float), ((1, 2), (1, 2)), constant_values=border)
    out = np.full((height, width), float(border))
    for y in range(height):
        for x in range(width):
            sx, sy, _ = full @ [x, y, 1]
            if -1 < sx < width and -1 < sy < height:
                left, top = int(np.floor(sx)), int(np.floor(sy))
                u, v = sx - left, sy - top
                cell = padded[top + 1 : top + 3, left + 1 : left + 3]
                out[y, x] = [1 - v, v] @ cell @ [1 - u, u]
    return out


# --- flip ---


@every_shape
@pytest.mark.parametrize("dtype", [*DTYPES, np.float64, np.int64, np.bool_, np.complex64])
def test_flip(shape, dtype):
    img = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    views = {"horizontal": img[:, ::-1], "vertical": img[::-1], "diagonal": img[::-1, ::-1]}
    for direction, expected in views.items():
        flipped = image.imflip(img, direction)
        np.testing.assert_array_equal(flipped, expected)
        assert flipped.flags.c_contiguous
        assert not np.shares_memory(flipped, img)
        np.testing.assert_array_equal(image.imflip(flipped, direction), img)
        for _, layout in variants(shape, np.uint8)[:-1]:
            before = layout.copy()
            assert image.imflip_(layout, direction) is layout
            np.testing.assert_array_equal(layout, image.imflip(before, direction))


def test_flip_default_and_errors():
    img = smooth_image()
    np.testing.assert_array_equal(image.imflip(img), img[:, ::-1])
    for function in (image.imflip, image.imflip_):
        with pytest.raises(AssertionError, match="direction must be one of"):
            function(img, "upwards")
    frozen = img.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        image.imflip_(frozen)


# --- rotate ---


@every_shape
@every_dtype
def test_quarter_turns_are_exact(shape, dtype):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    turned = img
    for turns in range(1, 5):
        turned = image.imrotate(turned, 90, auto_bound=True)
        np.testing.assert_array_equal(turned, np.rot90(img, -turns))
    np.testing.assert_array_equal(turned, img)
    np.testing.assert_array_equal(image.imrotate(img, 180), img[::-1, ::-1])
    np.testing.assert_array_equal(image.imrotate(img, -270, auto_bound=True), np.rot90(img, -1))
    np.testing.assert_array_equal(image.imrotate(img, 0), img)
    square = np.ascontiguousarray(img[:, :7])
    np.testing.assert_array_equal(image.imrotate(square, 90), np.rot90(square, -1))


def test_a_quarter_turn_is_what_the_general_case_gives():
    img = smooth_image(15, 15)
    np.testing.assert_array_equal(image.imrotate(img, 90), image.imrotate(img, 90 + 1e-9))


@pytest.mark.parametrize(
    "options", [{}, {"center": (2, 5)}, {"scale": 0.7}, {"scale": 1.5, "center": (0, 0)}]
)
@pytest.mark.parametrize("angle", [30, -75, 100])
def test_rotate_against_float64(angle, options):
    img = smooth_image(15, 22)[..., 0].astype(np.float32)
    center = np.array(options.get("center", (10.5, 7)), float)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn = np.array([[cos, -sin], [sin, cos]]) * options.get("scale", 1)  # clockwise where y points down
    matrix = np.column_stack([turn, center - turn @ center])
    exact = warp(img, matrix, 50)
    result = image.imrotate(img, angle, border_value=50, **options)
    # OpenCV 4 places samples on a grid of 1/32 pixel
    steepest = max(np.abs(np.diff(img, axis=axis)).max() for axis in (0, 1))
    assert np.abs(result - exact)[1:-1, 1:-1].mean() < steepest / 32


def test_auto_bound_covers_everything():
    img = np.full((20, 40), 255, np.uint8)
    turned = image.imrotate(img, 45, auto_bound=True)
    assert turned.shape == (42, 42)  # (20 + 40) / sqrt(2)
    assert abs(turned.sum() / 255 - 800) < 25
    assert turned[[0, -1]].mean() < 60
    np.testing.assert_array_equal(image.imrotate(img, 360 * 3, auto_bound=True), img)
    assert image.imrotate(img, 10, scale=1e-6, auto_bound=True).shape == (1, 1)


def test_rotate_border_fills_all_channels():
    img = np.zeros((20, 20, 3), np.uint8)
    np.testing.assert_array_equal(image.imrotate(img, 45, border_value=114)[0, 0], [114] * 3)
    np.testing.assert_array_equal(image.imrotate(img, 45, border_value=(1, 2, 3))[0, 0], [1, 2, 3])
    many = image.imrotate(np.zeros((20, 20, 6), np.uint8), 45, border_value=(1, 2, 3, 4, 5, 6))
    np.testing.assert_array_equal(many[0, 0], [1, 2, 3, 4, 5, 6])


def test_rotate_refuses():
    img = smooth_image()
    with pytest.raises(ValueError, match="center must be None with auto_bound"):
        image.imrotate(img, 90, center=(0, 0), auto_bound=True)
    with pytest.raises(ValueError, match="interpolation"):
        image.imrotate(img, 30, interpolation="linear")
    for angle in (np.nan, np.inf):
        with pytest.raises(ValueError, match="angle must be finite"):
            image.imrotate(img, angle)
    with pytest.raises(ValueError, match="32767"):
        image.imrotate(np.zeros((2, 40000), np.uint8), 3)
    with pytest.raises(TypeError, match="int64"):
        image.imrotate(np.zeros((4, 4), np.int64), 3)


# --- shear and translate ---


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
@pytest.mark.parametrize("magnitude", [-1, -0.3, 0, 0.5, 1, 2])
def test_shear_against_float64(direction, magnitude):
    img = smooth_image(15, 22)[..., 0].astype(np.float32)
    matrix = np.array(
        [[1, magnitude, 0], [0, 1, 0]] if direction == "horizontal" else [[1, 0, 0], [magnitude, 1, 0]]
    )
    steepest = max(np.abs(np.diff(img, axis=axis)).max() for axis in (0, 1))
    result = image.imshear(img, magnitude, direction, border_value=9)
    difference = np.abs(result - warp(img, matrix, 9))[1:-1, 1:-1]
    assert difference.mean() < steepest / 32
    if magnitude == int(magnitude):
        np.testing.assert_array_equal(result, warp(img, matrix, 9))


@every_shape
@every_dtype
def test_translate(shape, dtype):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    for offset in (0, 2, -3, 3.0, 9, 10, -10, 100, -100):
        right = image.imtranslate(img, offset, border_value=7)
        expected = np.full(shape, 7, dtype)
        n = int(offset)
        if 0 <= n < 10:
            expected[:, n:] = img[:, : 10 - n]
        elif -10 < n < 0:
            expected[:, :n] = img[:, -n:]
        np.testing.assert_array_equal(right, expected)
        down = image.imtranslate(img.swapaxes(0, 1), offset, "vertical", 7)
        np.testing.assert_array_equal(down.swapaxes(0, 1), expected)


def test_translate_by_a_fraction_and_back():
    img = smooth_image(15, 22)[..., 0].astype(np.float32)
    half = image.imtranslate(img, 0.5, border_value=0)
    np.testing.assert_allclose(half[:, 1:], (img[:, :-1] + img[:, 1:]) / 2, atol=1e-3)
    back = image.imtranslate(image.imtranslate(img, 4), -4)
    np.testing.assert_array_equal(back[:, :-4], img[:, :-4])
    for interpolation in ("nearest", "bicubic", "area", "lanczos"):
        assert image.imtranslate(img, 0.5, interpolation=interpolation).shape == img.shape


@pytest.mark.parametrize("function", [image.imshear, image.imtranslate])
def test_border_values(function):
    img = smooth_image()
    assert function(img, 3.5, border_value=(1, 2, 3))[-1, 0].tolist() == [1, 2, 3]
    assert function(img, 3.5, border_value=99)[-1, 0].tolist() == [99] * 3
    with pytest.raises(AssertionError, match="one for each of 3 channels"):
        function(img, 1, border_value=(1, 2))
    with pytest.raises(ValueError, match="border_value must be a number or a tuple"):
        function(img, 1, border_value=[1, 2, 3])
    with pytest.raises(AssertionError, match="direction must be"):
        function(img, 1, "diagonal")


# --- crop and pad ---


@every_shape
@every_dtype
def test_crop(shape, dtype):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    np.testing.assert_array_equal(image.imcrop(img, np.array([2, 1, 5, 3])), img[1:4, 2:6])
    patches = image.imcrop(img, np.array([[0, 0, 9, 6], [3, 3, 3, 3], [-5, -5, 2, 1], [8, 5, 50, 60]]))
    assert isinstance(patches, list)
    for patch, expected in zip(patches, [img, img[3:4, 3:4], img[:2, :3], img[5:, 8:]], strict=True):
        np.testing.assert_array_equal(patch, expected)
    assert np.shares_memory(patches[0], img)
    assert image.imcrop(img, np.zeros((0, 4))) == []


@every_shape
@every_dtype
def test_crop_with_padding(shape, dtype):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    room = [(20, 20), (20, 20)] + [(0, 0)] * (img.ndim - 2)
    padded = np.pad(img, room, constant_values=33)
    boxes = np.array([[2, 1, 5, 3], [-4, -6, 12, 9], [-15, 2, -12, 4], [11, 8, 13, 9], [0, 0, 9, 6]])
    patches = image.imcrop(img, boxes, pad_fill=33)
    for (x1, y1, x2, y2), patch in zip(boxes, patches, strict=True):
        np.testing.assert_array_equal(patch, padded[20 + y1 : 21 + y2, 20 + x1 : 21 + x2])
        assert not np.shares_memory(patch, img)


def test_crop_scales_about_the_centre():
    img = np.arange(100 * 100, dtype=np.uint16).reshape(100, 100)
    # width and height 20: half as much again is 5 more on each side
    np.testing.assert_array_equal(image.imcrop(img, np.array([40, 40, 59, 59]), 1.5), img[35:65, 35:65])
    np.testing.assert_array_equal(image.imcrop(img, np.array([40, 40, 59, 59]), 0.5), img[45:55, 45:55])
    np.testing.assert_array_equal(image.imcrop(img, np.array([10.9, 10.2, 19.8, 15.1])), img[10:16, 10:20])


def test_crop_fill_of_each_channel_and_errors():
    img = smooth_image()
    patch = image.imcrop(img, np.array([-1, -1, 3, 3]), pad_fill=[1, 2, 300])
    assert patch[0, 0].tolist() == [1, 2, 255]
    with pytest.raises(AssertionError, match="pad_fill"):
        image.imcrop(img, np.array([-1, -1, 3, 3]), pad_fill=[1, 2])
    with pytest.raises(ValueError, match="shape"):
        image.imcrop(img, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="x1 <= x2"):
        image.imcrop(img, np.array([5, 2, 3, 4]))
    for bad in (np.nan, np.inf, 1e12):
        with pytest.raises(ValueError, match="finite"):
            image.imcrop(img, np.array([0, 0, 1, bad]))


MODES = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric", "constant": "constant"}


@every_shape
@every_dtype
@pytest.mark.parametrize("mode", MODES)
def test_pad_against_numpy(shape, dtype, mode):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    for padding, (left, top, right, bottom) in (
        (2, (2, 2, 2, 2)),
        ((1, 3), (1, 3, 1, 3)),
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((0, 0, 0, 5), (0, 0, 0, 5)),
        (0, (0, 0, 0, 0)),
        (15, (15, 15, 15, 15)),
    ):
        room = [(top, bottom), (left, right)] + [(0, 0)] * (img.ndim - 2)
        values = {"constant_values": 3} if mode == "constant" else {}
        expected = np.pad(img, room, MODES[mode], **values)
        result = image.impad(img, padding=padding, pad_val=3, padding_mode=mode)
        np.testing.assert_array_equal(result, expected)
        assert not np.shares_memory(result, img)
        back = image.imcrop(result, np.array([left, top, left + 9, top + 6]))
        np.testing.assert_array_equal(back, img)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float64, np.int32])
def test_pad_of_other_dtypes(dtype):
    img = np.ones((3, 4), dtype)
    result = image.impad(img, padding=1)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.pad(img, 1))


def test_pad_to_shape_and_multiple():
    img = smooth_image(10, 13)
    padded = image.impad(img, shape=(15, 16), pad_val=(1, 2, 3))
    assert padded.shape == (15, 16, 3)
    np.testing.assert_array_equal(padded[:10, :13], img)
    np.testing.assert_array_equal(padded[10:].reshape(-1, 3), np.tile([1, 2, 3], (80, 1)))
    np.testing.assert_array_equal(image.impad(img, shape=(15, 16, 3), pad_val=[1, 2, 3]), padded)
    np.testing.assert_array_equal(image.impad(img, shape=(15, 16), pad_val=np.array([1, 2, 3])), padded)
    assert image.impad_to_multiple(img, 8).shape == (16, 16, 3)
    assert image.impad_to_multiple(img, 8, pad_val=5)[-1, -1].tolist() == [5, 5, 5]
    assert image.impad_to_multiple(img, 1).shape == img.shape
    many = image.impad(np.zeros((2, 2, 6), np.uint8), padding=1, pad_val=(1, 2, 3, 4, 5, 6))
    assert many[0, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_pad_refuses():
    img = smooth_image(10, 13)
    with pytest.raises(ValueError, match="integer or a tuple of 2 or 4"):
        image.impad(img, padding=(1, 2, 3))
    for pad_val in ("wrong", None, {}):
        with pytest.raises(TypeError, match="pad_val must be a number or a sequence"):
            image.impad(img, padding=1, pad_val=pad_val)
    for options in (
        {},
        {"shape": (20, 20), "padding": 1},
        {"padding": 1, "padding_mode": "wrap"},
        {"shape": (9, 20)},
        {"shape": (20,)},
        {"padding": -1},
        {"padding": 1, "pad_val": (1, 2)},
    ):
        with pytest.raises(AssertionError):
            image.impad(img, **options)
    for divisor in (0, -2, 2.5):
        with pytest.raises(ValueError, match="divisor must be a positive integer"):
            image.impad_to_multiple(img, divisor)


# --- cut out ---


@every_shape
@given(cut=st.tuples(st.integers(0, 12), st.integers(0, 12)), seed=st.integers(0, 1000))
def test_cutout(shape, cut, seed):
    img = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    np.random.seed(seed)  # noqa: NPY002 - it draws from the global generator
    result = image.cutout(img, cut, 255)
    np.random.seed(seed)  # noqa: NPY002
    center_y, center_x = np.random.uniform(7), np.random.uniform(10)  # noqa: NPY002
    top, left = int(max(0, center_y - cut[0] / 2)), int(max(0, center_x - cut[1] / 2))
    expected = img.copy()
    expected[top : top + cut[0], left : left + cut[1]] = 255
    np.testing.assert_array_equal(result, expected)


def test_cutout_values_and_errors():
    img = smooth_image()
    filled = image.cutout(img, 10**6, (1, 2.6, 300))
    np.random.seed(0)  # noqa: NPY002
    assert (filled[-1, -1] == [1, 3, 255]).all()
    for shape in ((1, 2, 3), "3", 2.5, (-1, 2), [3, 3], None):
        with pytest.raises(AssertionError, match="shape must be one or two"):
            image.cutout(img, shape)
    for pad_val in (None, "1", [1, 2, 3]):
        with pytest.raises(TypeError, match="pad_val must be a number or a tuple"):
            image.cutout(img, 3, pad_val)
    with pytest.raises(AssertionError, match="pad_val"):
        image.cutout(img, 3, (1, 2))
