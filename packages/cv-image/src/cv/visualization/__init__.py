"""Draw images, boxes, labels and optical flow."""

from cv.visualization.boxes import imshow_bboxes, imshow_det_bboxes
from cv.visualization.color import Color, color_val
from cv.visualization.display import NoDisplayError, imshow
from cv.visualization.optflow import flow2rgb, flowshow, make_color_wheel

__all__ = [
    "Color",
    "color_val",
    "imshow",
    "imshow_bboxes",
    "imshow_det_bboxes",
    "NoDisplayError",
    "flowshow",
    "flow2rgb",
    "make_color_wheel",
]
