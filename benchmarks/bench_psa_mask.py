"""PSAMask against mmcv and an index_select over a table of where each element comes from."""

from __future__ import annotations

import functools

import torch
from op_timing import OperatorReport, forward_and_backward, mmcv_ops

from cv.ops import psa_mask


def source_table(psa_type: str, height: int, width: int, device: torch.device) -> torch.Tensor:
    """For each pair of pixels the mask element; the mask reaches everywhere."""
    y, x, h, w = torch.meshgrid(*(torch.arange(k, device=device) for k in (height, width) * 2), indexing="ij")
    table = (((y - h + height - 1) * (2 * width - 1) + x - w + width - 1) * height + h) * width + w
    if psa_type == "distribute":
        table = table.permute(2, 3, 0, 1)
    return table.reshape(height * width, height, width)


def main() -> None:
    report, mm = OperatorReport("psa_mask", __doc__), mmcv_ops()
    n, size = (8, 60) if report.on_gpu else (2, 60)
    for psa_type in ("collect", "distribute"):
        masks = torch.randn(n, (2 * size - 1) ** 2, size, size, device=report.device).requires_grad_()
        table = source_table(psa_type, size, size, report.device).flatten()

        def composed(masks: torch.Tensor = masks, table: torch.Tensor = table) -> torch.Tensor:
            return masks.flatten(1).index_select(1, table).reshape(n, size * size, size, size)

        calls = {"cv": lambda x=masks, t=psa_type: psa_mask(x, t), "composed": composed}
        if mm is not None:
            calls["mmcv"] = functools.partial(mm.PSAMask(psa_type, (2 * size - 1,) * 2), masks)
        pairs = n * size**4 * masks.element_size()
        with torch.no_grad():
            report.compare(f"{psa_type}, forward {n} x {size} x {size}", calls, bytes_moved=2 * pairs)
        both = {name: forward_and_backward(call, masks) for name, call in calls.items()}
        report.compare(
            f"{psa_type}, forward and backward {n} x {size} x {size}",
            both,
            bytes_moved=3 * pairs + masks.nbytes,
        )
    report.write()


if __name__ == "__main__":
    main()
