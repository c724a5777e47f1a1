"""carafe against its composed form (unfold, enlarge, multiply, add)."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward
from torch import Tensor
from torch.nn import functional as F

from cv.ops import carafe

KERNEL, SCALE = 5, 2


def composed(x: Tensor, masks: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    taps = KERNEL * KERNEL
    windows = F.unfold(x, KERNEL, padding=KERNEL // 2).view(n, c * taps, h, w)
    windows = F.interpolate(windows, scale_factor=SCALE, mode="nearest")
    windows = windows.view(n, groups, c // groups, taps, h * SCALE, w * SCALE)
    out = (windows * masks.view(n, groups, 1, taps, h * SCALE, w * SCALE)).sum(3)
    return out.view(n, c, h * SCALE, w * SCALE)


def main() -> None:
    report = OperatorReport("carafe", __doc__)
    dtypes = (torch.float32, torch.float16) if report.on_gpu else (torch.float32,)
    for dtype in dtypes:
        for shape, groups in (((2, 256, 25, 34), 1), ((1, 256, 50, 67), 1), ((1, 64, 50, 67), 4)):
            for last in (False, True):
                compare_case(report, shape, groups, dtype, last)
    x, masks = torch.rand(1, 1, 1, 1, device=report.device), torch.rand(1, 1, 1, 1, device=report.device)
    with torch.inference_mode():
        report.compare("call overhead: one pixel, inference mode", {"cv": lambda: carafe(x, masks, 1, 1, 1)})
    report.write()


def compare_case(
    report: OperatorReport, shape: tuple[int, ...], groups: int, dtype: torch.dtype, last: bool
) -> None:
    n, _, h, w = shape
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).to(report.device, dtype)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    masks = torch.randn(n, groups, KERNEL * KERNEL, h * SCALE, w * SCALE, generator=rng).softmax(2)
    masks = masks.flatten(1, 2).to(report.device, dtype).requires_grad_()
    calls = {
        "cv": lambda: carafe(x, masks, KERNEL, groups, SCALE),
        "composed": lambda: composed(x, masks, groups),
    }
    torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=2e-2, atol=2e-2)
    moved = x.nbytes * (1 + SCALE * SCALE) + masks.nbytes
    operations = 2 * KERNEL * KERNEL * x.numel() * SCALE * SCALE
    layout = "channels last" if last else "contiguous"
    what = f"{' x '.join(map(str, shape))}, {groups} groups, {layout}, {dtype}"
    with torch.no_grad():
        report.compare(f"forward, {what}", calls, bytes_moved=moved, operations=operations)
    both = {name: forward_and_backward(call, x, masks) for name, call in calls.items()}
    report.compare(f"forward and backward, {what}", both, bytes_moved=2 * moved, operations=3 * operations)


if __name__ == "__main__":
    main()
