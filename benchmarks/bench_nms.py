"""nms and batched_nms against torchvision and mmcv."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, mmcv_ops, torchvision_ops

from cv.ops import batched_nms, nms

CONFIG = {"type": "nms", "iou_threshold": 0.5}


def boxes_and_scores(
    n: int, span: float, size: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 2, generator=generator) * span
    boxes = torch.cat([low, low + torch.rand(n, 2, generator=generator) * size], 1)
    return boxes.to(device), torch.rand(n, generator=generator).to(device)


def main() -> None:
    report = OperatorReport("nms", __doc__)
    tv, mm = torchvision_ops(), mmcv_ops()
    # (1000, 100): a crowded image; (1000, 1000): every box overlaps most others; (2000, 20): few overlap.
    for span, size in ((1000, 100), (1000, 1000), (2000, 20)):
        for n in (1000, 10_000, 50_000):
            boxes, scores = boxes_and_scores(n, span, size, report.device)
            calls = {"cv": lambda b=boxes, s=scores: nms(b, s, 0.5)}
            if tv is not None:
                calls["torchvision"] = lambda b=boxes, s=scores: tv.nms(b, s, 0.5)
            if mm is not None and n * size < 10**7:  # crowded boxes once: seconds for each call
                calls["mmcv"] = lambda b=boxes, s=scores: mm.nms(b, s, 0.5)
            # Boxes and scores in, indices out; sorting reads and writes keys and indices a few times more.
            report.compare(f"{n} boxes up to {size} in {span}, IoU 0.5", calls, bytes_moved=n * (20 + 8))
    for n, classes in ((5000, 80), (50_000, 80)):
        boxes, scores = boxes_and_scores(n, 1000, 100, report.device)
        labels = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(1)).to(report.device)
        calls = {"cv": lambda b=boxes, s=scores, i=labels: batched_nms(b, s, i, CONFIG)}
        if tv is not None:
            calls["torchvision"] = lambda b=boxes, s=scores, i=labels: tv.batched_nms(b, s, i, 0.5)
        if mm is not None:
            calls["mmcv"] = lambda b=boxes, s=scores, i=labels: mm.batched_nms(b, s, i, CONFIG)
        report.compare(f"batched, {n} boxes in {classes} classes", calls, bytes_moved=n * (20 + 16))
    boxes, scores = boxes_and_scores(4, 100, 50, report.device)
    with torch.inference_mode():
        calls = {"cv": lambda: nms(boxes, scores, 0.5)}
        if tv is not None:
            calls["torchvision"] = lambda: tv.nms(boxes, scores, 0.5)
        if mm is not None:
            calls["mmcv"] = lambda: mm.nms(boxes, scores, 0.5)
        report.compare("call overhead: 4 boxes, inference mode", calls)
    report.write()


if __name__ == "__main__":
    main()
