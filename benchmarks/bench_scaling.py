"""How much faster every operator is on all threads than on one: the cases of its benchmark, run both ways.

The first rows are what the machine itself gives: a copy between two large blocks of memory, which shows how
threads share the bandwidth, the same to memory fresh from the system, and a matrix product, which needs
neither. An operator cannot gain more than what it is made of. Calls of less than a millisecond are left out.

Beside the times is what the work would gain if each thread had a core of its own, by processor time: on a
shared machine even the matrix product gains 1.3 to 2.0, from one minute to the next.
"""

from __future__ import annotations

import importlib
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read with torch: waiting shall be no processor time

import torch
from harness import Report, arguments
from op_timing import compare_threads, scaling_into

OPERATORS = [
    "bbox_overlaps",
    "border_align",
    "box_iou_rotated",
    "carafe",
    "corner_pool",
    "correlation",
    "deform_conv",
    "deform_roi_pool",
    "fused_bias_leakyrelu",
    "masked_conv",
    "multi_scale_deform_attn",
    "nms",
    "nms_rotated",
    "psa_mask",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
    "sigmoid_focal_loss",
    "soft_nms",
    "softmax_focal_loss",
    "text_kernels",
    "tin_shift",
    "upfirdn2d",
]


def main() -> None:
    args = arguments(__doc__)
    report = Report("scaling", threads=args.threads)
    torch.set_num_threads(args.threads)
    source, square = torch.rand(16 << 20), torch.rand(1024, 1024)
    target = torch.empty_like(source)
    compare_threads(report, "machine: copy of 64 MiB", lambda: target.copy_(source))
    compare_threads(report, "machine: copy of 64 MiB to fresh memory", source.clone)
    compare_threads(report, "machine: matrix product, 1024 x 1024", lambda: square @ square)
    with scaling_into(report):
        for name in OPERATORS:
            importlib.import_module(f"bench_{name}").main()
    print(report.write(args.out))


if __name__ == "__main__":
    main()
