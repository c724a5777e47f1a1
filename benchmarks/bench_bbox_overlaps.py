"""bbox_overlaps against torchvision's box_iou, mmcv and the composed PyTorch form."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, mmcv_ops, torchvision_ops

from cv.ops import bbox_overlaps


def composed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    return inter / (area_a[:, None] + area_b - inter)


def main() -> None:
    report = OperatorReport("bbox_overlaps", __doc__)
    tv, mm = torchvision_ops(), mmcv_ops()
    sizes = [(100, 100), (2000, 2000), (16, 50_000)] + ([(20_000, 20_000)] if report.on_gpu else [])
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for m, n in sizes:
            low = torch.rand(m + n, 2, device=report.device) * 1000
            boxes = torch.cat([low, low + torch.rand(m + n, 2, device=report.device) * 100], 1).to(dtype)
            a, b = boxes[:m].contiguous(), boxes[m:].contiguous()
            calls = {
                "cv": lambda a=a, b=b: bbox_overlaps(a, b),
                "composed": lambda a=a, b=b: composed(a, b),
            }
            if tv is not None:
                calls["torchvision"] = lambda a=a, b=b: tv.box_iou(a, b)
            if mm is not None:
                calls["mmcv"] = lambda a=a, b=b: mm.bbox_overlaps(a, b)
            if m * n > 10**8:
                del calls["composed"]  # its intermediate values do not fit beside each other
            report.compare(f"{m} x {n}, {dtype}", calls, bytes_moved=(m * n + 4 * (m + n)) * dtype.itemsize)
    report.write()


if __name__ == "__main__":
    main()
