"""Initialisation, model complexity, and changes to finished models."""

from cv.cnn.utils.flops_counter import get_model_complexity_info
from cv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from cv.cnn.utils.sync_bn import revert_sync_batchnorm
from cv.cnn.utils.weight_init import (
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

__all__ = [
    "get_model_complexity_info",
    "fuse_conv_bn",
    "revert_sync_batchnorm",
    "INITIALIZERS",
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
