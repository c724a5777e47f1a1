"""Generalized attention.

Zhu et al., An Empirical Study of Spatial Attention Mechanisms in Deep Networks, 2019.

The energy between a query position q and a key position k is a sum of up to four terms, switched by the
digits of ``attention_type`` (U, V: learned matrices; u, v: learned vectors; z: content; R: a sinusoidal
embedding of the relative position, separate for x and y):

    1000: (U z_q) · (V z_k)        0100: (U z_q) · (V_R R_{q-k})
    0010: u · (V z_k)              0001: v · (V_R R_{q-k})
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.bricks.registry import PLUGIN_LAYERS
from cv.cnn.init.functions import kaiming_init
from cv.utils.errors import UsageError

__all__ = ["GeneralizedAttention"]

_WAVE_LENGTH = 1000


@PLUGIN_LAYERS.register_module()
class GeneralizedAttention(nn.Module):
    """Attention over an image, with content and relative-position terms.

    Args:
        in_channels: Channels of the input and output.
        spatial_range: Keys farther than this from the query along an axis are ignored. -1: no limit.
        num_heads: Number of heads.
        position_embedding_dim: Channels of the position embedding; -1 means ``in_channels``.
        position_magnitude: Factor of the coordinate differences.
        kv_stride: Stride of the keys and values on the input.
        q_stride: Stride of the queries on the input; the output is brought back to its size bilinearly.
        attention_type: Four digits, 0 or 1, that switch the terms: query and key content; query content and
            relative position; key content only; relative position only.

    Raises:
        UsageError: ``attention_type`` is not four binary digits with at least one 1.
    """

    _abbr_ = "gen_attention_block"

    def __init__(
        self,
        in_channels: int,
        spatial_range: int = -1,
        num_heads: int = 9,
        position_embedding_dim: int = -1,
        position_magnitude: int = 1,
        kv_stride: int = 2,
        q_stride: int = 1,
        attention_type: str = "1111",
    ) -> None:
        super().__init__()
        if len(attention_type) != 4 or set(attention_type) - {"0", "1"} or "1" not in attention_type:
            raise UsageError(f"attention_type must be four binary digits, not all 0, got {attention_type!r}")
        if in_channels < num_heads:
            raise UsageError(
                f"in_channels must be at least num_heads, got {in_channels} channels and {num_heads} heads"
            )
        self.in_channels = in_channels
        self.spatial_range = spatial_range
        self.num_heads = num_heads
        self.position_embedding_dim = position_embedding_dim if position_embedding_dim > 0 else in_channels
        self.position_magnitude = position_magnitude
        self.kv_stride = kv_stride
        self.q_stride = q_stride
        self.attention_type = [digit == "1" for digit in attention_type]
        content, content_position, key_only, position_only = self.attention_type

        self.qk_embed_dim = self.v_dim = in_channels // num_heads
        channels = self.qk_embed_dim * num_heads
        if content or content_position:
            self.query_conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        if content or key_only:
            self.key_conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.value_conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        if content_position or position_only:
            self.appr_geom_fc_x = nn.Linear(self.position_embedding_dim // 2, channels, bias=False)
            self.appr_geom_fc_y = nn.Linear(self.position_embedding_dim // 2, channels, bias=False)
        bound = 1.0 / math.sqrt(self.qk_embed_dim * 2)
        if key_only:
            self.appr_bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        if position_only:
            self.geom_bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        self.proj_conv = nn.Conv2d(channels, in_channels, 1, bias=True)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.q_downsample = nn.AvgPool2d(kernel_size=1, stride=q_stride) if q_stride > 1 else None
        self.kv_downsample = nn.AvgPool2d(kernel_size=1, stride=kv_stride) if kv_stride > 1 else None
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise the projections of queries, keys, values and positions (U(±sqrt(3 / fan_in)))."""
        for name in ("query_conv", "key_conv", "value_conv", "appr_geom_fc_x", "appr_geom_fc_y", "proj_conv"):
            layer = getattr(self, name, None)
            if layer is not None:
                kaiming_init(
                    layer, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=0, distribution="uniform"
                )

    def get_position_embedding(
        self,
        h: int,
        w: int,
        h_kv: int,
        w_kv: int,
        q_stride: int,
        kv_stride: int,
        device: torch.device | str,
        dtype: torch.dtype,
        feat_dim: int,
        wave_length: int = _WAVE_LENGTH,
    ) -> tuple[Tensor, Tensor]:
        """Sines and cosines of the coordinate differences between queries and keys.

        Returns:
            ``(w, w_kv, feat_dim / 2)`` for x and ``(h, h_kv, feat_dim / 2)`` for y.
        """
        steps = torch.arange(feat_dim // 4, device=device, dtype=torch.float32)
        periods = wave_length ** (4.0 / feat_dim * steps)

        def embed(size: int, size_kv: int) -> Tensor:
            queries = torch.arange(size, device=device, dtype=torch.float32) * q_stride
            keys = torch.arange(size_kv, device=device, dtype=torch.float32) * kv_stride
            phase = (queries[:, None, None] - keys[None, :, None]) * self.position_magnitude / periods
            return torch.cat((phase.sin(), phase.cos()), dim=2).to(dtype)

        return embed(w, w_kv), embed(h, h_kv)

    def forward(self, x_input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        x_q = x_input if self.q_downsample is None else self.q_downsample(x_input)
        x_kv = x_input if self.kv_downsample is None else self.kv_downsample(x_input)
        size = x_q.shape[2:]

        # Key content alone gives every query the same weights: one query is enough.
        if self.attention_type == [False, False, True, False] and self.spatial_range < 0:
            size = torch.Size((1, 1))
        energy = self._energy(x_q, x_kv, size)  # (N, heads, H·W, H'·W')
        if self.spatial_range >= 0:
            energy = energy.masked_fill(self._out_of_range(size, x_kv.shape[2:], energy), float("-inf"))
        attention = energy.softmax(dim=3)

        values = self._heads(self.value_conv(x_kv)).transpose(2, 3)
        out = torch.matmul(attention, values).transpose(2, 3).flatten(1, 2)
        out = self.proj_conv(out.reshape(*out.shape[:2], *size))
        if self.q_stride > 1:
            out = F.interpolate(out, size=x_input.shape[2:], mode="bilinear", align_corners=False)
        return x_input + self.gamma * out

    def _heads(self, x: Tensor) -> Tensor:
        """``(N, heads·D, H, W)`` to ``(N, heads, D, H·W)``."""
        n, channels = x.shape[:2]
        return x.reshape(n, self.num_heads, channels // self.num_heads, -1)

    def _energy(self, x_q: Tensor, x_kv: Tensor, size: torch.Size) -> Tensor:
        content, content_position, key_only, position_only = self.attention_type
        n, (h, w), (h_kv, w_kv) = x_q.shape[0], size, x_kv.shape[2:]
        query = self._heads(self.query_conv(x_q)).transpose(2, 3) if content or content_position else None
        energy: Any = 0

        if content or key_only:
            left = self._left(query if content else None, self.appr_bias if key_only else None)
            energy = torch.matmul(left, self._heads(self.key_conv(x_kv)))
        if content_position or position_only:
            embed_x, embed_y = self.get_position_embedding(
                h,
                w,
                h_kv,
                w_kv,
                self.q_stride,
                self.kv_stride,
                x_q.device,
                self.appr_geom_fc_x.weight.dtype,
                self.position_embedding_dim,
            )
            # The sum of two independent parts has the variance of one: hence the root of two.
            key_x = self.appr_geom_fc_x(embed_x).unflatten(2, (self.num_heads, -1)) / math.sqrt(2)
            key_y = self.appr_geom_fc_y(embed_y).unflatten(2, (self.num_heads, -1)) / math.sqrt(2)
            left = self._left(query if content_position else None, self.geom_bias if position_only else None)
            left = left.expand(n, -1, h * w, -1).reshape(n, self.num_heads, h, w, -1)
            energy_x = torch.einsum("nahwd,wkad->nahwk", left, key_x).unsqueeze(4)
            energy_y = torch.einsum("nahwd,hkad->nahwk", left, key_y).unsqueeze(5)
            energy = energy + (energy_x + energy_y).flatten(4, 5).flatten(2, 3)
        return torch.as_tensor(energy).expand(n, self.num_heads, h * w, h_kv * w_kv)

    def _left(self, query: Tensor | None, bias: Tensor | None) -> Tensor:
        """The side of a product that belongs to the query: content, a learned vector, or their sum."""
        if bias is None:
            assert query is not None
            return query
        vector = bias.view(1, self.num_heads, 1, self.qk_embed_dim)
        return vector if query is None else query + vector

    def _out_of_range(self, size: torch.Size, size_kv: torch.Size, like: Tensor) -> Tensor:
        """``(1, 1, H·W, H'·W')``, True where a key is too far from the query along an axis."""

        def far(length: int, length_kv: int) -> Tensor:
            queries = (torch.arange(length, device=like.device) * self.q_stride)[:, None]
            keys = torch.arange(length_kv, device=like.device)[None]
            first = torch.div(queries - self.spatial_range, self.kv_stride, rounding_mode="floor")
            last = torch.div(queries + self.spatial_range + 1, self.kv_stride, rounding_mode="floor")
            return (keys < first) | (keys > last)

        rows, columns = far(size[0], size_kv[0]), far(size[1], size_kv[1])
        either = rows[:, None, :, None] | columns[None, :, None, :]
        return either.flatten(2, 3).flatten(0, 1)[None, None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Old checkpoints hold the mask of the spatial range, which is computed for the input's size here.
        state_dict.pop(f"{prefix}local_constraint_map", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
