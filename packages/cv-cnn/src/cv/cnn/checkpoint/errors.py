"""Errors of reading checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

__all__ = ["TRUST_VARIABLE", "UntrustedCheckpointError"]

TRUST_VARIABLE = "CV_CHECKPOINT_TRUST"


class UntrustedCheckpointError(pickle.UnpicklingError):
    """A checkpoint needs more than tensors and plain data: reading it would run code that the file names.

    Attributes:
        names: The functions and classes that the file asks for, as ``module.name``.
    """

    def __init__(self, filename: str, names: Sequence[str]) -> None:
        self.filename = filename
        self.names = list(names)
        listed = "\n".join(f"  {name}" for name in self.names)
        super().__init__(
            f"{filename} was not read, because it asks for more than tensors and plain data:\n{listed}\n"
            "Reading it would run code that the file chooses. If you trust where it comes from, pass "
            f"trust=True to load_checkpoint or set the environment variable {TRUST_VARIABLE}=1; to allow "
            "single classes only, see torch.serialization.add_safe_globals."
        )

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        return type(self), (self.filename, self.names)
