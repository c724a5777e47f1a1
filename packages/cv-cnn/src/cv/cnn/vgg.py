"""VGG (Simonyan & Zisserman, Very deep convolutional networks for large-scale image recognition, 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cv.cnn.builder import MODELS
from cv.cnn.freezing import freeze, hold_batch_norms
from cv.cnn.init.functions import constant_init, kaiming_init, normal_init
from cv.cnn.init.pretrained import load_pretrained
from cv.utils.errors import UsageError

__all__ = ["VGG", "conv3x3", "make_vgg_layer"]


def conv3x3(in_planes: int, out_planes: int, dilation: int = 1) -> nn.Conv2d:
    """3×3 convolution that keeps the size, with a bias."""
    return nn.Conv2d(in_planes, out_planes, kernel_size=3, padding=dilation, dilation=dilation)


def make_vgg_layer(
    inplanes: int,
    planes: int,
    num_blocks: int,
    dilation: int = 1,
    with_bn: bool = False,
    ceil_mode: bool = False,
) -> list[nn.Module]:
    """The layers of one stage: ``num_blocks`` times convolution (, norm) and ReLU, then pooling by 2."""
    layers: list[nn.Module] = []
    for _ in range(num_blocks):
        layers.append(conv3x3(inplanes, planes, dilation))
        if with_bn:
            layers.append(nn.BatchNorm2d(planes))
        layers.append(nn.ReLU(inplace=True))
        inplanes = planes
    layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=ceil_mode))
    return layers


@MODELS.register_module()
class VGG(nn.Module):
    """VGG, with the parameter names of torchvision's.

    Args:
        depth: 11, 13, 16 or 19.
        with_bn: Whether there are batch norms.
        num_classes: Number of classes. -1: no classifier.
        num_stages: Number of stages, 1 to 5.
        dilations: Dilation of each stage.
        out_indices: Stages whose output is returned.
        frozen_stages: Number of stages, from the first, that are not trained. -1: none.
        bn_eval: Keep the running statistics of batch norms fixed.
        bn_frozen: Keep weight and bias of batch norms fixed.
        ceil_mode: Whether pooling rounds sizes up.
        with_last_pool: Whether the last stage ends with its pooling.

    Raises:
        KeyError: Another depth.
        UsageError: Numbers of stages, dilations, outputs and frozen stages that do not fit.
    """

    arch_settings = {  # noqa: RUF012  (read by code for mmcv 1.x)
        11: (1, 1, 2, 2, 2),
        13: (2, 2, 2, 2, 2),
        16: (2, 2, 3, 3, 3),
        19: (2, 2, 4, 4, 4),
    }

    def __init__(
        self,
        depth: int,
        with_bn: bool = False,
        num_classes: int = -1,
        num_stages: int = 5,
        dilations: Sequence[int] = (1, 1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
        frozen_stages: int = -1,
        bn_eval: bool = True,
        bn_frozen: bool = False,
        ceil_mode: bool = False,
        with_last_pool: bool = True,
    ) -> None:
        super().__init__()
        if depth not in self.arch_settings:
            raise KeyError(f"invalid depth {depth!r} for vgg, it must be one of {list(self.arch_settings)}")
        if not 1 <= num_stages <= 5:
            raise UsageError(f"num_stages must be in 1..5, got {num_stages}")
        if len(dilations) != num_stages:
            raise UsageError(f"dilations must have one entry per stage ({num_stages}), got {dilations}")
        if any(not 0 <= index < num_stages for index in out_indices):
            raise UsageError(f"out_indices must be stages below {num_stages}, got {out_indices}")
        if frozen_stages > num_stages:
            raise UsageError(f"frozen_stages must be at most num_stages={num_stages}, got {frozen_stages}")
        if num_classes > 0 and num_stages < 5:
            raise UsageError(f"a classifier needs all 5 stages, got num_stages={num_stages}")
        self.depth = depth
        self.num_classes = num_classes
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.bn_eval = bn_eval
        self.bn_frozen = bn_frozen

        self.stage_blocks = self.arch_settings[depth][:num_stages]
        layers: list[nn.Module] = []
        self.range_sub_modules: list[list[int]] = []  # of each stage: its first layer, and one past its last
        inplanes = 3
        for stage, (blocks, dilation) in enumerate(zip(self.stage_blocks, dilations, strict=True)):
            planes = 64 * 2 ** min(stage, 3)
            start = len(layers)
            layers += make_vgg_layer(inplanes, planes, blocks, dilation, with_bn, ceil_mode)
            self.range_sub_modules.append([start, len(layers)])
            inplanes = planes
        if not with_last_pool:
            layers.pop()
            self.range_sub_modules[-1][1] -= 1
        self.module_name = "features"
        self.features = nn.Sequential(*layers)
        if num_classes > 0:
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )

    def init_weights(self, pretrained: str | None = None) -> None:
        """Load a checkpoint, or initialise: Kaiming for convolutions, N(0, 0.01²) for linear layers.

        Args:
            pretrained: File or URI, such as ``"torchvision://vgg16"``.

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
            elif isinstance(module, nn.Linear):
                normal_init(module, std=0.01)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network.

        Args:
            x: Images ``(N, 3, H, W)``.

        Returns:
            The outputs of the stages in ``out_indices``, then the logits ``(N, num_classes)`` if there is a
            classifier; a tuple if that makes several.
        """
        outputs: list[Tensor] = []
        for stage, (start, end) in enumerate(self.range_sub_modules):
            for index in range(start, end):
                x = self.features[index](x)
            if stage in self.out_indices:
                outputs.append(x)
        if self.num_classes > 0:
            outputs.append(self.classifier(self.avgpool(x).flatten(1)))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def train(self, mode: bool = True) -> VGG:
        """Switch to training mode, except for what is frozen.

        Args:
            mode: False switches to evaluation mode.
        """
        super().train(mode)
        if self.bn_eval:
            hold_batch_norms(self, freeze_parameters=self.bn_frozen)
        if mode:
            for start, end in self.range_sub_modules[: max(self.frozen_stages, 0)]:
                freeze(self.features[index] for index in range(start, end))
        return self
