"""fused_bias_leakyrelu against mmcv and the composed form: addition, leaky_relu, product."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops
from torch.nn import functional as F

from cv.ops import fused_bias_leakyrelu


def composed(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """As StyleGAN2 code without the operator writes it."""
    return F.leaky_relu(x + bias.reshape(1, -1, *[1] * (x.dim() - 2)), 0.2) * 2**0.5


def main() -> None:
    report, mm = OperatorReport("fused_bias_leakyrelu", __doc__), mmcv_ops()
    shapes = [(4, 64, 128, 128), (4, 512, 8, 8), (512, 512)]
    if report.on_gpu:
        shapes = [(32, 128, 256, 256), (32, 512, 8, 8), (8192, 512)]
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for shape in shapes:
            for layout in ("contiguous", "channels-last")[: len(shape) - 1 if len(shape) == 4 else 1]:
                x = torch.randn(shape, device=report.device).to(dtype)
                if layout == "channels-last":
                    x = x.contiguous(memory_format=torch.channels_last)
                x = x.requires_grad_()
                bias = torch.randn(shape[1], device=report.device).to(dtype).requires_grad_()
                calls = {
                    "cv": lambda x=x, b=bias: fused_bias_leakyrelu(x, b),
                    "composed": lambda x=x, b=bias: composed(x, b),
                }
                if mm is not None:
                    calls["mmcv"] = lambda x=x, b=bias: mm.fused_bias_leakyrelu(x, b)
                case = f"{' x '.join(map(str, shape))}, {layout}, {dtype}"
                with torch.no_grad():
                    report.compare(f"forward, {case}", calls, bytes_moved=2 * x.nbytes, seconds=0.7)
                both = {name: forward_and_backward(call, x, bias) for name, call in calls.items()}
                report.compare(f"forward and backward, {case}", both, bytes_moved=5 * x.nbytes, seconds=0.7)
    report.write()


if __name__ == "__main__":
    main()
