"""contour_expand and pixel_group on text-like maps, against mmcv, and a queue in Python on a smaller map.

pixel_group also beside what its result alone takes, which is lists of Python floats: to make as many floats
("bare floats"), and lists of floats that are there already ("bare lists").
"""

from __future__ import annotations

from collections import deque

import numpy as np
from op_timing import OperatorReport, mmcv_ops

from cv.ops import contour_expand, pixel_group


def text_maps(size: int, kernels: int) -> tuple[np.ndarray, np.ndarray]:
    """Words whose kernels shrink by a pixel a step: masks, largest first, and labels of the smallest."""
    masks = np.zeros((kernels, size, size), np.uint8)
    labels = np.zeros((size, size), np.int32)
    number = 0
    for y in range(0, size - 40, 40):
        for x in range(0, size - 128, 128):
            number += 1
            for k in range(kernels):
                masks[k, y + 2 + k : y + 38 - k, x + 2 + k : x + 126 - k] = 1
            labels[y + 1 + kernels : y + 39 - kernels, x + 1 + kernels : x + 127 - kernels] = number
    return masks, labels


def composed(masks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    result = labels.copy()
    frontier = list(zip(*np.nonzero(result), strict=True))
    for mask in masks[::-1]:
        queue, frontier = deque(frontier), []
        while queue:
            y, x = queue.popleft()
            frontier.append((y, x))
            for ny, nx in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if 0 <= ny < height and 0 <= nx < width and mask[ny, nx] and not result[ny, nx]:
                    result[ny, nx] = result[y, x]
                    queue.append((ny, nx))
    return result


def main() -> None:
    report, mm = OperatorReport("text_kernels", __doc__), mmcv_ops()
    for size, kernels in ((160, 7), (640, 7), (1280, 7)):
        masks, labels = text_maps(size, kernels)
        calls = {"cv": lambda m=masks, i=labels: contour_expand(m, i, 1, int(i.max()) + 1)}
        if size == 160:
            calls["composed"] = lambda m=masks, i=labels: composed(m, i)
        if mm is not None:
            calls["mmcv"] = lambda m=masks, i=labels: mm.contour_expand(m, i, 1, int(i.max()) + 1)
        report.compare(
            f"contour_expand, {size} x {size}, {kernels} kernels", calls, bytes_moved=size**2 * (kernels + 8)
        )
    for size in (640, 1280):
        masks, labels = text_maps(size, 7)
        embedding = np.random.default_rng(0).random((size, size, 4), np.float32) * 0.1
        score = np.random.default_rng(1).random((size, size), np.float32)
        args = (score, masks[0], embedding, labels, (labels > 0).astype(np.uint8), int(labels.max()) + 1, 0.8)
        calls = {"cv": lambda a=args: pixel_group(*a)}
        sizes = [len(group) for group in pixel_group(*args)]
        flat, shared = np.zeros(sum(sizes), np.float32), np.zeros(max(sizes), object)
        calls["bare floats"] = flat.tolist
        calls["bare lists"] = lambda shared=shared, sizes=sizes: [shared[:n].tolist() for n in sizes]
        if mm is not None:
            its_args = (score, args[1] > 0, *args[2:])  # it wants this one mask as booleans
            calls["mmcv"] = lambda a=its_args: mm.pixel_group(*a)
        report.compare(
            f"pixel_group, {size} x {size}, 4 channels", calls, bytes_moved=size**2 * (4 + 1 + 16 + 4 + 1)
        )
    report.write()


if __name__ == "__main__":
    main()
