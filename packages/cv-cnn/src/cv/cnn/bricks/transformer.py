"""Transformer blocks that are put together from configs, as in models of the DETR family.

Sequences are ``(length, N, embed_dims)``, or ``(N, length, embed_dims)`` with ``batch_first``.
``MultiScaleDeformableAttention`` can be imported from here too where an installed distribution declares it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cv.cnn.bricks.activation import build_activation_layer
from cv.cnn.bricks.drop import build_dropout
from cv.cnn.bricks.norm import build_norm_layer
from cv.cnn.bricks.patch_embed import AdaptivePadding, PatchEmbed, PatchMerging
from cv.cnn.bricks.registry import (
    ATTENTION,
    FEEDFORWARD_NETWORK,
    POSITIONAL_ENCODING,
    TRANSFORMER_LAYER,
    TRANSFORMER_LAYER_SEQUENCE,
)
from cv.cnn.bricks.wrappers import Linear
from cv.cnn.module import BaseModule, InitCfg, ModuleList, Sequential
from cv.utils import CvDeprecationWarning, build_from_cfg
from cv.utils.errors import UsageError

__all__ = [
    "FFN",
    "AdaptivePadding",
    "BaseTransformerLayer",
    "MultiheadAttention",
    "PatchEmbed",
    "PatchMerging",
    "TransformerLayerSequence",
    "build_attention",
    "build_dropout",
    "build_feedforward_network",
    "build_positional_encoding",
    "build_transformer_layer",
    "build_transformer_layer_sequence",
]

_Cfg = dict[str, Any]
_DEFAULT_FFN: _Cfg = {
    "type": "FFN",
    "embed_dims": 256,
    "feedforward_channels": 1024,
    "num_fcs": 2,
    "ffn_drop": 0.0,
    "act_cfg": {"type": "ReLU", "inplace": True},
}
_OPERATIONS = ("self_attn", "norm", "ffn", "cross_attn")


def build_positional_encoding(cfg: _Cfg, default_args: _Cfg | None = None) -> nn.Module:
    """Build a positional encoding from its config."""
    module: nn.Module = build_from_cfg(cfg, POSITIONAL_ENCODING, default_args)
    return module


def build_attention(cfg: _Cfg, default_args: _Cfg | None = None) -> nn.Module:
    """Build an attention from its config."""
    module: nn.Module = build_from_cfg(cfg, ATTENTION, default_args)
    return module


def build_feedforward_network(cfg: _Cfg, default_args: _Cfg | None = None) -> nn.Module:
    """Build a feed-forward network from its config."""
    module: nn.Module = build_from_cfg(cfg, FEEDFORWARD_NETWORK, default_args)
    return module


def build_transformer_layer(cfg: _Cfg, default_args: _Cfg | None = None) -> nn.Module:
    """Build a transformer layer from its config."""
    module: nn.Module = build_from_cfg(cfg, TRANSFORMER_LAYER, default_args)
    return module


def build_transformer_layer_sequence(cfg: _Cfg, default_args: _Cfg | None = None) -> nn.Module:
    """Build a sequence of transformer layers, an encoder or decoder, from its config."""
    module: nn.Module = build_from_cfg(cfg, TRANSFORMER_LAYER_SEQUENCE, default_args)
    return module


@ATTENTION.register_module()
class MultiheadAttention(BaseModule):
    """``nn.MultiheadAttention`` with positional encodings and a shortcut.

    Args:
        embed_dims: Channels of queries, keys and values.
        num_heads: Number of heads.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
        dropout_layer: Config of the dropout of the whole branch. None: none.
        init_cfg: See :class:`BaseModule`.
        batch_first: Whether inputs are ``(N, length, C)`` rather than ``(length, N, C)``.
        **kwargs: Further arguments of ``nn.MultiheadAttention``; ``dropout`` is an old name for
            ``attn_drop`` and the probability of ``dropout_layer`` together.

    Raises:
        UsageError: ``embed_dims`` is no multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        dropout_layer: _Cfg | None = {"type": "Dropout", "drop_prob": 0.0},  # noqa: B006  (never changed)
        init_cfg: InitCfg = None,
        batch_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        if "dropout" in kwargs:
            _deprecated("dropout", "attn_drop, proj_drop and dropout_layer", type(self))
            attn_drop = kwargs.pop("dropout")
            dropout_layer = {**(dropout_layer or {"type": "Dropout"}), "drop_prob": attn_drop}
        if num_heads < 1 or embed_dims % num_heads:
            raise UsageError(f"embed_dims must be a multiple of num_heads, got {embed_dims} and {num_heads}")
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.batch_first = batch_first
        # The inner layer sees the length first, whatever comes in: old checkpoints and subclasses expect it.
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, attn_drop, **kwargs)
        self.proj_drop = nn.Dropout(proj_drop)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend, and add the result to the shortcut.

        Args:
            query: ``(L, N, C)``, or ``(N, L, C)`` with ``batch_first``.
            key: ``(S, N, C)`` or ``(N, S, C)``. None: the query.
            value: As the key. None: the key.
            identity: The shortcut, as the query. None: the query, before its encoding is added.
            query_pos: Positional encoding added to the query.
            key_pos: Positional encoding added to the key. None: that of the query, if it has the key's
                shape.
            attn_mask: ``(L, S)`` or ``(N · heads, L, S)``; True (or -inf, added) forbids a pair.
            key_padding_mask: ``(N, S)``; True ignores a key.
            **kwargs: ``residual`` is an old name of ``identity``; others, which some other attention of the
                same layer may need, are ignored.

        Returns:
            A tensor as the query.
        """
        if kwargs.get("residual") is not None:
            _deprecated("residual", "identity", type(self))
            if identity is not None:
                raise UsageError("residual is the old name of identity, but both are given")
            identity = kwargs["residual"]
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None:
            if query_pos.shape == key.shape:
                key_pos = query_pos
            else:
                warnings.warn(f"position encoding of key is missing in {type(self).__name__}.", stacklevel=2)
        if query_pos is not None:
            query = query + query_pos
        if key_pos is not None:
            key = key + key_pos

        if self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        # Without the weights torch uses its fused attention.
        out = self.attn(
            query, key, value, attn_mask=attn_mask, key_padding_mask=key_padding_mask, need_weights=False
        )[0]
        if self.batch_first:
            out = out.transpose(0, 1)
        result: Tensor = identity + self.dropout_layer(self.proj_drop(out))
        return result


@FEEDFORWARD_NETWORK.register_module()
class FFN(BaseModule):
    """Linear layers with activations and a shortcut.

    Args:
        embed_dims: Channels of the input and output.
        feedforward_channels: Channels in between.
        num_fcs: Number of linear layers, at least 2.
        act_cfg: Config of the activation.
        ffn_drop: Dropout after each linear layer.
        dropout_layer: Config of the dropout of the whole branch. None: none.
        add_identity: Whether there is a shortcut.
        init_cfg: See :class:`BaseModule`.
        **kwargs: ``dropout`` and ``add_residual`` are old names of ``ffn_drop`` and ``add_identity``; others
            are ignored.

    Raises:
        UsageError: ``num_fcs`` is less than 2.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        feedforward_channels: int = 1024,
        num_fcs: int = 2,
        act_cfg: _Cfg = {"type": "ReLU", "inplace": True},  # noqa: B006  (never changed)
        ffn_drop: float = 0.0,
        dropout_layer: _Cfg | None = None,
        add_identity: bool = True,
        init_cfg: InitCfg = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        if "dropout" in kwargs:
            _deprecated("dropout", "ffn_drop", type(self))
            ffn_drop = kwargs["dropout"]
        if "add_residual" in kwargs:
            _deprecated("add_residual", "add_identity", type(self))
            add_identity = kwargs["add_residual"]
        if num_fcs < 2:
            raise UsageError(f"num_fcs should be no less than 2, got {num_fcs}")
        self.embed_dims = embed_dims
        self.feedforward_channels = feedforward_channels
        self.num_fcs = num_fcs
        self.act_cfg = act_cfg
        self.activate = build_activation_layer(act_cfg)

        layers: list[nn.Module] = []
        channels = embed_dims
        for _ in range(num_fcs - 1):
            layers.append(
                Sequential(Linear(channels, feedforward_channels), self.activate, nn.Dropout(ffn_drop))
            )
            channels = feedforward_channels
        layers += [Linear(channels, embed_dims), nn.Dropout(ffn_drop)]
        self.layers = Sequential(*layers)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()
        self.add_identity = add_identity

    def forward(self, x: Tensor, identity: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Run the layers, and add the result to the shortcut.

        Args:
            x: ``(..., embed_dims)``.
            identity: The shortcut. None: the input.
            **kwargs: ``residual`` is an old name of ``identity``.
        """
        if kwargs.get("residual") is not None:
            _deprecated("residual", "identity", type(self))
            identity = kwargs["residual"]
        out: Tensor = self.dropout_layer(self.layers(x))
        if not self.add_identity:
            return out
        return (x if identity is None else identity) + out


@TRANSFORMER_LAYER.register_module()
class BaseTransformerLayer(BaseModule):
    """One layer of a transformer: attentions, feed-forward networks and norms in any order.

    Args:
        attn_cfgs: Config of the attentions: one for all, or a list with one for each.
        ffn_cfgs: Config of the feed-forward networks, likewise. Where it is not given, or has no
            ``embed_dims``, that is the attention's.
        operation_order: What runs, in order: any of ``"self_attn"``, ``"cross_attn"``, ``"ffn"``,
            ``"norm"``, each as often as wanted. If it begins with ``"norm"``, shortcuts go around the norms
            too (pre-norm).
        norm_cfg: Config of the norms.
        init_cfg: See :class:`BaseModule`.
        batch_first: Whether inputs are ``(N, length, C)``.
        **kwargs: ``feedforward_channels``, ``ffn_dropout`` and ``ffn_num_fcs`` are old names for entries of
            ``ffn_cfgs``; others are ignored.

    Raises:
        UsageError: An unknown operation, lists of another length than there are operations, or entries of
            the configs that contradict each other.
    """

    def __init__(
        self,
        attn_cfgs: _Cfg | Sequence[_Cfg] | None = None,
        ffn_cfgs: _Cfg | Sequence[_Cfg] = _DEFAULT_FFN,
        operation_order: Sequence[str] | None = None,
        norm_cfg: _Cfg = {"type": "LN"},  # noqa: B006  (never changed)
        init_cfg: InitCfg = None,
        batch_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        if not operation_order or not set(operation_order) <= set(_OPERATIONS):
            raise UsageError(
                f"operation_order of {type(self).__name__} must hold some of {_OPERATIONS}, "
                f"got {operation_order!r}"
            )
        self.batch_first = batch_first
        self.operation_order = operation_order
        self.norm_cfg = norm_cfg
        self.pre_norm = operation_order[0] == "norm"

        attentions = [name for name in operation_order if name.endswith("_attn")]
        self.num_attn = len(attentions)
        self.attentions = ModuleList()
        for name, cfg in zip(attentions, _one_each(attn_cfgs, self.num_attn, "attn_cfgs"), strict=True):
            if cfg.setdefault("batch_first", batch_first) != batch_first:
                raise UsageError(
                    f"batch_first of the attention ({cfg['batch_first']}) must be that of the layer "
                    f"({batch_first})"
                )
            attention: Any = build_attention(cfg)
            attention.operation_name = name  # some attentions look which one they are
            self.attentions.append(attention)
        self.embed_dims: int = (
            self.attentions[0].embed_dims if attentions else _first(ffn_cfgs)["embed_dims"]  # type: ignore[assignment]
        )

        if attentions and ffn_cfgs is _DEFAULT_FFN:
            # Who gives no config means no width either.
            ffn_cfgs = {key: value for key, value in _DEFAULT_FFN.items() if key != "embed_dims"}
        renamed = {"feedforward_channels": "feedforward_channels", "ffn_dropout": "ffn_drop"}
        renamed["ffn_num_fcs"] = "num_fcs"
        old = {new: kwargs[name] for name, new in renamed.items() if name in kwargs}
        if old:
            _deprecated(", ".join(name for name in renamed if name in kwargs), "ffn_cfgs", type(self))
        self.ffns = ModuleList()
        for cfg in _one_each(ffn_cfgs, list(operation_order).count("ffn"), "ffn_cfgs"):
            cfg.update(old)
            if cfg.setdefault("embed_dims", self.embed_dims) != self.embed_dims:
                raise UsageError(
                    f"embed_dims of ffn_cfgs ({cfg['embed_dims']}) must be that of the attention "
                    f"({self.embed_dims})"
                )
            self.ffns.append(build_feedforward_network(cfg, {"type": "FFN"}))

        self.norms = ModuleList(
            build_norm_layer(norm_cfg, self.embed_dims)[1] for name in operation_order if name == "norm"
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_masks: Tensor | Sequence[Tensor | None] | None = None,
        query_key_padding_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Run the operations in their order.

        Args:
            query: ``(L, N, C)``, or ``(N, L, C)`` with ``batch_first``.
            key: What cross-attentions attend to, ``(S, N, C)`` or ``(N, S, C)``.
            value: As the key.
            query_pos: Positional encoding of the query; for both sides of a self-attention.
            key_pos: Positional encoding of the key.
            attn_masks: Mask of each attention, or one for all.
            query_key_padding_mask: ``(N, L)``, True ignores a position: for self-attentions.
            key_padding_mask: ``(N, S)``, True ignores a key: for cross-attentions.
            **kwargs: Passed on to the attentions.

        Returns:
            A tensor as the query.

        Raises:
            UsageError: Not as many masks as attentions.
        """
        masks = self._mask_of_each(attn_masks)
        attentions, ffns, norms = iter(self.attentions), iter(self.ffns), iter(self.norms)
        identity = query
        for name in self.operation_order:
            if name == "norm":
                query = next(norms)(query)
                continue
            shortcut = identity if self.pre_norm else None
            if name == "self_attn":
                query = next(attentions)(
                    query,
                    query,
                    query,
                    shortcut,
                    query_pos=query_pos,
                    key_pos=query_pos,
                    attn_mask=next(masks),
                    key_padding_mask=query_key_padding_mask,
                    **kwargs,
                )
            elif name == "cross_attn":
                query = next(attentions)(
                    query,
                    key,
                    value,
                    shortcut,
                    query_pos=query_pos,
                    key_pos=key_pos,
                    attn_mask=next(masks),
                    key_padding_mask=key_padding_mask,
                    **kwargs,
                )
            else:
                query = next(ffns)(query, shortcut)
            identity = query
        return query

    def _mask_of_each(self, attn_masks: Any) -> Any:
        if attn_masks is None:
            return iter([None] * self.num_attn)
        if isinstance(attn_masks, Tensor):
            if self.num_attn > 1:
                warnings.warn(f"Use same attn_mask in all attentions in {type(self).__name__} ", stacklevel=3)
            return iter([attn_masks] * self.num_attn)
        if len(attn_masks) != self.num_attn:
            raise UsageError(
                f"attn_masks must have one entry per attention ({self.num_attn}), got {len(attn_masks)}"
            )
        return iter(attn_masks)


@TRANSFORMER_LAYER_SEQUENCE.register_module()
class TransformerLayerSequence(BaseModule):
    """Transformer layers one after the other: an encoder or a decoder.

    Args:
        transformerlayers: Config of the layers: one for all, or a list with one for each.
        num_layers: Number of layers.
        init_cfg: See :class:`BaseModule`.

    Raises:
        UsageError: A list of another length.
    """

    def __init__(
        self,
        transformerlayers: _Cfg | Sequence[_Cfg] | None = None,
        num_layers: int | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_layers is None:
            num_layers = len(transformerlayers) if isinstance(transformerlayers, (list, tuple)) else 1
        self.num_layers = num_layers
        self.layers = ModuleList(
            build_transformer_layer(cfg)
            for cfg in _one_each(transformerlayers, num_layers, "transformerlayers")
        )
        self.embed_dims: int = self.layers[0].embed_dims  # type: ignore[assignment]
        self.pre_norm: bool = self.layers[0].pre_norm  # type: ignore[assignment]

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_masks: Tensor | Sequence[Tensor | None] | None = None,
        query_key_padding_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Run the layers; the arguments are those of :meth:`BaseTransformerLayer.forward`."""
        for layer in self.layers:
            query = layer(
                query,
                key,
                value,
                query_pos=query_pos,
                key_pos=key_pos,
                attn_masks=attn_masks,
                query_key_padding_mask=query_key_padding_mask,
                key_padding_mask=key_padding_mask,
                **kwargs,
            )
        return query


def _one_each(cfgs: Any, count: int, name: str) -> list[_Cfg]:
    """A config of its own for each of ``count`` modules, from one for all or a list."""
    if isinstance(cfgs, (list, tuple)):
        if len(cfgs) != count:
            raise UsageError(f"{name} must have one entry for each of {count}, got {len(cfgs)}")
        return [copy.deepcopy(dict(cfg)) for cfg in cfgs]
    if not isinstance(cfgs, dict):
        if count == 0:
            return []
        raise UsageError(f"{name} must be a dict or a list of dict, got {cfgs!r}")
    return [copy.deepcopy(dict(cfgs)) for _ in range(count)]


def _first(cfgs: Any) -> _Cfg:
    cfg: _Cfg = cfgs[0] if isinstance(cfgs, (list, tuple)) else cfgs
    return cfg


def _deprecated(old: str, new: str, cls: type) -> None:
    warnings.warn(
        f"{old} of {cls.__name__} is deprecated, please use {new} instead", CvDeprecationWarning, stacklevel=3
    )


def __getattr__(name: str) -> Any:
    if name == "MultiScaleDeformableAttention":
        found = ATTENTION.get(name)
        if found is None:
            raise ImportError(ATTENTION.describe_missing(name))
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
