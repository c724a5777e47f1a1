"""Non-local blocks (Wang et al., Non-local Neural Networks, 2018).

Every position of the input attends to every position: ``z = x + W·y``, ``y_i = Σ_j f(x_i, x_j) · g(x_j)``,
where ``f`` is one of four pairwise functions, normalised over ``j``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cv.cnn.bricks.conv_module import ConvModule
from cv.cnn.bricks.registry import PLUGIN_LAYERS
from cv.cnn.init.functions import constant_init, normal_init

__all__ = ["NonLocal1d", "NonLocal2d", "NonLocal3d"]

_MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


class _NonLocalNd(nn.Module):
    """Non-local block for inputs with any number of axes.

    Args:
        in_channels: Channels of the input and output.
        reduction: Ratio of the channels to those inside the block.
        use_scale: Whether the embedded Gaussian divides by the square root of the inner channels.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norm after the output convolution. None: no norm.
        mode: The pairwise function: ``gaussian``, ``embedded_gaussian``, ``dot_product`` or
            ``concatenation``.
        **kwargs: Arguments of :meth:`init_weights`.

    Raises:
        ValueError: Unknown mode.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        mode: str = "embedded_gaussian",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise ValueError(f"mode should be one of {', '.join(_MODES)}, but got {mode!r} instead")
        self.in_channels = in_channels
        self.reduction = reduction
        self.use_scale = use_scale
        self.inter_channels = max(in_channels // reduction, 1)
        self.mode = mode

        def pointwise(channels: int, out_channels: int, norm_cfg: dict[str, Any] | None = None) -> ConvModule:
            return ConvModule(channels, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)

        self.g: nn.Module = pointwise(in_channels, self.inter_channels)
        self.conv_out = pointwise(self.inter_channels, in_channels, norm_cfg)
        if mode != "gaussian":
            self.theta = pointwise(in_channels, self.inter_channels)
            self.phi: nn.Module = pointwise(in_channels, self.inter_channels)
        if mode == "concatenation":
            self.concat_project = ConvModule(
                self.inter_channels * 2, 1, 1, bias=False, act_cfg={"type": "ReLU"}
            )
        self.init_weights(**kwargs)

    def init_weights(self, std: float = 0.01, zeros_init: bool = True) -> None:
        """Initialise the convolutions; with ``zeros_init`` the block is the identity at first.

        Args:
            std: Standard deviation of the weights.
            zeros_init: Whether the last layer (the norm, or the output convolution) starts at zero.
        """
        inner = [self.g] if self.mode == "gaussian" else [self.g, self.theta, self.phi]
        for block in inner:
            for module in block.modules():  # under sub-sampling the block is a Sequential
                if isinstance(module, ConvModule):
                    normal_init(module.conv, std=std)
        last = self.conv_out.norm if self.conv_out.norm is not None else self.conv_out.conv
        if zeros_init:
            constant_init(last, 0)
        else:
            normal_init(last, std=std)

    def gaussian(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """Pairwise weights ``softmax_j(x_i · x_j)``: ``(N, I, C)`` and ``(N, C, J)`` to ``(N, I, J)``."""
        return torch.matmul(theta_x, phi_x).softmax(dim=-1)

    def embedded_gaussian(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """Pairwise weights ``softmax_j(θ(x_i) · φ(x_j) / √C)``, without the root if not ``use_scale``."""
        if self.use_scale:
            theta_x = theta_x / theta_x.shape[-1] ** 0.5
        return torch.matmul(theta_x, phi_x).softmax(dim=-1)

    def dot_product(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """Pairwise weights ``θ(x_i) · φ(x_j) / J``."""
        weight = torch.matmul(theta_x, phi_x)
        return weight / weight.shape[-1]

    def concatenation(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        """Pairwise weights ``ReLU(w · [θ(x_i), φ(x_j)]) / J``: ``(N, C, I, 1)``, ``(N, C, 1, J)``."""
        rows, columns = theta_x.shape[2], phi_x.shape[3]
        pairs = torch.cat([theta_x.expand(-1, -1, -1, columns), phi_x.expand(-1, -1, rows, -1)], dim=1)
        weight: Tensor = self.concat_project(pairs)
        return weight.flatten(0, 1) / columns

    def forward(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, C, T, H, W)``, whatever the convolutions take.

        Returns:
            A tensor of the same shape.
        """
        n = x.shape[0]
        g_x = self.g(x).flatten(2).transpose(1, 2)  # (N, J, C')
        if self.mode == "gaussian":
            theta_x = x.flatten(2).transpose(1, 2)
            phi = getattr(self, "phi", None)  # the pooling, under sub-sampling
            phi_x = (x if phi is None else phi(x)).flatten(2)
        elif self.mode == "concatenation":
            theta_x = self.theta(x).flatten(2).unsqueeze(3)
            phi_x = self.phi(x).flatten(2).unsqueeze(2)
        else:
            theta_x = self.theta(x).flatten(2).transpose(1, 2)
            phi_x = self.phi(x).flatten(2)

        weight = getattr(self, self.mode)(theta_x, phi_x)  # (N, I, J)
        y = torch.matmul(weight, g_x).transpose(1, 2).reshape(n, self.inter_channels, *x.shape[2:])
        out: Tensor = x + self.conv_out(y)
        return out

    def _sub_sample(self, pooling: nn.Module) -> None:
        """Pool what is attended to."""
        self.g = nn.Sequential(self.g, pooling)
        if self.mode == "gaussian":
            self.phi = pooling
        else:
            self.phi = nn.Sequential(self.phi, pooling)


@PLUGIN_LAYERS.register_module()
class NonLocal1d(_NonLocalNd):
    """Non-local block for ``(N, C, L)``.

    Args:
        in_channels: Channels of the input and output.
        sub_sample: Whether to max-pool what is attended to, by 2.
        conv_cfg: Config of the convolutions.
        **kwargs: ``reduction`` (2), ``use_scale`` (True), ``norm_cfg`` (None), ``mode``
            (``embedded_gaussian``; or ``gaussian``, ``dot_product``, ``concatenation``), and ``std`` (0.01)
            and ``zeros_init`` (True) of the initialisation.
    """

    _abbr_ = "nonlocal_block"

    def __init__(
        self,
        in_channels: int,
        sub_sample: bool = False,
        conv_cfg: dict[str, Any] | None = {"type": "Conv1d"},  # noqa: B006  (documented; never changed)
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, conv_cfg=conv_cfg, **kwargs)
        self.sub_sample = sub_sample
        if sub_sample:
            self._sub_sample(nn.MaxPool1d(2))


@PLUGIN_LAYERS.register_module()
class NonLocal2d(_NonLocalNd):
    """Non-local block for ``(N, C, H, W)``.

    Args:
        in_channels: Channels of the input and output.
        sub_sample: Whether to max-pool what is attended to, by 2 along H and W.
        conv_cfg: Config of the convolutions.
        **kwargs: See :class:`NonLocal1d`.
    """

    _abbr_ = "nonlocal_block"

    def __init__(
        self,
        in_channels: int,
        sub_sample: bool = False,
        conv_cfg: dict[str, Any] | None = {"type": "Conv2d"},  # noqa: B006  (documented; never changed)
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, conv_cfg=conv_cfg, **kwargs)
        self.sub_sample = sub_sample
        if sub_sample:
            self._sub_sample(nn.MaxPool2d((2, 2)))


@PLUGIN_LAYERS.register_module()
class NonLocal3d(_NonLocalNd):
    """Non-local block for ``(N, C, T, H, W)``.

    Args:
        in_channels: Channels of the input and output.
        sub_sample: Whether to max-pool what is attended to, by 2 along H and W (not along T).
        conv_cfg: Config of the convolutions.
        **kwargs: See :class:`NonLocal1d`.
    """

    _abbr_ = "nonlocal_block"

    def __init__(
        self,
        in_channels: int,
        sub_sample: bool = False,
        conv_cfg: dict[str, Any] | None = {"type": "Conv3d"},  # noqa: B006  (documented; never changed)
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, conv_cfg=conv_cfg, **kwargs)
        self.sub_sample = sub_sample
        if sub_sample:
            self._sub_sample(nn.MaxPool3d((1, 2, 2)))
