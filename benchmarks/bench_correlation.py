"""correlation against the composed form: one product and sum per displacement."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward
from torch.nn import functional as F

from cv.ops import correlation


def composed(first: torch.Tensor, second: torch.Tensor, reach: int) -> torch.Tensor:
    """As optical-flow code without the operator writes it."""
    height, width = first.shape[2:]
    around = F.pad(second, [reach] * 4)
    patch = 2 * reach + 1
    maps = [
        (first * around[:, :, dy : dy + height, dx : dx + width]).sum(1)
        for dy in range(patch)
        for dx in range(patch)
    ]
    return torch.stack(maps, 1).unflatten(1, (patch, patch))


def main() -> None:
    report = OperatorReport("correlation", __doc__)
    shapes = [(1, 32, 96, 128), (1, 128, 24, 32), (2, 196, 6, 8)]  # levels of PWC-Net
    if report.on_gpu:
        shapes = [(8, 32, 96, 128), (8, 128, 24, 32)]
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for shape in shapes:
            first, second = (
                torch.randn(shape, device=report.device).to(dtype).requires_grad_() for _ in range(2)
            )
            calls = {
                "cv": lambda a=first, b=second: correlation(a, b, 1, 4),
                "composed": lambda a=first, b=second: composed(a, b, 4),
            }
            case = f"{' x '.join(map(str, shape))}, 9 x 9 displacements, {dtype}"
            work = {"bytes_moved": 2 * first.nbytes, "operations": 2 * 81 * first.numel()}
            with torch.no_grad():
                report.compare(f"forward, {case}", calls, seconds=0.7, **work)
            both = {name: forward_and_backward(call, first, second) for name, call in calls.items()}
            work = {name: 3 * value for name, value in work.items()}
            report.compare(f"forward and backward, {case}", both, seconds=0.7, **work)
    report.write()


if __name__ == "__main__":
    main()
