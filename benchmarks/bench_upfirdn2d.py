"""upfirdn2d against mmcv and the composed form: zeros put in, padded, convolved by channel, strided."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops
from torch.nn import functional as F

from cv.ops import upfirdn2d


def composed(x: torch.Tensor, kernel: torch.Tensor, up: int, down: int, pad: tuple[int, int]) -> torch.Tensor:
    """As StyleGAN2 code without the operator writes it."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n * c, 1, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n * c, 1, h * up, w * up)
    x = F.pad(x, (*pad, *pad))
    out = F.conv2d(x, kernel.flip(0, 1)[None, None], stride=down)
    return out.reshape(n, c, *out.shape[2:])


def main() -> None:
    report, mm = OperatorReport("upfirdn2d", __doc__), mmcv_ops()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=report.device) / 8
    binomial = torch.outer(taps, taps)
    full = binomial + torch.eye(4, device=report.device) / 64  # of full rank
    n, c = (16, 128) if report.on_gpu else (2, 64)
    cases = [
        ("blur", 128, 1, 1, (2, 1), binomial),
        ("twice as large", 64, 2, 1, (2, 1), binomial * 4),
        ("half as large", 128, 1, 2, (1, 1), binomial),
        ("blur, full-rank kernel", 128, 1, 1, (2, 1), full),
        ("blur, small", 16, 1, 1, (2, 1), binomial),
    ]
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for what, size, up, down, pad, kernel in cases:
            x = torch.randn(n, c, size, size, device=report.device).to(dtype).requires_grad_()
            k = kernel.to(dtype)
            calls = {
                "cv": lambda x=x, k=k, args=(up, down, pad): upfirdn2d(x, k, *args),
                "composed": lambda x=x, k=k, args=(up, down, pad): composed(x, k, *args),
            }
            if mm is not None:
                calls["mmcv"] = lambda x=x, k=k, args=(up, down, pad): mm.upfirdn2d(x, k, *args)
            moved = x.nbytes + upfirdn2d(x, k, up, down, pad).nbytes
            case = f"{what}, {n} x {c} x {size} x {size}, {dtype}"
            with torch.no_grad():
                report.compare(f"forward, {case}", calls, bytes_moved=moved, seconds=0.7)
            both = {name: forward_and_backward(call, x) for name, call in calls.items()}
            report.compare(f"forward and backward, {case}", both, bytes_moved=2 * moved, seconds=0.7)
    report.write()


if __name__ == "__main__":
    main()
