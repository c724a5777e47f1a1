"""The registries of layers and blocks.

Installed distributions add layers through the entry-point group of a registry, so nobody has to import
cv-ops for ``dict(type="DCN")`` to work; what is registered explicitly comes first.
"""

from __future__ import annotations

from cv.utils import Registry

__all__ = [
    "ACTIVATION_LAYERS",
    "ATTENTION",
    "CONV_LAYERS",
    "DROPOUT_LAYERS",
    "FEEDFORWARD_NETWORK",
    "NORM_LAYERS",
    "PADDING_LAYERS",
    "PLUGIN_LAYERS",
    "POSITIONAL_ENCODING",
    "TRANSFORMER_LAYER",
    "TRANSFORMER_LAYER_SEQUENCE",
    "UPSAMPLE_LAYERS",
]

_OPS = "cv-ops"

CONV_LAYERS = Registry(
    "conv layer",
    entry_point_group="cv.cnn.conv_layers",
    providers=dict.fromkeys(("DCN", "DCNv2", "SAC", "MaskedConv"), _OPS),
)
NORM_LAYERS = Registry("norm layer", entry_point_group="cv.cnn.norm_layers", providers={"MMSyncBN": _OPS})
ACTIVATION_LAYERS = Registry("activation layer", entry_point_group="cv.cnn.activation_layers")
PADDING_LAYERS = Registry("padding layer", entry_point_group="cv.cnn.padding_layers")
UPSAMPLE_LAYERS = Registry(
    "upsample layer", entry_point_group="cv.cnn.upsample_layers", providers={"carafe": _OPS}
)
PLUGIN_LAYERS = Registry(
    "plugin layer", entry_point_group="cv.cnn.plugin_layers", providers={"CrissCrossAttention": _OPS}
)

DROPOUT_LAYERS = Registry("drop out layers")
POSITIONAL_ENCODING = Registry("position encoding")
ATTENTION = Registry(
    "attention",
    entry_point_group="cv.cnn.attention",
    providers={"MultiScaleDeformableAttention": _OPS},
)
FEEDFORWARD_NETWORK = Registry("feed-forward Network")
TRANSFORMER_LAYER = Registry("transformerLayer")
TRANSFORMER_LAYER_SEQUENCE = Registry("transformer-layers sequence")
