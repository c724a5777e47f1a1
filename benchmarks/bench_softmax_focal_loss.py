"""softmax_focal_loss against the same loss composed of torch's operators, in two ways."""

from __future__ import annotations

import torch
from op_timing import OperatorReport, forward_and_backward

from cv.ops import softmax_focal_loss


def composed(
    logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> torch.Tensor:
    """With as few passes over the logits as torch allows: the one of log_softmax."""
    log_p = torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    return (-alpha * (1 - log_p.exp()) ** gamma * log_p).mean()


def composed_one_hot(
    logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> torch.Tensor:
    """As the formula is usually written down."""
    p = torch.softmax(logits, 1)
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    p_t = (p * one_hot).sum(1)
    return (-alpha * (1 - p_t) ** gamma * p_t.clamp_min(1e-30).log()).mean()


def main() -> None:
    report = OperatorReport("softmax_focal_loss", __doc__)
    rows = 400_000 if report.on_gpu else 20_000
    for dtype in (torch.float32, torch.float16) if report.on_gpu else (torch.float32,):
        for n, classes in ((rows * 20, 2), (rows * 10, 4), (rows * 5, 10), (rows, 80), (rows // 20, 1200)):
            logits = torch.randn(n, classes, device=report.device).to(dtype).requires_grad_()
            target = torch.randint(0, classes, (n,), device=report.device)
            calls = {
                "cv": lambda x=logits, t=target: softmax_focal_loss(x, t),
                "composed": lambda x=logits, t=target: composed(x, t),
                "one-hot": lambda x=logits, t=target: composed_one_hot(x, t),
            }
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
