"""soft_nms and nms_match against mmcv, and loops of PyTorch operations over one row of overlaps at a time."""

from __future__ import annotations

import torch
from bench_nms import boxes_and_scores
from op_timing import OperatorReport, mmcv_ops
from torch import Tensor

from cv.ops import batched_nms, bbox_overlaps, nms_match, soft_nms


def composed(boxes: Tensor, scores: Tensor, method: str) -> tuple[Tensor, Tensor]:
    scores, chosen, values = scores.clone(), [], []
    while (best := int(scores.argmax())) >= 0 and scores[best] >= 1e-3:
        chosen.append(best)
        values.append(scores[best].clone())
        overlap = bbox_overlaps(boxes[best : best + 1], boxes)[0]
        if method == "linear":
            scores *= torch.where(overlap >= 0.3, 1 - overlap, 1)
        else:
            scores *= torch.exp(-(overlap**2) / 0.5)
        scores[best] = -1
    return torch.stack(values), torch.tensor(chosen)


def composed_match(dets: Tensor) -> list[Tensor]:
    order = dets[:, 4].argsort(descending=True)
    groups = []
    while len(order):
        overlap = bbox_overlaps(dets[order[:1], :4], dets[order, :4])[0] > 0.5
        overlap[0] = True
        groups.append(order[overlap])
        order = order[~overlap]
    return groups


def main() -> None:
    report, mm = OperatorReport("soft_nms", __doc__), mmcv_ops()
    for n, span, size in ((200, 1000, 100), (2000, 1000, 100), (2000, 100, 100), (20_000, 1000, 100)):
        boxes, scores = boxes_and_scores(n, span, size, report.device)
        for method in ("linear", "gaussian"):
            calls = {"cv": lambda b=boxes, s=scores, m=method: soft_nms(b, s, method=m)}
            if n <= 2000:
                calls["composed"] = lambda b=boxes, s=scores, m=method: composed(b, s, m)
            if mm is not None:
                calls["mmcv"] = lambda b=boxes, s=scores, m=method: mm.soft_nms(b, s, method=m)
            report.compare(f"{method}, {n} boxes up to {size} in {span}", calls, bytes_moved=n * (20 + 28))
    boxes, scores = boxes_and_scores(20_000, 1000, 100, report.device)
    labels = torch.randint(0, 80, (20_000,), generator=torch.Generator().manual_seed(1)).to(report.device)
    config = {"type": "soft_nms"}
    calls = {"cv": lambda: batched_nms(boxes, scores, labels, config)}
    if mm is not None:
        calls["mmcv"] = lambda: mm.batched_nms(boxes, scores, labels, config)
    report.compare("linear, 20000 boxes in 80 classes", calls, bytes_moved=20_000 * (28 + 28))
    for n in (200, 2000):
        boxes, scores = boxes_and_scores(n, 300, 100, report.device)
        dets = torch.cat([boxes, scores[:, None]], 1)
        calls = {"cv": lambda d=dets: nms_match(d, 0.5), "composed": lambda d=dets: composed_match(d)}
        if mm is not None:
            calls["mmcv"] = lambda d=dets: mm.nms_match(d, 0.5)
        report.compare(f"nms_match, {n} boxes up to 100 in 300, IoU 0.5", calls, bytes_moved=n * (20 + 8))
    report.write()


if __name__ == "__main__":
    main()
