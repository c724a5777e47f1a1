"""TINShift against slices of torch, copied group by group."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward

from cv.ops import tin_shift


def composed(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    n, times, channels, pixels = x.shape
    groups = shift.shape[1]
    grouped = x.reshape(n, times, groups, channels // groups, pixels)
    source = torch.arange(times, device=x.device)[None, :, None] - shift[:, None, :]
    index = source.clamp(0, times - 1)[..., None, None].expand_as(grouped)
    inside = ((source >= 0) & (source < times))[..., None, None]
    return torch.where(inside, grouped.gather(1, index), 0).reshape(x.shape)


def main() -> None:
    report = OperatorReport("tin_shift", __doc__)
    n = 64 if report.on_gpu else 4
    for channels, pixels in ((64, 56 * 56), (256, 14 * 14)):
        x = torch.randn(n, 8, channels, pixels, device=report.device).requires_grad_()
        shift = torch.randint(-2, 3, (n, 4), device=report.device)
        calls = {"cv": lambda x=x, s=shift: tin_shift(x, s), "composed": lambda x=x, s=shift: composed(x, s)}
        with torch.no_grad():
            report.compare(f"forward {tuple(x.shape)}", calls, bytes_moved=2 * x.nbytes)
        both = {name: forward_and_backward(call, x) for name, call in calls.items()}
        report.compare(f"forward and backward {tuple(x.shape)}", both, bytes_moved=4 * x.nbytes)
    report.write()


if __name__ == "__main__":
    main()
