"""Hard swish."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.registry import ACTIVATION_LAYERS

__all__ = ["HSwish"]


@ACTIVATION_LAYERS.register_module()
class HSwish(nn.Hardswish):
    """Hard swish, ``x * relu6(x + 3) / 6`` (Howard et al., Searching for MobileNetV3, 2019).

    It is torch's layer under the name that configs use.

    Args:
        inplace: Overwrite the input.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to a tensor of any shape."""
        return F.hardswish(x, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
