"""Building blocks for convolutional networks and transformers."""

from cv.cnn.alexnet import AlexNet
from cv.cnn.bricks.activation import Clamp, build_activation_layer
from cv.cnn.bricks.context_block import ContextBlock
from cv.cnn.bricks.conv import build_conv_layer
from cv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from cv.cnn.bricks.conv_module import ConvModule
from cv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d, conv_ws_2d
from cv.cnn.bricks.depthwise_separable_conv_module import DepthwiseSeparableConvModule
from cv.cnn.bricks.drop import Dropout, DropPath, build_dropout
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
from cv.cnn.resnet import ResNet, make_res_layer
from cv.cnn.utils.flops_counter import get_model_complexity_info
from cv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from cv.cnn.utils.sync_bn import revert_sync_batchnorm
from cv.cnn.vgg import VGG, make_vgg_layer

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
    # networks
    "AlexNet",
    "ResNet",
    "VGG",
    "make_res_layer",
    "make_vgg_layer",
    # blocks and layers
    "Clamp",
    "ContextBlock",
    "Conv2d",
    "Conv2dAdaptivePadding",
    "Conv3d",
    "ConvAWS2d",
    "ConvModule",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvWS2d",
    "DeformableLayer",
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
    "PixelShufflePack",
    "Scale",
    "Swish",
    "build_dropout",
    "conv_ws_2d",
    "is_norm",
    # models as a whole
    "fuse_conv_bn",
    "get_model_complexity_info",
    "revert_sync_batchnorm",
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
