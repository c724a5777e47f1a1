"""ResNet (He et al., Deep residual learning for image recognition, 2015)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cv.cnn.builder import MODELS
from cv.cnn.freezing import freeze, hold_batch_norms
from cv.cnn.init.functions import constant_init, kaiming_init
from cv.cnn.init.pretrained import load_pretrained
from cv.utils.errors import UsageError

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "conv3x3", "make_res_layer"]


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3×3 convolution that keeps the size (at stride 1), without a bias."""
    return nn.Conv2d(in_planes, out_planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class _Block(nn.Module, ABC):
    """What both blocks share: the sum with the shortcut, and checkpointing."""

    relu: nn.Module
    downsample: nn.Module | None

    def __init__(self, stride: int, dilation: int, downsample: nn.Module | None, style: str, with_cp: bool):
        super().__init__()
        if style not in ("pytorch", "caffe"):
            raise UsageError(f"style must be 'pytorch' or 'caffe', got {style!r}")
        self.stride = stride
        self.dilation = dilation
        self.style = style
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        if self.with_cp and x.requires_grad:
            out = checkpoint(self._residual_sum, x, use_reentrant=False)
        else:
            out = self._residual_sum(x)
        result: Tensor = self.relu(out)
        return result

    def _residual_sum(self, x: Tensor) -> Tensor:
        identity: Tensor = x if self.downsample is None else self.downsample(x)
        out = self._residual(x)
        out += identity
        return out

    @abstractmethod
    def _residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut, without its last activation."""


class BasicBlock(_Block):
    """Two 3×3 convolutions, and a shortcut.

    Args:
        inplanes: Channels of the input.
        planes: Channels of the output.
        stride: Stride of the first convolution.
        dilation: Dilation of the first convolution.
        downsample: Layers on the shortcut.
        style: Without effect here; ``"pytorch"`` or ``"caffe"``.
        with_cp: Save memory by computing the block again in the backward pass.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = "pytorch",
        with_cp: bool = False,
    ) -> None:
        super().__init__(stride, dilation, downsample, style, with_cp)
        self.conv1 = conv3x3(inplanes, planes, stride, dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def _residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.bn2(self.conv2(x))
        return out


class Bottleneck(_Block):
    """A 1×1, a 3×3 and a 1×1 convolution to four times the channels, and a shortcut.

    Args:
        inplanes: Channels of the input.
        planes: Channels of the 3×3 convolution.
        stride: Stride of the block.
        dilation: Dilation of the 3×3 convolution.
        downsample: Layers on the shortcut.
        style: Where the stride is: ``"pytorch"``, in the 3×3 convolution; ``"caffe"``, in the first 1×1.
        with_cp: Save memory by computing the block again in the backward pass.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = "pytorch",
        with_cp: bool = False,
    ) -> None:
        super().__init__(stride, dilation, downsample, style, with_cp)
        first, second = (1, stride) if style == "pytorch" else (stride, 1)
        self.conv1 = nn.Conv2d(inplanes, planes, kernel_size=1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, second, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def _residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.bn3(self.conv3(x))
        return out


def make_res_layer(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    blocks: int,
    stride: int = 1,
    dilation: int = 1,
    style: str = "pytorch",
    with_cp: bool = False,
) -> nn.Sequential:
    """One stage: ``blocks`` blocks, the first with the stride (and a convolution on its shortcut)."""
    downsample = None
    outplanes = planes * block.expansion
    if stride != 1 or inplanes != outplanes:
        downsample = nn.Sequential(
            nn.Conv2d(inplanes, outplanes, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(outplanes),
        )
    layers = [block(inplanes, planes, stride, dilation, downsample, style=style, with_cp=with_cp)]
    layers += [block(outplanes, planes, 1, dilation, style=style, with_cp=with_cp) for _ in range(1, blocks)]
    return nn.Sequential(*layers)


@MODELS.register_module()
class ResNet(nn.Module):
    """ResNet backbone, with the parameter names of torchvision's (without its classifier ``fc``).

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_stages: Number of stages, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages whose output is returned.
        style: ``"pytorch"``: bottlenecks have their stride in the 3×3 convolution; ``"caffe"``: in the first
            1×1.
        frozen_stages: Stages that are not trained, from the first; 0 means the stem only. -1: none.
        bn_eval: Keep the running statistics of batch norms fixed.
        bn_frozen: Keep weight and bias of batch norms fixed.
        with_cp: Save memory by computing blocks again in the backward pass.

    Raises:
        KeyError: Another depth.
        UsageError: Numbers of stages, strides, dilations, outputs and frozen stages that do not fit, or
            unknown style.
    """

    arch_settings: dict[int, tuple[Any, tuple[int, ...]]] = {  # noqa: RUF012  (read by code for mmcv 1.x)
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = "pytorch",
        frozen_stages: int = -1,
        bn_eval: bool = True,
        bn_frozen: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if depth not in self.arch_settings:
            raise KeyError(
                f"invalid depth {depth!r} for resnet, it must be one of {list(self.arch_settings)}"
            )
        if not 1 <= num_stages <= 4:
            raise UsageError(f"num_stages must be in 1..4, got {num_stages}")
        if not len(strides) == len(dilations) == num_stages:
            raise UsageError(
                f"strides and dilations must have one entry per stage ({num_stages}), "
                f"got {strides} and {dilations}"
            )
        if any(not 0 <= index < num_stages for index in out_indices):
            raise UsageError(f"out_indices must be stages below {num_stages}, got {out_indices}")
        if frozen_stages > num_stages:
            raise UsageError(f"frozen_stages must be at most num_stages={num_stages}, got {frozen_stages}")
        self.depth = depth
        self.num_stages = num_stages
        self.out_indices = out_indices
        self.style = style
        self.frozen_stages = frozen_stages
        self.bn_eval = bn_eval
        self.bn_frozen = bn_frozen
        self.with_cp = with_cp

        block, stage_blocks = self.arch_settings[depth]
        self.inplanes = 64
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.res_layers: list[str] = []
        for stage in range(num_stages):
            planes = 64 * 2**stage
            layer = make_res_layer(
                block,
                self.inplanes,
                planes,
                stage_blocks[stage],
                stride=strides[stage],
                dilation=dilations[stage],
                style=style,
                with_cp=with_cp,
            )
            self.inplanes = planes * block.expansion
            self.res_layers.append(f"layer{stage + 1}")
            self.add_module(self.res_layers[-1], layer)
        self.feat_dim = self.inplanes

    def init_weights(self, pretrained: str | None = None) -> None:
        """Load a checkpoint, or initialise: Kaiming for convolutions, 1 and 0 for norms.

        Args:
            pretrained: File or URI, such as ``"torchvision://resnet50"``.

        Raises:
            TypeError: ``pretrained`` is neither a str nor None.
        """
        if load_pretrained(self, pretrained):
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module)
            elif isinstance(module, nn.BatchNorm2d):
                constant_init(module, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network.

        Args:
            x: Images ``(N, 3, H, W)``.

        Returns:
            The outputs of the stages in ``out_indices``, ``(N, C, H / s, W / s)`` with s = 4, 8, 16, 32 by
            default; a tuple if there are several.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outputs: list[Tensor] = []
        for stage, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if stage in self.out_indices:
                outputs.append(x)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def train(self, mode: bool = True) -> ResNet:
        """Switch to training mode, except for what is frozen.

        Args:
            mode: False switches to evaluation mode.
        """
        super().train(mode)
        if self.bn_eval:
            hold_batch_norms(self, freeze_parameters=self.bn_frozen)
        if mode and self.frozen_stages >= 0:
            stages = [getattr(self, name) for name in self.res_layers[: self.frozen_stages]]
            freeze((self.conv1, self.bn1, *stages))
        return self
