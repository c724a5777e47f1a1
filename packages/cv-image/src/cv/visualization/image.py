"""Showing images and drawing boxes on them."""

from cv.visualization.boxes import imshow_bboxes, imshow_det_bboxes
from cv.visualization.display import imshow

__all__ = ["imshow", "imshow_bboxes", "imshow_det_bboxes"]
