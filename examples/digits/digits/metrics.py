"""Average precision."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cv.ops import bbox_overlaps


def average_precision(
    results: list[list[NDArray[np.float32]]],
    truth: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
    iou: float,
) -> float:
    """Mean over the classes of the area under the precision-recall curve (PASCAL VOC 2010, all points).

    Args:
        results: per image and class the detections ``(n, 5)``: x1, y1, x2, y2, score.
        truth: per image the boxes ``(G, 4)`` and labels ``(G,)``.
        iou: a detection is right if it overlaps a yet unclaimed box of its class by at least this much.
    """
    classes = range(len(results[0]))
    return float(np.mean([_class_ap([found[c] for found in results], truth, c, iou) for c in classes]))


def _class_ap(
    found: list[NDArray[np.float32]],
    truth: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
    label: int,
    iou: float,
) -> float:
    scores, right, total = [], [], 0
    for detections, (boxes, labels) in zip(found, truth, strict=True):
        wanted = boxes[labels == label]
        total += len(wanted)
        scores.append(detections[:, 4])
        right.append(_match(detections, wanted, iou))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.concatenate(right)[order].cumsum()
    recall = np.concatenate([[0.0], hits / max(total, 1)])
    precision = np.concatenate([[1.0], hits / np.arange(1, len(hits) + 1)])
    # The curve is made monotonic from the right: a lower threshold may only be used to gain recall.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * precision[1:]).sum())


def _match(detections: NDArray[np.float32], wanted: NDArray[np.float32], iou: float) -> NDArray[np.bool_]:
    """For each detection, best first, whether it claims a box that no better one has claimed."""
    right = np.zeros(len(detections), dtype=bool)
    if len(wanted) == 0:
        return right
    overlaps = bbox_overlaps(torch.from_numpy(detections[:, :4]), torch.from_numpy(wanted)).numpy()
    free = np.ones(len(wanted), dtype=bool)
    for i in np.argsort(-detections[:, 4], kind="stable"):
        best = int(overlaps[i].argmax())
        if overlaps[i, best] >= iou and free[best]:
            right[i], free[best] = True, False
    return right
