"""Drawing boxes and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image import gray2bgr, imread, imwrite
from cv.visualization.color import ColorLike, color_val
from cv.visualization.display import NoDisplayError, imshow

_FONT = cv2.FONT_HERSHEY_COMPLEX


def imshow_bboxes(
    img: npt.NDArray[Any] | str | os.PathLike[str],
    bboxes: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    colors: ColorLike | Sequence[ColorLike] = "green",
    top_k: int = -1,
    thickness: int = 1,
    show: bool = True,
    win_name: str = "",
    wait_time: int = 0,
    out_file: str | os.PathLike[str] | None = None,
) -> npt.NDArray[Any]:
    """Draw boxes on an image.

    Args:
        img: Path of an image, or (H, W) grey, (H, W, 1) or (H, W, 3) BGR.
        bboxes: (k, 4) boxes (x1, y1, x2, y2) in pixels, or a list of such arrays, one for each colour.
        colors: One colour, or a list with one for each array of boxes.
        top_k: Draw only the first k boxes of each array if positive.
        thickness: Thickness of lines in pixels.
        show: Whether to show the result (`imshow`).
        win_name: Title of the window.
        wait_time: Same as `imshow`.
        out_file: Where to write the result. If it is given, a missing display is no error.

    Returns:
        The image with the boxes, (H, W, 3) BGR; a copy.

    Raises:
        ValueError: If an array of boxes has another shape, or there are not as many colours as arrays.
        NoDisplayError: If it is to be shown, there is no display, and no `out_file`.
    """
    canvas = _canvas(img)
    groups = [bboxes] if isinstance(bboxes, np.ndarray) else list(bboxes)
    shades = [color_val(color) for color in colors] if isinstance(colors, list) else [color_val(colors)]  # type: ignore[arg-type]
    if len(shades) == 1:
        shades *= len(groups)
    if len(shades) != len(groups):
        raise ValueError(f"colors must be one or one for each of {len(groups)} arrays, got {len(shades)}")
    for boxes, shade in zip(groups, shades, strict=True):
        checked = _check_boxes(boxes, (4, 5))
        for box in checked[: top_k if top_k > 0 else None]:
            _draw_box(canvas, box, shade, thickness)
    return _finish(canvas, show, win_name, wait_time, out_file)


def imshow_det_bboxes(
    img: npt.NDArray[Any] | str | os.PathLike[str],
    bboxes: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    class_names: Sequence[str] | None = None,
    score_thr: float = 0,
    bbox_color: ColorLike = "green",
    text_color: ColorLike = "green",
    thickness: int = 1,
    font_scale: float = 0.5,
    show: bool = True,
    win_name: str = "",
    wait_time: int = 0,
    out_file: str | os.PathLike[str] | None = None,
) -> npt.NDArray[Any]:
    """Draw detected boxes with their class and score.

    A label stands above its box, or inside where there is no room above. It stays inside the image, on a dark
    or light ground for contrast, and gets smaller where the image is too small for it.

    Args:
        img: Path of an image, or (H, W) grey, (H, W, 1) or (H, W, 3) BGR.
        bboxes: (n, 4) boxes (x1, y1, x2, y2) in pixels, or (n, 5) with a score.
        labels: (n,) class indices.
        class_names: Name of each class; without it a label reads "cls 3".
        score_thr: Leave boxes of a lower or equal score out, if positive.
        bbox_color: Colour of the boxes.
        text_color: Colour of the labels.
        thickness: Thickness of lines in pixels.
        font_scale: Size of the font.
        show: Whether to show the result (`imshow`).
        win_name: Title of the window.
        wait_time: Same as `imshow`.
        out_file: Where to write the result. If it is given, a missing display is no error.

    Returns:
        The image with boxes and labels, (H, W, 3) BGR; a copy.

    Raises:
        AssertionError: If shapes do not fit, or `score_thr` is positive and there are no scores.
        NoDisplayError: If it is to be shown, there is no display, and no `out_file`.
    """
    boxes = _check_boxes(bboxes, (4, 5), AssertionError)
    classes = np.asarray(labels)
    if classes.shape != (len(boxes),):
        raise AssertionError(f"labels must have shape ({len(boxes)},), got {classes.shape}")
    if score_thr > 0:
        if boxes.shape[1] != 5:
            raise AssertionError(f"bboxes must have shape (n, 5) for score_thr, got {boxes.shape}")
        keep = boxes[:, 4] > score_thr
        boxes, classes = boxes[keep], classes[keep]
    canvas = _canvas(img)
    box_shade, text_shade = color_val(bbox_color), color_val(text_color)
    for box in boxes:
        _draw_box(canvas, box, box_shade, thickness)
    order = np.argsort(boxes[:, 4]) if boxes.shape[1] == 5 else range(len(boxes))
    for box, label in zip(boxes[order], classes[order].tolist(), strict=True):  # the surest end up on top
        text = class_names[label] if class_names is not None else f"cls {label}"
        if len(box) == 5:
            text += f"|{box[4]:.02f}"
        _draw_label(canvas, text, box, text_shade, font_scale)
    return _finish(canvas, show, win_name, wait_time, out_file)


def _canvas(img: npt.NDArray[Any] | str | os.PathLike[str]) -> npt.NDArray[Any]:
    """A BGR copy to draw on."""
    array = imread(img)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return gray2bgr(array)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"img must have shape (H, W), (H, W, 1) or (H, W, 3), got {array.shape}")
    return np.array(array, order="C")


def _check_boxes(
    bboxes: object, columns: tuple[int, ...], error: type[Exception] = ValueError
) -> npt.NDArray[np.float64]:
    boxes = np.asarray(bboxes, np.float64)
    if boxes.size == 0 and boxes.ndim <= 2:
        return boxes.reshape(0, columns[0]) if boxes.ndim < 2 or boxes.shape[1] not in columns else boxes
    if boxes.ndim != 2 or boxes.shape[1] not in columns:
        raise error(f"bboxes must have shape (n, {' or '.join(map(str, columns))}), got {boxes.shape}")
    return boxes


def _draw_box(
    canvas: npt.NDArray[Any], box: npt.NDArray[np.float64], color: tuple[int, int, int], thickness: int
) -> None:
    if not np.isfinite(box[:4]).all():
        return
    # OpenCV takes 32 bits, and clips what is outside the image itself
    x1, y1, x2, y2 = np.clip(box[:4], -(2**15), 2**15 - 1).astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)


def _draw_label(
    canvas: npt.NDArray[Any],
    text: str,
    box: npt.NDArray[np.float64],
    color: tuple[int, int, int],
    font_scale: float,
) -> None:
    height, width = canvas.shape[:2]
    if not np.isfinite(box[:4]).all() or height < 3 or width < 3:
        return
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, font_scale, 1)
    full_height = text_height + baseline
    if text_width + 2 > width or full_height + 2 > height:  # make it fit
        font_scale *= min((width - 2) / text_width, (height - 2) / full_height)
        (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, font_scale, 1)
        full_height = text_height + baseline
    x, y = (int(value) for value in np.clip(box[:2], -(2**15), 2**15 - 1))
    left = max(0, min(x, width - text_width - 2))
    top = y - full_height - 2 if y >= full_height + 2 else y + 1
    top = max(0, min(top, height - full_height - 2))
    bottom, right = top + full_height + 2, left + text_width + 2
    luma = np.dot(color, (0.114, 0.587, 0.299))
    ground = 0 if luma > 110 else 255
    patch = canvas[top:bottom, left:right]
    cv2.addWeighted(patch, 0.25, np.full_like(patch, ground), 0.75, 0, dst=patch)
    cv2.putText(canvas, text, (left + 1, top + text_height + 1), _FONT, font_scale, color, 1, cv2.LINE_AA)


def _finish(
    canvas: npt.NDArray[Any],
    show: bool,
    win_name: str,
    wait_time: int,
    out_file: str | os.PathLike[str] | None,
) -> npt.NDArray[Any]:
    if out_file is not None:
        imwrite(canvas, out_file)
    if show:
        try:
            imshow(canvas, win_name, wait_time)
        except NoDisplayError:
            if out_file is None:
                raise
    return canvas
