"""deform_roi_pool against the composed form (grid_sample of every sample, then average pooling)."""

from __future__ import annotations

import torch
from bench_roi_align import BINS, SCALE, boxes_in
from op_timing import OperatorReport, forward_and_backward
from torch import Tensor
from torch.nn import functional as F

from cv.ops import deform_roi_pool

RATIO = 2
GAMMA = 0.1


def composed(
    x: Tensor, rois: Tensor, offset: Tensor, bins: int = BINS, scale: float = SCALE, ratio: int = RATIO
) -> Tensor:
    """A fixed number of samples, the border repeated: from PyTorch's own operators."""
    height, width = x.shape[2:]
    n = bins * ratio
    boxes = rois[:, 1:] * scale
    size = boxes[:, 2:] - boxes[:, :2]
    move = (GAMMA * size[:, :, None, None] * offset).repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
    steps = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n
    xs = (boxes[:, 0, None] + size[:, 0, None] * steps)[:, None, :] + move[:, 0]
    ys = (boxes[:, 1, None] + size[:, 1, None] * steps)[:, :, None] + move[:, 1]
    grid = torch.stack((xs * (2 / width) - 1, ys * (2 / height) - 1), -1)
    out = x.new_empty(len(rois), x.shape[1], bins, bins)
    for image in range(x.shape[0]):
        mine = (rois[:, 0] == image).nonzero()[:, 0]
        sampled = F.grid_sample(
            x[image, None], grid[mine].reshape(1, -1, n, 2), padding_mode="border", align_corners=False
        )
        pooled = F.avg_pool2d(sampled, ratio).reshape(x.shape[1], -1, bins, bins)
        out = out.index_copy(0, mine, pooled.transpose(0, 1))
    return out


def main() -> None:
    report = OperatorReport("deform_roi_pool", __doc__)
    for boxes, shape in ((512, (2, 256, 100, 100)), (8, (2, 256, 100, 100))):
        for last in (False, True):
            compare_case(report, boxes, shape, last)
    report.write()


def compare_case(report: OperatorReport, boxes: int, shape: tuple[int, ...], last: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).to(report.device)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    rois = boxes_in(boxes, *shape[2:], shape[0])
    rois[:, 1:] = 100 + rois[:, 1:] * 0.75  # moved bins stay inside the map
    rois = rois.to(report.device)
    offset = (torch.rand(boxes, 2, BINS, BINS, generator=rng) - 0.5).to(report.device).requires_grad_()
    out_bytes = boxes * shape[1] * BINS * BINS * x.element_size()
    floor = min(x.nbytes, boxes * 15 * 15 * shape[1] * x.element_size()) + out_bytes
    layout = "channels last" if last else "contiguous"
    what = f"{boxes} boxes on {' x '.join(map(str, shape))}, {layout}"
    for ratio in (0, RATIO):
        calls = {"cv": lambda r=ratio: deform_roi_pool(x, rois, offset, BINS, SCALE, r, GAMMA)}
        if ratio:
            calls["composed"] = lambda: composed(x, rois, offset)
            torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=2e-4, atol=2e-4)
        with torch.no_grad():
            report.compare(f"forward, {ratio or 'adaptive'} samples, {what}", calls, bytes_moved=floor)
        both = {name: forward_and_backward(call, x, offset) for name, call in calls.items()}
        case = f"forward and backward, {ratio or 'adaptive'} samples, {what}"
        report.compare(case, both, bytes_moved=3 * floor + x.nbytes)


if __name__ == "__main__":
    main()
