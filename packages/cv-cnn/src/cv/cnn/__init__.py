"""Building blocks for convolutional networks and transformers."""

from cv.cnn.bricks.activation import Clamp, build_activation_layer
from cv.cnn.bricks.conv import build_conv_layer
from cv.cnn.bricks.conv_module import ConvModule
from cv.cnn.bricks.depthwise_separable_conv_module import DepthwiseSeparableConvModule
from cv.cnn.bricks.hsigmoid import HSigmoid
from cv.cnn.bricks.hswish import HSwish
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
from cv.cnn.bricks.upsample import PixelShufflePack, build_upsample_layer
from cv.cnn.bricks.wrappers import (
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    ConvTranspose3d,
    Linear,
    MaxPool2d,
    MaxPool3d,
)
from cv.cnn.builder import MODELS, build_model_from_cfg
from cv.cnn.deformable import DeformableLayer
from cv.cnn.init import (
    INITIALIZERS,
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    NormalInit,
    PretrainedInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    initialize,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    update_init_info,
    xavier_init,
)
from cv.cnn.module import BaseModule, ModuleDict, ModuleList, Sequential

__all__ = [
    # registries
    "ACTIVATION_LAYERS",
    "CONV_LAYERS",
    "INITIALIZERS",
    "MODELS",
    "NORM_LAYERS",
    "PADDING_LAYERS",
    "PLUGIN_LAYERS",
    "UPSAMPLE_LAYERS",
    # builders
    "build_activation_layer",
    "build_conv_layer",
    "build_model_from_cfg",
    "build_norm_layer",
    "build_padding_layer",
    "build_plugin_layer",
    "build_upsample_layer",
    # modules with initialisation configs
    "BaseModule",
    "ModuleDict",
    "ModuleList",
    "Sequential",
    # blocks and layers
    "Clamp",
    "Conv2d",
    "Conv3d",
    "ConvModule",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeformableLayer",
    "DepthwiseSeparableConvModule",
    "HSigmoid",
    "HSwish",
    "Linear",
    "MaxPool2d",
    "MaxPool3d",
    "PixelShufflePack",
    "Scale",
    "Swish",
    "is_norm",
    # initialisation
    "Caffe2XavierInit",
    "ConstantInit",
    "KaimingInit",
    "NormalInit",
    "PretrainedInit",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "initialize",
    "kaiming_init",
    "normal_init",
    "trunc_normal_init",
    "uniform_init",
    "update_init_info",
    "xavier_init",
]
