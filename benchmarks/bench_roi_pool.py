"""roi_pool against torchvision and the composed form (adaptive_max_pool2d of each region, cut out)."""

from __future__ import annotations

import torch
from bench_roi_align import BINS, SCALE, boxes_in
from op_timing import OperatorReport, forward_and_backward, torchvision_ops
from torch import Tensor
from torch.nn import functional as F

from cv.ops import roi_pool


def composed(x: Tensor, rois: Tensor) -> Tensor:
    """Boxes inside the image: adaptive pooling divides a region into the same bins."""
    corners = (rois[:, 1:] * SCALE + 0.5).floor().long().tolist()  # rounded, for positive numbers
    images = rois[:, 0].long().tolist()
    regions = zip(images, corners, strict=True)
    return torch.cat(
        [
            F.adaptive_max_pool2d(x[i : i + 1, :, y1 : y2 + 1, x1 : x2 + 1], BINS)
            for i, (x1, y1, x2, y2) in regions
        ]
    )


def main() -> None:
    report = OperatorReport("roi_pool", __doc__)
    tv = torchvision_ops()
    for boxes, shape in ((512, (2, 256, 100, 100)), (8, (2, 256, 100, 100))):
        for last in (False, True):
            for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
                compare_case(report, tv, boxes, shape, dtype, last)
    report.write()


def compare_case(
    report: OperatorReport, tv: object, boxes: int, shape: tuple[int, ...], dtype: torch.dtype, last: bool
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(report.device, dtype)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    rois = boxes_in(boxes, *shape[2:], shape[0]).clamp(max=100 / SCALE - 5).to(report.device)
    out = boxes * shape[1] * BINS * BINS
    floor = min(x.nbytes, boxes * 18 * 18 * shape[1] * x.element_size()) + out * (x.element_size() + 4)
    layout = "channels last" if last else "contiguous"
    what = f"{boxes} boxes on {' x '.join(map(str, shape))}, {layout}, {dtype}"
    calls = {"cv": lambda: roi_pool(x, rois, BINS, SCALE), "composed": lambda: composed(x, rois)}
    torch.testing.assert_close(calls["cv"](), calls["composed"]())
    if tv is not None:
        calls["torchvision"] = lambda: tv.roi_pool(x, rois.to(dtype), BINS, SCALE)
    with torch.no_grad():
        report.compare(f"forward, {what}", calls, bytes_moved=floor)
    if boxes > 100:
        del calls["composed"]  # the gradient of each cut is as large as the map: ten seconds
    both = {name: forward_and_backward(call, x) for name, call in calls.items()}
    report.compare(f"forward and backward, {what}", both, bytes_moved=2 * floor + x.nbytes)


if __name__ == "__main__":
    main()
