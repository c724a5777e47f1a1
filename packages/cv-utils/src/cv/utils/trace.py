"""Whether code is being traced."""

from __future__ import annotations

import sys

__all__ = ["is_jit_tracing"]


def is_jit_tracing() -> bool:
    """Whether ``torch.jit.trace`` (or an exporter that uses it) is running the calling code."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.jit.is_tracing())
