"""Hard sigmoid."""

from __future__ import annotations

from torch import Tensor, nn

from cv.cnn.bricks.registry import ACTIVATION_LAYERS
from cv.utils.errors import UsageError

__all__ = ["HSigmoid"]


@ACTIVATION_LAYERS.register_module()
class HSigmoid(nn.Module):
    """Hard sigmoid: ``min(max((x + bias) / divisor, min_value), max_value)``.

    Args:
        bias: Added to the input.
        divisor: Divides the sum; not zero.
        min_value: Lower bound.
        max_value: Upper bound.

    Raises:
        UsageError: ``divisor`` is zero.
    """

    def __init__(
        self, bias: float = 1.0, divisor: float = 2.0, min_value: float = 0.0, max_value: float = 1.0
    ) -> None:
        super().__init__()
        if divisor == 0:
            raise UsageError("divisor must not be 0")
        self.bias = bias
        self.divisor = divisor
        self.min_value = min_value
        self.max_value = max_value

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to a tensor of any shape; the input is not changed."""
        return ((x + self.bias) / self.divisor).clamp_(self.min_value, self.max_value)

    def extra_repr(self) -> str:
        names = ("bias", "divisor", "min_value", "max_value")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
