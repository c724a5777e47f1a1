"""Multi-scale deformable attention: each query reads a few points of several feature maps.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR 2021,
equation 3. A location is relative to the map of its level: (0, 0) is the top left corner, (1, 1) the bottom
right, x before y. The map is read bilinearly, with zeros outside.

Gradients are deterministic on the CPU. On CUDA the gradient of the value is summed by atomics and so varies
in the last bits, unless ``torch.use_deterministic_algorithms(True)`` is set: then a slower kernel with a
fixed order is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn import BaseModule, constant_init, xavier_init
from cv.utils import deprecated_api_warning

from ._checks import check_floating, check_tensors
from ._load import operator
from ._registration import register

_op = operator("multi_scale_deform_attn")
_op_backward = operator("multi_scale_deform_attn_backward")


def multi_scale_deformable_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int = 64,
) -> Tensor:
    """For each query and head the weighted sum of the values at its sampling locations.

    Args:
        value: (N, keys, heads, channels) float16, bfloat16, float32 or float64: the maps of all levels, one
            after the other, row by row. Half types are accumulated in float32.
        spatial_shapes: (levels, 2) int64 or int32: height and width of each map.
        level_start_index: (levels,) int64 or int32: the key at which each map begins.
        sampling_locations: (N, queries, heads, levels, points, 2) of any floating dtype: x, y relative to
            the map. Keep them in float32 where the value is of a half type: they are not rounded to it. A
            location that is not finite reads zero.
        attention_weights: (N, queries, heads, levels, points) of any floating dtype.
        im2col_step: Accepted for compatibility. No scratch memory is needed.

    Returns:
        (N, queries, heads * channels) in the value's dtype.

    Raises:
        TypeError: If an argument is not a tensor, or of the wrong kind of dtype.
        ValueError: If shapes do not fit each other, or tensors are on different devices.
        RuntimeError: If a level is not inside the keys (on CUDA such a level gives NaN, since looking would
            make the host wait for the device).
    """
    # What is not a tensor is left to the operator, which refuses it.
    if getattr(spatial_shapes, "dtype", None) is torch.int32:
        spatial_shapes = spatial_shapes.long()
    if getattr(level_start_index, "dtype", None) is torch.int32:
        level_start_index = level_start_index.long()
    out: Tensor = _call(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    return out


class MultiScaleDeformableAttnFunction:
    """:func:`multi_scale_deformable_attn` as code that calls ``.apply`` expects it."""

    @staticmethod
    def apply(
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int = 64,
    ) -> Tensor:
        """See :func:`multi_scale_deformable_attn`."""
        return multi_scale_deformable_attn(
            value,
            value_spatial_shapes,
            value_level_start_index,
            sampling_locations,
            attention_weights,
            im2col_step,
        )


def multi_scale_deformable_attn_pytorch(
    value: Tensor,
    value_spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """What :func:`multi_scale_deformable_attn` computes, by PyTorch's own operators; differentiable twice.

    Args:
        value: (N, keys, heads, channels); the maps follow each other without gaps.
        value_spatial_shapes: (levels, 2): height and width of each map.
        sampling_locations: (N, queries, heads, levels, points, 2).
        attention_weights: (N, queries, heads, levels, points).

    Returns:
        (N, queries, heads * channels).
    """
    n, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    sizes = [(int(h), int(w)) for h, w in value_spatial_shapes]
    maps = torch.split(value, [h * w for h, w in sizes], dim=1)
    grids = 2 * sampling_locations - 1
    sampled = []
    for level, (height, width) in enumerate(sizes):
        pixels = maps[level].permute(0, 2, 3, 1).reshape(n * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (N * heads, queries, points, 2)
        sampled.append(F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False))
    weights = attention_weights.transpose(1, 2).reshape(n * heads, 1, queries, len(sizes) * points)
    out = (torch.cat(sampled, dim=-1) * weights).sum(-1)  # (N * heads, channels, queries)
    return out.view(n, heads * channels, queries).transpose(1, 2).contiguous()


class MultiScaleDeformableAttention(BaseModule):
    """The attention of Deformable DETR, with its projections, dropout and shortcut.

    Args:
        embed_dims: Channels of queries and values.
        num_heads: Number of heads; divides ``embed_dims``.
        num_levels: Number of feature maps.
        num_points: Points that each head reads in each map.
        im2col_step: Accepted for compatibility.
        dropout: Dropout of the output, before the shortcut is added.
        batch_first: Whether inputs are (N, length, C) rather than (length, N, C).
        norm_cfg: Accepted for compatibility; there is no normalisation here.
        init_cfg: See :class:`cv.cnn.BaseModule`.

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``, or a number is not positive.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        im2col_step: int = 64,
        dropout: float = 0.1,
        batch_first: bool = False,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        numbers = {
            "embed_dims": embed_dims,
            "num_heads": num_heads,
            "num_levels": num_levels,
            "num_points": num_points,
        }
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be positive, got {number}")
        if embed_dims % num_heads != 0:
            raise ValueError(f"embed_dims must be divisible by num_heads, got {embed_dims} and {num_heads}")
        self.norm_cfg = norm_cfg
        self.batch_first = batch_first
        self.im2col_step = im2col_step
        self.embed_dims = embed_dims
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets = nn.Linear(embed_dims, samples * 2)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Heads look in different directions, their points ever further, all with equal weights."""
        constant_init(self.sampling_offsets, 0.0)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2.0 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # to the border of a square
        reach = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * reach[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).reshape(-1))
        constant_init(self.attention_weights, 0.0)
        xavier_init(self.value_proj, distribution="uniform")
        xavier_init(self.output_proj, distribution="uniform")
        self._is_init = True

    @deprecated_api_warning({"residual": "identity"}, cls_name="MultiScaleDeformableAttention")
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend, and add the result to the shortcut.

        Args:
            query: (queries, N, C), or (N, queries, C) with ``batch_first``.
            key: Not used.
            value: (keys, N, C) or (N, keys, C): the maps of all levels. None: the query.
            identity: The shortcut, as the query. None: the query, before its encoding is added.
            query_pos: Positional encoding added to the query.
            key_padding_mask: (N, keys) bool (or 0 and 1): True where a key is padding; its value is then
                zero.
            reference_points: (N, queries, levels, 2): x, y in [0, 1] around which a query reads, offsets
                being in pixels; or (N, queries, levels, 4): x, y, width, height of a box, offsets being in
                parts of it.
            spatial_shapes: (levels, 2): height and width of each map.
            level_start_index: (levels,): the key at which each map begins.
            **kwargs: Ignored: what other attentions of the same layer need.

        Returns:
            A tensor as the query.

        Raises:
            TypeError: If a tensor is none, or not of a floating dtype.
            ValueError: If a needed argument is missing or shapes do not fit each other.
        """
        if reference_points is None or spatial_shapes is None or level_start_index is None:
            raise ValueError("reference_points, spatial_shapes and level_start_index must be given")
        value = query if value is None else value
        _check_sequences(query, value, self.embed_dims)
        check_floating(reference_points=reference_points)
        check_tensors(spatial_shapes=spatial_shapes, level_start_index=level_start_index)
        optional = {"identity": identity, "query_pos": query_pos, "key_padding_mask": key_padding_mask}
        check_tensors(**{name: t for name, t in optional.items() if t is not None})
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        n, queries, _ = query.shape
        keys = value.shape[1]
        _check_key_count(spatial_shapes, keys)

        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None].bool(), 0.0)
        value = value.reshape(n, keys, self.num_heads, -1)
        per_head = (n, queries, self.num_heads, self.num_levels * self.num_points)
        weights = self.attention_weights(query).reshape(per_head).softmax(-1)
        weights = weights.view(*per_head[:3], self.num_levels, self.num_points)
        locations = self._locations(self.sampling_offsets(query), reference_points, spatial_shapes)
        out = multi_scale_deformable_attn(
            value, spatial_shapes, level_start_index, locations, weights, self.im2col_step
        )
        out = self.output_proj(out)
        if not self.batch_first:
            out = out.transpose(0, 1)
        result: Tensor = self.dropout(out) + identity
        return result

    def _locations(self, offsets: Tensor, reference_points: Tensor, spatial_shapes: Tensor) -> Tensor:
        """(N, queries, heads, levels, points, 2), relative to the maps."""
        n, queries, _ = offsets.shape
        expected = (n, queries, self.num_levels)
        if reference_points.dim() != 4 or tuple(reference_points.shape[:3]) != expected:
            raise ValueError(
                f"reference_points must have shape {(*expected, '2 or 4')}, "
                f"got {tuple(reference_points.shape)}"
            )
        offsets = offsets.view(n, queries, self.num_heads, self.num_levels, self.num_points, 2)
        reference = reference_points[:, :, None, :, None, :]
        if reference_points.shape[-1] == 2:
            return reference + offsets / spatial_shapes.flip(-1)[:, None, :]
        if reference_points.shape[-1] == 4:
            return reference[..., :2] + offsets * (reference[..., 2:] * (0.5 / self.num_points))
        raise ValueError(
            f"the last dimension of reference_points must be 2 or 4, got {reference_points.shape[-1]}"
        )


