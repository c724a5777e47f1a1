"""Layers, blocks, and the builders that make them from configs."""

from cv.cnn.bricks.activation import build_activation_layer
from cv.cnn.bricks.context_block import ContextBlock
from cv.cnn.bricks.conv import build_conv_layer
from cv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from cv.cnn.bricks.conv_module import ConvModule
from cv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d, conv_ws_2d
from cv.cnn.bricks.depthwise_separable_conv_module import DepthwiseSeparableConvModule
from cv.cnn.bricks.drop import Dropout, DropPath
from cv.cnn.bricks.generalized_attention import GeneralizedAttention
from cv.cnn.bricks.hsigmoid import HSigmoid
from cv.cnn.bricks.hswish import HSwish
from cv.cnn.bricks.non_local import NonLocal1d, NonLocal2d, NonLocal3d
from cv.cnn.bricks.norm import build_norm_layer, is_norm
from cv.cnn.bricks.padding import build_padding_layer
from cv.cnn.bricks.plugin import build_plugin_layer
from cv.cnn.bricks.registry import (
    ACTIVATION_LAYERS,
    CONV_LAYERS,
    NORM_LAYERS,
    PADDING_LAYERS,
    PLUGIN_LAYERS,
    UPSAMPLE_LAYERS,
)
from cv.cnn.bricks.scale import Scale
from cv.cnn.bricks.swish import Swish
from cv.cnn.bricks.upsample import build_upsample_layer
from cv.cnn.bricks.wrappers import (
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    ConvTranspose3d,
    Linear,
    MaxPool2d,
    MaxPool3d,
)

__all__ = [
    "ACTIVATION_LAYERS",
    "CONV_LAYERS",
    "NORM_LAYERS",
    "PADDING_LAYERS",
    "PLUGIN_LAYERS",
    "UPSAMPLE_LAYERS",
    "build_activation_layer",
    "build_conv_layer",
    "build_norm_layer",
    "build_padding_layer",
    "build_plugin_layer",
    "build_upsample_layer",
    "ContextBlock",
    "Conv2d",
    "Conv2dAdaptivePadding",
    "Conv3d",
    "ConvAWS2d",
    "ConvModule",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvWS2d",
    "DepthwiseSeparableConvModule",
    "DropPath",
    "Dropout",
    "GeneralizedAttention",
    "HSigmoid",
    "HSwish",
    "Linear",
    "MaxPool2d",
    "MaxPool3d",
    "NonLocal1d",
    "NonLocal2d",
    "NonLocal3d",
    "Scale",
    "Swish",
    "conv_ws_2d",
    "is_norm",
]
