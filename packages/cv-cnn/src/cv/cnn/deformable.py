"""A marker for deformable layers, so that others can treat their offset branch specially."""

from __future__ import annotations

__all__ = ["DeformableLayer"]


class DeformableLayer:
    """Marks a layer that samples at learned offsets, predicted by its child ``conv_offset``.

    Deformable convolutions inherit it beside ``nn.Module``. The optimizer constructor of cv-runner gives
    the parameters of ``conv_offset`` in such layers the learning rate that ``dcn_offset_lr_mult`` asks for,
    without having to know the classes.
    """
