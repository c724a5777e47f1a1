"""border_align against the composed form (grid_sample of each border's points, then the greatest)."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward
from torch import Tensor
from torch.nn import functional as F

from cv.ops import border_align

POOL_SIZE = 10


def composed(x: Tensor, boxes: Tensor, pool_size: int = POOL_SIZE) -> Tensor:
    """Boxes inside the map: from PyTorch's own operators."""
    height, width = x.shape[2:]
    share = torch.arange(pool_size + 1, device=x.device, dtype=x.dtype) / pool_size
    x1, y1, x2, y2 = (boxes[..., i, None] for i in range(4))
    along_x, along_y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
    same = torch.zeros_like(share)
    borders = ((along_x, y1 + same), (x1 + same, along_y), (along_x, y2 + same), (x2 + same, along_y))
    out = []
    for part, (xs, ys) in zip(x.chunk(4, 1), borders, strict=True):
        grid = torch.stack((xs * (2 / (width - 1)) - 1, ys * (2 / (height - 1)) - 1), -1)
        out.append(F.grid_sample(part, grid, align_corners=True).amax(3))
    return torch.stack(out, -1)


def main() -> None:
    report = OperatorReport("border_align", __doc__)
    for shape in ((2, 4 * 128, 50, 50), (1, 4 * 64, 25, 34)):
        for last in (False, True):
            compare_case(report, shape, last)
    report.write()


def compare_case(report: OperatorReport, shape: tuple[int, int, int, int], last: bool) -> None:
    n, _, height, width = shape
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).to(report.device)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    # one box of 2 to 16 pixels around each pixel, cut to the map, as a detector predicts them
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack((xs, ys), -1).reshape(1, -1, 2)
    extent = 1 + 7 * torch.rand(n, height * width, 2, generator=rng)
    limit = torch.tensor([width - 1, height - 1])
    corners = (torch.minimum((centre + sign * extent).clamp(min=0), limit) for sign in (-1, 1))
    boxes = torch.cat(tuple(corners), 2).to(report.device)
    calls = {"cv": lambda: border_align(x, boxes, POOL_SIZE), "composed": lambda: composed(x, boxes)}
    torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=1e-4, atol=1e-4)
    floor = x.nbytes + n * height * width * shape[1] * 8  # output and numbers of the greatest samples
    layout = "channels last" if last else "contiguous"
    what = f"{height * width} boxes on {' x '.join(map(str, shape))}, {layout}"
    with torch.no_grad():
        report.compare(f"forward, {what}", calls, bytes_moved=floor)
    both = {name: forward_and_backward(call, x) for name, call in calls.items()}
    report.compare(f"forward and backward, {what}", both, bytes_moved=2 * floor + x.nbytes)


if __name__ == "__main__":
    main()
