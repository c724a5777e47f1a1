"""sigmoid_focal_loss against torchvision's (composed) one, which takes one-hot targets."""

from __future__ import annotations

from functools import partial

import torch
from op_timing import OperatorReport, forward_and_backward, torchvision_ops
from torch.nn import functional as F

from cv.ops import sigmoid_focal_loss


def composed(
    logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> torch.Tensor:
    """As a code base without the operator writes it, from the same integer labels."""
    classes = logits.shape[1]
    one_hot = F.one_hot(target, classes + 1)[:, :classes].to(logits.dtype)
    p = torch.sigmoid(logits)
    loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    p_t = p * one_hot + (1 - p) * (1 - one_hot)
    loss = loss * (1 - p_t) ** gamma * (alpha * one_hot + (1 - alpha) * (1 - one_hot))
    return loss.sum() / logits.shape[0]


def main() -> None:
    report = OperatorReport("sigmoid_focal_loss", __doc__)
    tv = torchvision_ops()
    rows = 400_000 if report.on_gpu else 20_000
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for n, classes in ((rows, 80), (rows * 20, 1)):
            logits = torch.randn(n, classes, device=report.device).to(dtype).requires_grad_()
            target = torch.randint(0, classes + 1, (n,), device=report.device)
            one_hot = F.one_hot(target, classes + 1)[:, :classes].to(dtype)
            calls = {
                "cv": lambda x=logits, t=target: sigmoid_focal_loss(x, t),
                "composed": lambda x=logits, t=target: composed(x, t),
            }
            if tv is not None:
                calls["torchvision"] = partial(tv.sigmoid_focal_loss, logits, one_hot, reduction="sum")
            read = logits.nbytes + target.nbytes
            with torch.no_grad():
                report.compare(f"forward {n} x {classes}, {dtype}", calls, bytes_moved=read)
            both = {name: forward_and_backward(call, logits) for name, call in calls.items()}
            report.compare(
                f"forward and backward {n} x {classes}, {dtype}", both, bytes_moved=2 * read + logits.nbytes
            )
    report.write()


if __name__ == "__main__":
    main()
