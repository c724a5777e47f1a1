"""nms_rotated against mmcv and a greedy loop of PyTorch operations over the overlaps of box_iou_rotated."""

from __future__ import annotations

import torch
from bench_box_iou_rotated import rotated_boxes
from op_timing import OperatorReport, mmcv_ops
from torch import Tensor

from cv.ops import box_iou_rotated, nms_rotated


def composed(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order = scores.argsort(descending=True)
    rivals = (box_iou_rotated(boxes[order], boxes[order]) > threshold).triu(1)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for i in range(len(order)):
        if alive[i]:
            alive &= ~rivals[i]
    return order[alive]


def main() -> None:
    report, mm = OperatorReport("nms_rotated", __doc__), mmcv_ops()
    for n, span, size in ((1000, 1000, 100), (5000, 1000, 100), (5000, 100, 100), (50_000, 1000, 100)):
        boxes = rotated_boxes(n, span, size, 0).to(report.device)
        scores = torch.rand(n, generator=torch.Generator().manual_seed(1)).to(report.device)
        calls = {"cv": lambda b=boxes, s=scores: nms_rotated(b, s, 0.3)}
        if n <= 5000:
            calls["composed"] = lambda b=boxes, s=scores: composed(b, s, 0.3)
        if mm is not None and n * size < 10**6 and span > size:  # many seconds for each call of the others
            calls["mmcv"] = lambda b=boxes, s=scores: mm.nms_rotated(b, s, 0.3)
        report.compare(f"{n} boxes up to {size} in {span}, IoU 0.3", calls, bytes_moved=n * (24 + 8))
    report.write()


if __name__ == "__main__":
    main()