# --- checks ----------------------------------------------------------------------------------------


def _check_sequences(query: Tensor, value: Tensor, channels: int) -> None:
    check_floating(query=query, value=value)
    for name, t in (("query", query), ("value", value)):
        if t.dim() != 3 or t.shape[2] != channels:
            raise ValueError(
                f"{name} must have three dimensions, the last of {channels}, got {tuple(t.shape)}"
            )


def _check_key_count(spatial_shapes: Tensor, keys: int) -> None:
    """On the CPU only: elsewhere the host would have to wait for the device."""
    if spatial_shapes.device.type != "cpu" or torch.compiler.is_compiling():
        return
    expected = int(spatial_shapes.prod(-1).sum())
    if expected != keys:
        raise ValueError(
            f"spatial_shapes {spatial_shapes.tolist()} are {expected} keys, but value has {keys}"
        )


def _check(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    tensors = (
        ("value", value),
        ("spatial_shapes", shapes),
        ("level_start_index", starts),
        ("sampling_locations", locations),
        ("attention_weights", weights),
    )
    for name, t in tensors:
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
        if t.device != value.device:
            raise ValueError(f"{name} must be on the device of value ({value.device}), got {t.device}")
        if t is shapes or t is starts:
            if t.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"{name} must be int64 or int32, got {t.dtype}")
        elif not t.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {t.dtype}")
    if value.dim() != 4:
        raise ValueError(f"value must have shape (N, keys, heads, channels), got {tuple(value.shape)}")
    n, _, heads, _ = value.shape
    if (
        locations.dim() != 6
        or locations.shape[5] != 2
        or locations.shape[0] != n
        or locations.shape[2] != heads
    ):
        raise ValueError(
            f"sampling_locations must have shape ({n}, queries, {heads}, levels, points, 2), "
            f"got {tuple(locations.shape)}"
        )
    if weights.shape != locations.shape[:-1]:
        raise ValueError(
            f"attention_weights must have shape {tuple(locations.shape[:-1])}, got {tuple(weights.shape)}"
        )
    levels = locations.shape[3]
    if tuple(shapes.shape) != (levels, 2):
        raise ValueError(f"spatial_shapes must have shape ({levels}, 2), got {tuple(shapes.shape)}")
    if tuple(starts.shape) != (levels,):
        raise ValueError(f"level_start_index must have shape ({levels},), got {tuple(starts.shape)}")


# --- the operators ---------------------------------------------------------------------------------


def _fake(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_value, _, _, need_locations, need_weights, *_ = ctx.needs_input_grad
    grad_value, grad_locations, grad_weights = _op_backward(
        grad,
        *ctx.saved_tensors,
        need_value,
        need_locations or need_weights,
        torch.are_deterministic_algorithms_enabled(),
    )
    return (
        grad_value if need_value else None,
        None,
        None,
        grad_locations if need_locations else None,
        grad_weights if need_weights else None,
    )


def _fake_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    want_value: bool,
    want_samples: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    def like(t: Tensor, wanted: bool) -> Tensor:
        return t.new_empty(t.shape if wanted else (0,))

    return like(value, want_value), like(locations, want_samples), like(weights, want_samples)


# Under autocast everything stays as it is: sums are in float32 anyway, and locations are never rounded.
_call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_gradients)
register(_op_backward, fake=_fake_backward)
