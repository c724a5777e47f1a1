"""Drawing.

The committed pictures in golden/ were looked at; ``python test_visualization.py`` draws them anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cv.image import ImageDecodeError, imread, imwrite
from cv.image.codecs.flo import write_flo
from cv.visualization import (
    Color,
    NoDisplayError,
    color_val,
    display,
    flow2rgb,
    flowshow,
    imshow,
    imshow_bboxes,
    imshow_det_bboxes,
    make_color_wheel,
)

GOLDEN = Path(__file__).parent / "golden"
CLASSES = ["person", "bicycle", "traffic light"]
BOXES = np.array(
    [
        [20, 40, 100, 110, 0.98],
        [-20, -10, 80, 50, 0.5],
        [150, 100, 230, 170, 0.77],
        [110, 60, 150, 90, 0.31],
        [190, 5, 238, 40, 0.9],
    ]
)
LABELS = np.array([0, 1, 2, 0, 1])


def background(height: int = 160, width: int = 240) -> np.ndarray:
    """A gradient, so that the contrast of labels is seen on dark and on light."""
    y, x = np.mgrid[:height, :width]
    blue, green, red = x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)
    return np.dstack([blue, green, red]).astype(np.uint8)


def scenes() -> dict[str, np.ndarray]:
    y, x = np.mgrid[-30:30, -40:40].astype(np.float32)
    return {
        "boxes": imshow_bboxes(
            background(), [BOXES[:2, :4], BOXES[2:, :4]], ["red", "cyan"], thickness=3, show=False
        ),
        "labels": imshow_det_bboxes(
            background(), BOXES, LABELS, CLASSES, bbox_color="yellow", text_color="white", show=False
        ),
        "large_labels": imshow_det_bboxes(
            background(), BOXES, LABELS, score_thr=0.4, text_color="blue", font_scale=1.0, show=False
        ),
        "small_image": imshow_det_bboxes(background(40, 60), [[5, 5, 50, 35, 0.9]], [0], CLASSES, show=False),
        "flow": np.rint(flow2rgb(np.dstack([x, y]))[..., ::-1] * 255).astype(np.uint8),
    }


@pytest.mark.parametrize("name", ["boxes", "labels", "large_labels", "small_image", "flow"])
def test_pictures(name):
    has_text = name not in ("boxes", "flow")
    if has_text and int(cv2.__version__.split(".")[0]) != 5:
        pytest.skip("the pictures with text were drawn with the font of OpenCV 5")
    drawn, expected = scenes()[name], imread(GOLDEN / f"{name}.png")
    assert drawn.shape == expected.shape
    difference = np.abs(drawn.astype(int) - expected)
    assert (difference > 8).mean() < 0.002  # antialiasing may differ from machine to machine


# --- colours ---


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        (Color.blue, (255, 0, 0)),
        ("green", (0, 255, 0)),
        ("red", (0, 0, 255)),
        ("cyan", (255, 255, 0)),
        ("yellow", (0, 255, 255)),
        ("magenta", (255, 0, 255)),
        ("white", (255, 255, 255)),
        ("black", (0, 0, 0)),
        ((1, 2, 3), (1, 2, 3)),
        (100, (100, 100, 100)),
        (np.array([1, 2, 3], np.uint8), (1, 2, 3)),
        (np.int64(7), (7, 7, 7)),
    ],
)
def test_color_val(color, expected):
    result = color_val(color)
    assert result == expected
    assert all(type(value) is int for value in result)


def test_color_val_refuses():
    for bad in ([255, 255, 255], 1.0, None, True):
        with pytest.raises(TypeError, match="color must be a Color"):
            color_val(bad)
    for bad in ((0, 0, 500), (-1, 0, 0), (1, 2), 256, np.zeros((1, 3)), np.array([0, 0, 256])):
        with pytest.raises(AssertionError, match="three values from 0 to 255"):
            color_val(bad)
    with pytest.raises(ValueError, match="'pink'"):
        color_val("pink")


# --- boxes ---


def test_a_box_is_where_it_should_be():
    img = np.zeros((20, 30, 3), np.uint8)
    drawn = imshow_bboxes(img, np.array([[4, 3, 12, 10]]), (10, 20, 30), show=False)
    expected = np.zeros_like(img)
    expected[[3, 10], 4:13] = 10, 20, 30
    expected[3:11, [4, 12]] = 10, 20, 30
    np.testing.assert_array_equal(drawn, expected)
    assert not img.any()


def test_box_arguments(tmp_path):
    img = np.zeros((20, 30, 3), np.uint8)
    two = np.array([[1, 1, 5, 5], [10, 10, 15, 15]])
    first = imshow_bboxes(img, two[:1], show=False)
    np.testing.assert_array_equal(imshow_bboxes(img, two, top_k=1, show=False), first)
    np.testing.assert_array_equal(imshow_bboxes(img[..., 0], two[:1], show=False), first)
    imwrite(img, tmp_path / "x.png")
    np.testing.assert_array_equal(imshow_bboxes(tmp_path / "x.png", two[:1], show=False), first)
    np.testing.assert_array_equal(imshow_bboxes(img[::-1], [], show=False), img)
    np.testing.assert_array_equal(imshow_bboxes(img, np.zeros((0, 4)), show=False), img)
    far = np.array([[-1e9, -1e9, 1e9, 1e9], [np.nan, 0, 5, 5], [3, 3, np.inf, 9]])
    np.testing.assert_array_equal(imshow_bboxes(img, far, show=False), img)
    with pytest.raises(ValueError, match=r"bboxes must have shape \(n, 4 or 5\)"):
        imshow_bboxes(img, np.zeros((2, 3)), show=False)
    with pytest.raises(ValueError, match="colors must be one or one for each of 1 arrays"):
        imshow_bboxes(img, two, ["red", "green"], show=False)
    with pytest.raises(ValueError, match="img must have shape"):
        imshow_bboxes(np.zeros((5, 5, 4), np.uint8), two, show=False)


def test_scores_below_the_threshold_are_left_out():
    img = background()
    kept = BOXES[:, 4] > 0.6
    np.testing.assert_array_equal(
        imshow_det_bboxes(img, BOXES, LABELS, score_thr=0.6, show=False),
        imshow_det_bboxes(img, BOXES[kept], LABELS[kept], show=False),
    )
    nothing = imshow_det_bboxes(img, np.zeros((0, 5)), np.zeros(0, int), show=False)
    np.testing.assert_array_equal(nothing, img)
    np.testing.assert_array_equal(imshow_det_bboxes(img, BOXES, LABELS, score_thr=1, show=False), img)


@pytest.mark.parametrize("size", [(3, 3), (8, 12), (20, 20), (40, 200), (300, 40), (1080, 1920)])
@pytest.mark.parametrize("corner", [(0, 0), (1, 1), (-500, 3), (0.5, 0.95)])
@pytest.mark.parametrize("color", ["white", "blue", "black"])
def test_labels_are_inside_and_readable(size, corner, color):
    """Somewhere inside the image there is ink of the text colour on a ground of clear contrast."""
    img = np.full((*size, 3), 128, np.uint8)
    x, y = (
        corner
        if abs(corner[0]) > 1 or corner in ((0, 0), (1, 1))
        else (corner[0] * size[1], corner[1] * size[0])
    )
    box = np.array([[x, y, x, y, 0.5]])
    boxes_only = imshow_bboxes(img, box[:, :4], color, show=False)
    drawn = imshow_det_bboxes(img, box, [0], ["some label"], bbox_color=color, text_color=color, show=False)
    changed = (drawn != boxes_only).any(axis=2)
    assert changed.any()
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    patch = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    if min(size) >= 20:
        luma = patch @ np.array([0.114, 0.587, 0.299])
        assert np.ptp(luma) > 60
        assert rows[0] > 0 or y < 30
    if size == (1080, 1920):
        assert len(rows) >= 10
        assert len(columns) >= 60


def test_det_bboxes_refuse():
    img = background()
    for args, reason in (
        ((BOXES[:, :3], LABELS), "bboxes must have shape"),
        ((BOXES[0], LABELS), "bboxes must have shape"),
        ((BOXES, LABELS[:2]), r"labels must have shape \(5,\)"),
        ((BOXES, LABELS[:, None]), r"labels must have shape \(5,\)"),
    ):
        with pytest.raises(AssertionError, match=reason):
            imshow_det_bboxes(img, *args, show=False)
    with pytest.raises(AssertionError, match="score_thr"):
        imshow_det_bboxes(img, BOXES[:, :4], LABELS, score_thr=0.5, show=False)


# --- showing ---


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.setattr(display, "_in_notebook", lambda: False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_without_a_display_the_error_says_what_to_do(headless, tmp_path):
    with pytest.raises(NoDisplayError, match="no display; pass out_file"):
        imshow(background())
    with pytest.raises(NoDisplayError, match="out_file"):
        imshow_bboxes(background(), BOXES)
    with pytest.raises(NoDisplayError, match="out_file"):
        flowshow(np.zeros((4, 5, 2)))
    target = tmp_path / "new folder" / "x.png"
    drawn = imshow_det_bboxes(background(), BOXES, LABELS, out_file=target)  # show=True does no harm
    np.testing.assert_array_equal(imread(target), drawn)


def test_a_window_is_used_where_opencv_has_windows(monkeypatch):
    calls = []
    monkeypatch.setattr(display, "_in_notebook", lambda: False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   GTK3\n  GTK+: YES")
    monkeypatch.setattr(cv2, "imshow", lambda name, img: calls.append((name, img.shape)))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: calls.append(delay) or -1)
    visible = iter([1, 1, 0])
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, prop: next(visible))
    imshow(background(), "title", 30)
    assert calls == [("title", (160, 240, 3)), 30]
    calls.clear()
    imshow(background(), "title")  # until the window is closed
    assert calls == [("title", (160, 240, 3)), 50, 50, 50]


def test_the_viewer_gets_rgb(monkeypatch):
    from PIL import ImageShow

    shown = []
    monkeypatch.setattr(display, "_in_notebook", lambda: False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   NONE")
    monkeypatch.setattr(ImageShow, "show", lambda img, title: shown.append((np.asarray(img), title)) or True)
    for img in (background(), background()[..., 0], background()[..., :1]):
        imshow(img, "title")
        pixels = np.squeeze(img)
        np.testing.assert_array_equal(shown[-1][0], pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    monkeypatch.setattr(ImageShow, "show", lambda img, title: False)
    with pytest.raises(NoDisplayError, match="no image viewer"):
        imshow(background())


def test_a_notebook_shows_inline(monkeypatch):
    import types

    shown = []
    ipython, shown_module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    shown_module.Image = lambda data: data
    shown_module.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown_module)
    imshow(background())
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(shown[0], np.uint8), 1), background())


# --- flow ---


def test_the_wheel_of_middlebury():
    wheel = make_color_wheel()
    assert wheel.shape == (55, 3)
    starts = np.cumsum([0, 15, 6, 4, 11, 13])
    np.testing.assert_array_equal(
        wheel[starts], [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]
    )
    np.testing.assert_allclose(wheel[1], [1, 1 / 15, 0])
    np.testing.assert_array_equal(
        make_color_wheel([2] * 6),
        [
            [1, 0, 0],
            [1, 0.5, 0],
            [1, 1, 0],
            [0.5, 1, 0],
            [0, 1, 0],
            [0, 1, 0.5],
            [0, 1, 1],
            [0, 0.5, 1],
            [0, 0, 1],
            [0.5, 0, 1],
            [1, 0, 1],
            [1, 0, 0.5],
        ],
    )
    for bad in ([1, 1], [0] * 6, [1.5] * 6):
        with pytest.raises(AssertionError, match="bins must be six positive integers"):
            make_color_wheel(bad)


def middlebury(u: float, v: float, wheel: np.ndarray) -> np.ndarray:
    """The colour of one vector of length at most 1, after the description of Baker et al."""
    length = np.hypot(u, v)
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = int(position)
    color = wheel[low] * (low + 1 - position) + wheel[(low + 1) % len(wheel)] * (position - low)
    return 1 - length * (1 - color)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("bins", [None, [1, 2, 3, 4, 5, 6]])
def test_flow2rgb_against_the_definition(dtype, bins):
    flow = np.random.default_rng(0).normal(size=(9, 11, 2)) * 50
    flow[0, 0] = 0
    flow = flow.astype(dtype)
    before = flow.copy()
    wheel = make_color_wheel(bins)
    longest = np.hypot(*flow.astype(float).reshape(-1, 2).T).max()
    exact = [[middlebury(*vector, wheel) for vector in row] for row in flow.astype(float) / longest]
    result = flow2rgb(flow, None if bins is None else wheel)
    np.testing.assert_array_equal(flow, before)
    np.testing.assert_allclose(result, exact, atol=1e-5)
    np.testing.assert_array_equal(result[0, 0], [1, 1, 1])


def test_unknown_flow_is_black():
    flow = np.ones((2, 3, 2), np.float32)
    flow[0, 0, 0], flow[0, 1, 1], flow[1, 2] = np.nan, 1e9, -np.inf
    rgb = flow2rgb(flow)
    black = (rgb == 0).all(axis=2)
    np.testing.assert_array_equal(black, [[True, True, False], [False, False, True]])
    assert np.isfinite(rgb).all()
    np.testing.assert_array_equal(flow2rgb(flow, unknown_thr=0.5), np.zeros((2, 3, 3)))
    np.testing.assert_array_equal(flow2rgb(np.zeros((2, 2, 2))), np.ones((2, 2, 3)))
    assert flow2rgb(np.zeros((0, 4, 2))).shape == (0, 4, 3)


def test_flow2rgb_refuses():
    with pytest.raises(AssertionError, match=r"flow must have shape \(H, W, 2\)"):
        flow2rgb(np.zeros((3, 4, 3)))
    with pytest.raises(AssertionError, match=r"color_wheel must have shape \(n, 3\)"):
        flow2rgb(np.zeros((3, 4, 2)), np.zeros((4, 2)))


def test_flowshow(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("cv.visualization.optflow.imshow", lambda img, name, wait: shown.append(img))
    flow = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32)
    path = tmp_path / "x.flo"
    path.write_bytes(write_flo(flow))
    for given in (flow, path, str(path)):
        flowshow(given)
        np.testing.assert_allclose(shown[-1][..., ::-1] / 255, flow2rgb(flow), atol=0.51 / 255)
    path.write_bytes(b"no flow")
    with pytest.raises(ImageDecodeError, match=r"x\.flo"):
        flowshow(path)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for scene, picture in scenes().items():
        imwrite(picture, GOLDEN / f"{scene}.png", [cv2.IMWRITE_PNG_COMPRESSION, 9])
