"""deform_conv2d and modulated_deform_conv2d against torchvision, mmcv and the composed form."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops, torchvision_ops
from torch import Tensor
from torch.nn import functional as F

from cv.ops import deform_conv2d, modulated_deform_conv2d

# N, C, H, W, C_out, groups: the usual layer, a deeper one, one that is not square, a depthwise one
SHAPES = [
    (2, 64, 64, 64, 64, 1),
    (2, 256, 32, 32, 256, 1),
    (1, 128, 100, 152, 128, 1),
    (2, 64, 64, 64, 64, 64),
]


def composed(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, groups: int) -> Tensor:
    """One grid_sample: stride 1, 3 x 3 kernel, padding 1, from PyTorch's own operators."""
    n, channels, height, width = x.shape
    steps = torch.arange(3, device=x.device, dtype=x.dtype) - 1
    rows = (
        torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
        + steps.repeat_interleave(3)[:, None, None]
    )
    cols = torch.arange(width, device=x.device, dtype=x.dtype) + steps.repeat(3)[:, None, None]
    offset = offset.reshape(n, 9, 2, height, width)
    grid = torch.stack(
        ((cols + offset[:, :, 1]) * (2 / (width - 1)) - 1, (rows + offset[:, :, 0]) * (2 / (height - 1)) - 1),
        -1,
    )
    columns = F.grid_sample(x, grid.reshape(n, 9 * height, width, 2), align_corners=True)
    columns = columns.reshape(n, channels, 9, height, width)
    if mask is not None:
        columns = columns * mask[:, None]
    columns = columns.reshape(n, groups, channels // groups * 9, height * width)
    out = weight.reshape(groups, -1, channels // groups * 9) @ columns
    return out.reshape(n, -1, height, width)


def main() -> None:
    report = OperatorReport("deform_conv", __doc__)
    tv, mm = torchvision_ops(), mmcv_ops()
    dtypes = (torch.float32, torch.float16) if report.on_gpu else (torch.float32,)
    for shape in SHAPES:
        for dtype in dtypes:
            compare_layer(report, tv, mm, shape, dtype)
    compare_overhead(report, tv)
    report.write()


def compare_layer(
    report: OperatorReport, tv: object, mm: object, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    n, channels, height, width, out_channels, groups = shape
    rng = torch.Generator().manual_seed(0)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(size, generator=rng) * scale).to(report.device, dtype).requires_grad_()

    x, weight = normal(n, channels, height, width), normal(out_channels, channels // groups, 3, 3, scale=0.05)
    offset, mask = normal(n, 18, height, width), normal(n, 9, height, width)
    torch.testing.assert_close(
        deform_conv2d(x, offset, weight, padding=1, groups=groups),
        composed(x, offset, None, weight, groups),
        rtol=2e-2,
        atol=2e-2,
    )
    calls = {
        "cv": lambda: deform_conv2d(x, offset, weight, padding=1, groups=groups),
        "composed": lambda: composed(x, offset, None, weight, groups),
    }
    masked = {
        "cv": lambda: modulated_deform_conv2d(x, offset, mask, weight, padding=1, groups=groups),
        "composed": lambda: composed(x, offset, mask, weight, groups),
    }
    if tv is not None:
        calls["torchvision"] = lambda: tv.deform_conv2d(x, offset, weight, padding=1)
        masked["torchvision"] = lambda: tv.deform_conv2d(x, offset, weight, padding=1, mask=mask)
    if mm is not None:
        calls["mmcv"] = lambda: mm.deform_conv2d(x, offset, weight, 1, 1, 1, groups)
        masked["mmcv"] = lambda: mm.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, groups)
    what = f"{n} x {channels} x {height} x {width} to {out_channels}, groups {groups}, {dtype}"
    products = 2 * n * height * width * out_channels * channels // groups * 9
    out_bytes = n * out_channels * height * width * x.element_size()
    moved = x.nbytes + offset.nbytes + weight.nbytes
    with torch.no_grad():
        options = {"bytes_moved": moved + out_bytes, "operations": products, "dtype": dtype}
        report.compare(f"forward {what}", calls, **options)
        report.compare(f"forward with mask {what}", masked, **options)
    both = {name: forward_and_backward(call, x, offset, weight) for name, call in calls.items()}
    options = {"bytes_moved": 3 * moved + 2 * out_bytes, "operations": 3 * products, "dtype": dtype}
    report.compare(f"forward and backward {what}", both, **options)


def compare_overhead(report: OperatorReport, tv: object) -> None:
    x, offset, weight = (
        torch.rand(s, device=report.device) for s in ((1, 1, 2, 2), (1, 2, 2, 2), (1, 1, 1, 1))
    )
    calls = {"cv": lambda: deform_conv2d(x, offset, weight)}
    if tv is not None:
        calls["torchvision"] = lambda: tv.deform_conv2d(x, offset, weight)
    with torch.inference_mode():
        report.compare("call overhead: one channel of 2 x 2, inference mode", calls)
    x.requires_grad_()
    report.compare("call overhead: one channel of 2 x 2, grad mode", calls)


if __name__ == "__main__":
    main()
