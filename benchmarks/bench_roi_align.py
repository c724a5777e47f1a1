"""roi_align against torchvision, mmcv and the composed form (grid_sample per image, then average pooling)."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops, torchvision_ops
from torch import Tensor
from torch.nn import functional as F

from cv.ops import roi_align

SCALE = 0.125
BINS = 7


def composed(x: Tensor, rois: Tensor, ratio: int) -> Tensor:
    """``aligned=True``, a fixed number of samples, boxes inside the image: from PyTorch's own operators."""
    height, width = x.shape[2:]
    steps = (torch.arange(BINS * ratio, device=x.device, dtype=x.dtype) + 0.5) / (BINS * ratio)
    boxes = rois[:, 1:] * SCALE
    ys = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * steps
    xs = boxes[:, 0, None] + (boxes[:, 2] - boxes[:, 0])[:, None] * steps
    size = (len(rois), BINS * ratio, BINS * ratio)
    grid = torch.stack(
        ((xs * (2 / width) - 1)[:, None, :].expand(size), (ys * (2 / height) - 1)[:, :, None].expand(size)),
        -1,
    )
    out = x.new_empty(len(rois), x.shape[1], BINS, BINS)
    for image in range(x.shape[0]):
        mine = (rois[:, 0] == image).nonzero()[:, 0]
        flat = grid[mine].reshape(1, -1, BINS * ratio, 2)
        sampled = F.grid_sample(x[image, None], flat, padding_mode="border", align_corners=False)
        pooled = F.avg_pool2d(sampled, ratio).reshape(x.shape[1], -1, BINS, BINS)
        out = out.index_copy(0, mine, pooled.transpose(0, 1))
    return out


def boxes_in(n: int, height: int, width: int, images: int) -> Tensor:
    """Boxes of 32 to 400 pixels inside images of the map's size over SCALE."""
    rng = torch.Generator().manual_seed(0)
    size = torch.tensor([width, height]) / SCALE
    extent = torch.minimum(32 * 12.5 ** torch.rand(n, 2, generator=rng), size - 1)
    corner = torch.rand(n, 2, generator=rng) * (size - extent)
    return torch.cat([torch.randint(0, images, (n, 1), generator=rng).float(), corner, corner + extent], 1)


def main() -> None:
    report = OperatorReport("roi_align", __doc__)
    tv, mm = torchvision_ops(), mmcv_ops()
    dtypes = (torch.float32, torch.float16) if report.on_gpu else (torch.float32,)
    for dtype in dtypes:
        for boxes in (512, 8):
            for last in (False, True):
                compare_case(report, tv, mm, boxes, (2, 256, 100, 100), dtype, last)
        # as a detector with one wide image has it; one layout, to be done in two minutes on a CPU
        compare_case(report, tv, None, 1000, (1, 256, 100, 168), dtype, False, ratios=(0,))
    x, rois = (
        torch.rand(1, 1, 4, 4, device=report.device),
        torch.tensor([[0, 0, 0, 2.0, 2.0]], device=report.device),
    )
    calls = {"cv": lambda: roi_align(x, rois, 1)}
    if tv is not None:
        calls["torchvision"] = lambda: tv.roi_align(x, rois, 1, aligned=True)
    with torch.inference_mode():
        report.compare("call overhead: one box, inference mode", calls)
    x.requires_grad_()
    report.compare("call overhead: one box, grad mode", calls)
    report.write()


def compare_case(
    report: OperatorReport,
    tv: object,
    mm: object,
    boxes: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    last: bool,
    ratios: tuple[int, ...] = (0, 2),
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(report.device, dtype)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    rois = boxes_in(boxes, *shape[2:], shape[0]).to(report.device, dtype)
    out_bytes = boxes * shape[1] * BINS * BINS * x.element_size()
    floor = min(x.nbytes, boxes * 20 * 20 * shape[1] * x.element_size()) + out_bytes
    layout = "channels last" if last else "contiguous"
    what = f"{boxes} boxes on {' x '.join(map(str, shape))}, {layout}, {dtype}"
    for ratio in ratios:
        calls = {"cv": lambda r=ratio: roi_align(x, rois, BINS, SCALE, r)}
        if ratio:
            torch.testing.assert_close(calls["cv"](), composed(x, rois, ratio), rtol=2e-2, atol=2e-2)
            calls["composed"] = lambda r=ratio: composed(x, rois, r)
        if tv is not None:
            calls["torchvision"] = lambda r=ratio: tv.roi_align(x, rois, BINS, SCALE, r, True)
        if mm is not None:
            calls["mmcv"] = lambda r=ratio: mm.roi_align(x, rois, BINS, SCALE, r)
        with torch.no_grad():
            case = f"forward, {ratio or 'adaptive'} samples, {what}"
            report.compare(case, calls, bytes_moved=floor, seconds=0.5)
        both = {name: forward_and_backward(call, x) for name, call in calls.items()}
        report.compare(
            f"forward and backward, {ratio or 'adaptive'} samples, {what}",
            both,
            bytes_moved=2 * floor + x.nbytes,
            seconds=0.5,
        )
    with torch.no_grad():
        report.compare(
            f"greatest, forward, {what}", {"cv": lambda: roi_align(x, rois, BINS, SCALE, 0, "max")}
        )


if __name__ == "__main__":
    main()
