"""CornerPool against mmcv and torch.cummax."""

from __future__ import annotations

import functools

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops

from cv.ops import corner_pool


def composed(x: torch.Tensor, mode: str) -> torch.Tensor:
    dim = 2 if mode in ("bottom", "top") else 3
    if mode in ("bottom", "right"):
        return x.cummax(dim).values
    return x.flip(dim).cummax(dim).values.flip(dim)


def main() -> None:
    report, mm = OperatorReport("corner_pool", __doc__), mmcv_ops()
    shape = (8, 256, 128, 128) if report.on_gpu else (2, 128, 128, 128)
    for mode in ("bottom", "left", "right", "top"):
        x = torch.randn(shape, device=report.device).requires_grad_()
        calls = {
            "cv": lambda x=x, m=mode: corner_pool(x, m),
            "composed": lambda x=x, m=mode: composed(x, m),
        }
        if mm is not None:
            calls["mmcv"] = functools.partial(mm.CornerPool(mode), x)
        with torch.no_grad():
            report.compare(f"{mode}, forward {shape}", calls, bytes_moved=2 * x.nbytes)
        both = {name: forward_and_backward(call, x) for name, call in calls.items()}
        report.compare(f"{mode}, forward and backward {shape}", both, bytes_moved=6 * x.nbytes)
    report.write()


if __name__ == "__main__":
    main()
