"""Initialisation: functions for one layer, initialisers that configs name, and the record for the log."""

from cv.cnn.init.functions import (
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    kaiming_init,
    normal_init,
    trunc_normal_,
    trunc_normal_init,
    uniform_init,
    xavier_init,
)
from cv.cnn.init.initializers import (
    INITIALIZERS,
    BaseInit,
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    LayerInit,
    NormalInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
    initialize,
)
from cv.cnn.init.pretrained import PretrainedInit
from cv.cnn.init.record import update_init_info

__all__ = [
    "INITIALIZERS",
    "initialize",
    "BaseInit",
    "Caffe2XavierInit",
    "ConstantInit",
    "KaimingInit",
    "LayerInit",
    "NormalInit",
    "PretrainedInit",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "bias_init_with_prob",
    "caffe2_xavier_init",
    "constant_init",
    "kaiming_init",
    "normal_init",
    "trunc_normal_",
    "trunc_normal_init",
    "uniform_init",
    "xavier_init",
    "update_init_info",
]
