"""roi_align_rotated against mmcv and the composed form (grid_sample per image, then average pooling)."""

from __future__ import annotations

import torch
from bench_roi_align import BINS, SCALE, boxes_in
from op_timing import OperatorReport, forward_and_backward, mmcv_ops
from torch import Tensor
from torch.nn import functional as F

from cv.ops import roi_align_rotated

RATIO = 2


def composed(x: Tensor, rois: Tensor) -> Tensor:
    """``aligned=True``, a fixed number of samples, the border repeated: from PyTorch's own operators."""
    height, width = x.shape[2:]
    n = BINS * RATIO
    steps = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n - 0.5
    v = (rois[:, 4] * SCALE)[:, None, None] * steps[:, None]
    u = (rois[:, 3] * SCALE)[:, None, None] * steps[None, :]
    cos, sin = rois[:, 5, None, None].cos(), rois[:, 5, None, None].sin()
    ys = (rois[:, 2] * SCALE)[:, None, None] + v * cos - u * sin
    xs = (rois[:, 1] * SCALE)[:, None, None] + v * sin + u * cos
    grid = torch.stack((xs * (2 / width) - 1, ys * (2 / height) - 1), -1)
    out = x.new_empty(len(rois), x.shape[1], BINS, BINS)
    for image in range(x.shape[0]):
        mine = (rois[:, 0] == image).nonzero()[:, 0]
        sampled = F.grid_sample(
            x[image, None], grid[mine].reshape(1, -1, n, 2), padding_mode="border", align_corners=False
        )
        pooled = F.avg_pool2d(sampled, RATIO).reshape(x.shape[1], -1, BINS, BINS)
        out = out.index_copy(0, mine, pooled.transpose(0, 1))
    return out


def rotated_boxes_in(n: int, height: int, width: int, images: int) -> Tensor:
    """The boxes of the RoIAlign benchmark, turned; half as large, so that they stay inside."""
    image, corners = boxes_in(n, height, width, images).split((1, 4), 1)
    size = (corners[:, 2:] - corners[:, :2]) / 2
    centre = ((corners[:, 2:] + corners[:, :2]) / 2).clamp(300, 500)
    angle = torch.rand(n, 1, generator=torch.Generator().manual_seed(1)) * 6.28
    return torch.cat([image, centre, size, angle], 1)


def main() -> None:
    report, mm = OperatorReport("roi_align_rotated", __doc__), mmcv_ops()
    for boxes, shape in ((512, (2, 256, 100, 100)), (8, (2, 256, 100, 100))):
        for last in (False, True):
            for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
                compare_case(report, mm, boxes, shape, dtype, last)
    report.write()


def compare_case(
    report: OperatorReport, mm: object, boxes: int, shape: tuple[int, ...], dtype: torch.dtype, last: bool
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(report.device, dtype)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    rois = rotated_boxes_in(boxes, *shape[2:], shape[0]).to(report.device)
    out_bytes = boxes * shape[1] * BINS * BINS * x.element_size()
    floor = min(x.nbytes, boxes * 10 * 10 * shape[1] * x.element_size()) + out_bytes
    layout = "channels last" if last else "contiguous"
    what = f"{boxes} boxes on {' x '.join(map(str, shape))}, {layout}, {dtype}"
    for ratio in (0, RATIO):
        calls = {"cv": lambda r=ratio: roi_align_rotated(x, rois, BINS, SCALE, r)}
        if ratio:
            calls["composed"] = lambda: composed(x, rois.to(dtype))
            tolerance = 2e-4 if dtype == torch.float32 else 5e-2
            torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=tolerance, atol=tolerance)
        if mm is not None:
            calls["mmcv"] = lambda r=ratio: mm.roi_align_rotated(x, rois, BINS, SCALE, r)
        with torch.no_grad():
            report.compare(f"forward, {ratio or 'adaptive'} samples, {what}", calls, bytes_moved=floor)
        both = {name: forward_and_backward(call, x) for name, call in calls.items()}
        case = f"forward and backward, {ratio or 'adaptive'} samples, {what}"
        report.compare(case, both, bytes_moved=2 * floor + x.nbytes)


if __name__ == "__main__":
    main()
