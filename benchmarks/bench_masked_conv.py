"""masked_conv2d against the whole convolution with the rest set to zero."""

from __future__ import annotations

import torch
from op_timing import OperatorReport
from torch.nn import functional as F

from cv.ops import masked_conv2d

SHARES = (0.0, 0.02, 0.1, 0.25, 1.0)


def main() -> None:
    report = OperatorReport("masked_conv", __doc__)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 100, 134, generator=rng).to(report.device)
    weight = torch.randn(36, 256, 3, 3, generator=rng).to(report.device)
    places = torch.rand(1, 100, 134, generator=rng).to(report.device)
    for share in SHARES:
        mask = places < share
        calls = {
            "cv": lambda m=mask: masked_conv2d(x, m, weight, None, 1),
            "composed": lambda m=mask: F.conv2d(x, weight, None, 1, 1).masked_fill(~m[:, None], 0.0),
        }
        torch.testing.assert_close(calls["cv"](), calls["composed"](), rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            report.compare(
                f"{share:.0%} of 100 x 134 pixels, 256 to 36 channels, 3 x 3",
                calls,
                bytes_moved=x.nbytes,
                operations=int(2 * share * 13400 * 256 * 9 * 36),
            )
    report.write()


if __name__ == "__main__":
    main()
