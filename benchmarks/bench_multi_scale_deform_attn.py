"""multi_scale_deformable_attn against its composed form (one grid_sample per level)."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward
from torch import Tensor

from cv.ops import multi_scale_deformable_attn, multi_scale_deformable_attn_pytorch

# An image of 800 x 1066 at strides 8 to 64, and a smaller one.
LARGE = ((100, 134), (50, 67), (25, 34), (13, 17))
SMALL = ((64, 64), (32, 32), (16, 16), (8, 8))
HEADS, CHANNELS, POINTS = 8, 32, 4


def make_inputs(
    n: int, queries: int, shapes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    sizes = torch.tensor(shapes)
    areas = sizes.prod(1)
    starts = areas.cumsum(0) - areas
    value = torch.randn(n, int(areas.sum()), HEADS, CHANNELS, generator=rng)
    # around a place of each query, as attention reads
    centre = torch.rand(n, queries, 1, 1, 1, 2, generator=rng)
    spread = torch.randn(n, queries, HEADS, len(shapes), POINTS, 2, generator=rng) * 0.05
    weights = torch.rand(n, queries, HEADS, len(shapes) * POINTS, generator=rng).softmax(-1)
    weights = weights.view(n, queries, HEADS, len(shapes), POINTS)
    low = (value.to(device, dtype), (centre + spread).to(device, dtype), weights.to(device, dtype))
    value, places, weights = (t.requires_grad_() for t in low)
    return value, sizes.to(device), starts.to(device), places, weights


def main() -> None:
    report = OperatorReport("multi_scale_deform_attn", __doc__)
    dtypes = (torch.float32, torch.float16, torch.bfloat16) if report.on_gpu else (torch.float32,)
    for dtype in dtypes:
        for n, queries, shapes in ((2, 300, LARGE), (1, 900, SMALL), (1, 5440, SMALL)):
            args = make_inputs(n, queries, shapes, report.device, dtype)
            value, _, _, places, weights = args
            calls = {
                "cv": lambda a=args: multi_scale_deformable_attn(*a),
                "composed": lambda a=args: multi_scale_deformable_attn_pytorch(a[0], a[1], a[3], a[4]),
            }
            torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=5e-2, atol=5e-2)
            out_bytes = n * queries * HEADS * CHANNELS * value.element_size()
            touched = n * queries * HEADS * len(shapes) * POINTS * 4 * CHANNELS * value.element_size()
            floor = min(value.nbytes, touched) + places.nbytes + weights.nbytes + out_bytes
            what = f"{n} x {queries} queries, {value.shape[1]} keys, {dtype}"
            with torch.no_grad():
                report.compare(f"forward, {what}", calls, bytes_moved=floor)
            both = {name: forward_and_backward(call, value, places, weights) for name, call in calls.items()}
            report.compare(f"forward and backward, {what}", both, bytes_moved=2 * floor + value.nbytes)
    tiny = make_inputs(1, 1, ((1, 1),), report.device, torch.float32)
    calls = {"cv": lambda: multi_scale_deformable_attn(*tiny)}
    with torch.inference_mode():
        report.compare("call overhead: one query, inference mode", calls)
    report.compare("call overhead: one query, grad mode", calls)
    report.write()


if __name__ == "__main__":
    main()
