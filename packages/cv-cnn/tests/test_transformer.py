"""The transformer blocks: against formulas, and against the layers of torch with the same weights."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cv.cnn.bricks import transformer
from cv.cnn.bricks.registry import ATTENTION, POSITIONAL_ENCODING
from cv.cnn.bricks.transformer import (
    FFN,
    BaseTransformerLayer,
    MultiheadAttention,
    TransformerLayerSequence,
    build_attention,
    build_feedforward_network,
    build_positional_encoding,
    build_transformer_layer,
    build_transformer_layer_sequence,
)

D, HEADS = 8, 2


def attend(block, query, key, value, mask=None, ignored=None):
    """``(L, N, C)`` and ``(S, N, C)``: softmax(Q·K / √d)·V per head, from the weights."""
    attn = block.attn
    w_q, w_k, w_v = attn.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attn.in_proj_bias.chunk(3)
    q, k, v = query @ w_q.T + b_q, key @ w_k.T + b_k, value @ w_v.T + b_v
    dim = D // HEADS
    out = torch.zeros_like(q)
    for n in range(q.shape[1]):
        for h in range(HEADS):
            part = slice(h * dim, (h + 1) * dim)
            energy = q[:, n, part] @ k[:, n, part].T / math.sqrt(dim)
            if mask is not None:
                energy = energy.masked_fill(mask, -math.inf)
            if ignored is not None:
                energy = energy.masked_fill(ignored[n], -math.inf)
            out[:, n, part] = energy.softmax(1) @ v[:, n, part]
    return out @ attn.out_proj.weight.T + attn.out_proj.bias


@pytest.fixture
def data():
    torch.manual_seed(0)

    def make(*shape):
        return torch.randn(*shape, dtype=torch.double)

    return {
        "query": make(5, 3, D),
        "key": make(4, 3, D),
        "value": make(4, 3, D),
        "identity": make(5, 3, D),
        "query_pos": make(5, 3, D),
        "key_pos": make(4, 3, D),
    }


def attention(**kwargs):
    torch.manual_seed(1)
    block = MultiheadAttention(D, HEADS, **kwargs).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    return block


class TestMultiheadAttention:
    def test_formula(self, data):
        block = attention()
        expected = data["identity"] + attend(
            block, data["query"] + data["query_pos"], data["key"] + data["key_pos"], data["value"]
        )
        torch.testing.assert_close(block(**data), expected)

    def test_defaults(self, data):
        block = attention()
        q, k = data["query"], data["key"]
        torch.testing.assert_close(block(q), q + attend(block, q, q, q))
        torch.testing.assert_close(block(q, k), q + attend(block, q, k, k))
        # The encoding of the query serves the key too if it fits, and is not part of the value.
        pos = data["query_pos"]
        torch.testing.assert_close(block(q, query_pos=pos), q + attend(block, q + pos, q + pos, q))
        with pytest.warns(UserWarning, match="position encoding of key is missing in MultiheadAttention"):
            out = block(q, k, query_pos=pos)
        torch.testing.assert_close(out, q + attend(block, q + pos, k, k))

    def test_positional_arguments(self, data):
        block = attention()
        assert torch.equal(block(*data.values()), block(**data))

    def test_batch_first(self, data):
        block, first = attention(), attention(batch_first=True)
        first.load_state_dict(block.state_dict())
        turned = {name: x.transpose(0, 1) for name, x in data.items()}
        ignored = torch.zeros(3, 4, dtype=torch.bool)
        ignored[1, 2:] = True
        expected = block(**data, key_padding_mask=ignored)
        torch.testing.assert_close(first(**turned, key_padding_mask=ignored), expected.transpose(0, 1))

    def test_masks(self, data):
        block = attention()
        q, k, v = data["query"], data["key"], data["value"]
        mask = torch.rand(5, 4) < 0.3
        mask[:, 0] = False
        ignored = torch.zeros(3, 4, dtype=torch.bool)
        ignored[1, 2:] = True
        expected = q + attend(block, q, k, v, mask, ignored)
        torch.testing.assert_close(block(q, k, v, attn_mask=mask, key_padding_mask=ignored), expected)
        added = torch.zeros(5, 4, dtype=torch.double).masked_fill(mask, -math.inf)
        torch.testing.assert_close(
            block(q, k, v, attn_mask=added), q + attend(block, q, k, v, mask), rtol=1e-6, atol=1e-6
        )

    def test_dropout(self):
        block = MultiheadAttention(
            D, HEADS, 0.1, 0.2, dropout_layer=dict(type="DropPath", drop_prob=0.3), bias=False
        )
        assert (block.attn.dropout, block.proj_drop.p, block.dropout_layer.drop_prob) == (0.1, 0.2, 0.3)
        assert block.attn.in_proj_bias is None
        assert isinstance(MultiheadAttention(D, HEADS, dropout_layer=None).dropout_layer, nn.Identity)

    def test_old_names(self, data):
        with pytest.warns(UserWarning, match="dropout of MultiheadAttention is deprecated"):
            block = MultiheadAttention(D, HEADS, dropout=0.4)
        assert (block.attn.dropout, block.dropout_layer.p) == (0.4, 0.4)
        block = attention()
        with pytest.warns(UserWarning, match="residual of MultiheadAttention is deprecated"):
            out = block(data["query"], residual=data["identity"])
        assert torch.equal(out, block(data["query"], identity=data["identity"]))
        with (
            pytest.warns(UserWarning, match="residual"),
            pytest.raises(AssertionError, match="both are given"),
        ):
            block(data["query"], identity=data["identity"], residual=data["identity"])


class TestFFN:
    def test_formula(self):
        ffn = FFN(D, 12, num_fcs=3, act_cfg=dict(type="GELU")).double()
        x, identity = torch.randn(2, 5, D).double(), torch.randn(2, 5, D).double()
        h = F.gelu(F.linear(x, *ffn.layers[0][0].parameters()))
        h = F.gelu(F.linear(h, *ffn.layers[1][0].parameters()))
        h = F.linear(h, *ffn.layers[2].parameters())
        torch.testing.assert_close(ffn(x), x + h)
        torch.testing.assert_close(ffn(x, identity), identity + h)
        alone = FFN(D, 12, num_fcs=3, act_cfg=dict(type="GELU"), add_identity=False).double()
        alone.load_state_dict(ffn.state_dict())
        torch.testing.assert_close(alone(x, identity), h)

    def test_parameter_names(self):
        names = ["layers.0.0.weight", "layers.0.0.bias", "layers.1.weight", "layers.1.bias"]
        assert list(FFN(D, 12).state_dict()) == names

    def test_options(self):
        ffn = FFN(D, 12, ffn_drop=0.1, dropout_layer=dict(type="DropPath", drop_prob=0.2))
        assert (ffn.layers[0][2].p, ffn.layers[2].p, ffn.dropout_layer.drop_prob) == (0.1, 0.1, 0.2)
        with pytest.warns(UserWarning, match="deprecated"):
            ffn = FFN(D, 12, dropout=0.3, add_residual=False)
        assert ffn.layers[2].p == 0.3
        assert not ffn.add_identity
        with pytest.warns(UserWarning, match="residual of FFN is deprecated"):
            FFN(D, 12)(torch.zeros(1, D), residual=torch.zeros(1, D))
        with pytest.raises(AssertionError, match="num_fcs should be no less than 2, got 1"):
            FFN(D, num_fcs=1)


POST = ("self_attn", "norm", "ffn", "norm")
PRE = ("norm", "self_attn", "norm", "ffn")
DECODER = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")


def make_layer(order, attn=None, **kwargs):
    torch.manual_seed(2)
    attn = attn or dict(type="MultiheadAttention", embed_dims=D, num_heads=HEADS)
    layer = BaseTransformerLayer(
        attn, dict(type="FFN", feedforward_channels=16), operation_order=order, **kwargs
    )
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    return layer.double()


def copy_into(reference, layer):
    """The weights of a layer into the layer of torch that does the same."""
    names = ["self_attn", "multihead_attn"]
    for name, block in zip(names, layer.attentions, strict=False):
        getattr(reference, name).load_state_dict(block.attn.state_dict())
    reference.linear1.load_state_dict(layer.ffns[0].layers[0][0].state_dict())
    reference.linear2.load_state_dict(layer.ffns[0].layers[1].state_dict())
    for index, norm in enumerate(layer.norms):
        getattr(reference, f"norm{index + 1}").load_state_dict(norm.state_dict())
    return reference


class TestLayer:
    @pytest.mark.parametrize("pre_norm", [True, False])
    @pytest.mark.parametrize("batch_first", [True, False])
    def test_encoder_layer_of_torch(self, pre_norm, batch_first):
        layer = make_layer(PRE if pre_norm else POST, batch_first=batch_first)
        assert layer.pre_norm == pre_norm
        reference = nn.TransformerEncoderLayer(
            D, HEADS, 16, 0.0, batch_first=batch_first, norm_first=pre_norm, dtype=torch.double
        )
        copy_into(reference, layer)
        x = torch.randn(3, 5, D, dtype=torch.double)
        batch, length = (3, 5) if batch_first else (5, 3)
        ignored = torch.zeros(batch, length, dtype=torch.bool)
        ignored[0, -1] = True
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        got = layer(x, attn_masks=mask, query_key_padding_mask=ignored)
        torch.testing.assert_close(got, reference(x, src_mask=mask, src_key_padding_mask=ignored))

    @pytest.mark.parametrize("pre_norm", [True, False])
    def test_decoder_layer_of_torch(self, pre_norm):
        order = ("norm", "self_attn", "norm", "cross_attn", "norm", "ffn") if pre_norm else DECODER
        layer = make_layer(order)
        reference = nn.TransformerDecoderLayer(D, HEADS, 16, 0.0, norm_first=pre_norm, dtype=torch.double)
        copy_into(reference, layer)
        target, memory = torch.randn(5, 3, D).double(), torch.randn(7, 3, D).double()
        ignored = torch.zeros(3, 7, dtype=torch.bool)
        ignored[2, 4:] = True
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
        got = layer(target, memory, memory, attn_masks=[mask, None], key_padding_mask=ignored)
        expected = reference(target, memory, tgt_mask=mask, memory_key_padding_mask=ignored)
        torch.testing.assert_close(got, expected)

    def test_positions(self):
        """As in DETR: encodings are added to queries and keys, not to values, of every attention."""
        layer = make_layer(DECODER)
        query, memory = torch.randn(5, 3, D).double(), torch.randn(7, 3, D).double()
        query_pos, key_pos = torch.randn(5, 3, D).double(), torch.randn(7, 3, D).double()
        x = query
        x = layer.norms[0](x + attend(layer.attentions[0], x + query_pos, x + query_pos, x))
        x = layer.norms[1](x + attend(layer.attentions[1], x + query_pos, memory + key_pos, memory))
        x = layer.norms[2](layer.ffns[0](x))
        got = layer(query, memory, memory, query_pos=query_pos, key_pos=key_pos)
        torch.testing.assert_close(got, x)

    def test_what_attentions_are_given(self):
        seen = []

        class Spy(nn.Module):
            embed_dims = D

            def __init__(self, batch_first):
                super().__init__()
                self.batch_first = batch_first

            def forward(self, *args, **kwargs):
                seen.append((self.operation_name, len(args), args[3], kwargs))
                return args[0]

        layer = BaseTransformerLayer(
            [dict(type=Spy), dict(type=Spy, batch_first=True)],
            operation_order=("norm", "self_attn", "cross_attn", "ffn"),
            ffn_cfgs=dict(type="FFN", feedforward_channels=4),
            batch_first=True,
        )
        x = torch.zeros(1, 2, D)
        masks = [torch.ones(1), None]
        layer(x, x, x, x, x, masks, "query mask", "key mask", spatial_shapes=7)
        (name1, count1, shortcut1, kwargs1), (name2, _, _, kwargs2) = seen
        assert (name1, name2, count1) == ("self_attn", "cross_attn", 4)
        assert shortcut1 is x
        assert kwargs1.pop("attn_mask") is masks[0]
        assert kwargs1["key_padding_mask"] == "query mask"
        assert kwargs2["key_padding_mask"] == "key mask"
        assert set(kwargs1) == {"query_pos", "key_pos", "key_padding_mask", "spatial_shapes"}

    def test_configs(self):
        cfgs = dict(
            attn_cfgs=[dict(type="MultiheadAttention", embed_dims=D, num_heads=h) for h in (1, 2)],
            ffn_cfgs=dict(type="FFN", embed_dims=D, feedforward_channels=4),
            operation_order=DECODER,
        )
        before = copy.deepcopy(cfgs)
        layer = BaseTransformerLayer(**cfgs)
        assert cfgs == before
        assert [a.num_heads for a in layer.attentions] == [1, 2]
        assert layer.embed_dims == D
        assert (layer.num_attn, len(layer.ffns), len(layer.norms)) == (2, 1, 3)
        with pytest.warns(UserWarning, match="feedforward_channels, ffn_num_fcs of BaseTransformerLayer"):
            layer = BaseTransformerLayer(
                cfgs["attn_cfgs"][0],
                operation_order=("self_attn", "ffn"),
                feedforward_channels=6,
                ffn_num_fcs=3,
                ffn_cfgs=dict(type="FFN"),
            )
        assert (layer.ffns[0].feedforward_channels, layer.ffns[0].num_fcs) == (6, 3)

    @pytest.mark.parametrize("dims", [8, 32])
    def test_width_of_the_ffn_that_is_not_given(self, dims):
        """As configs of DETR write it: old names, no ``ffn_cfgs``, a width that is not the default's."""
        cfg = dict(
            type="BaseTransformerLayer",
            attn_cfgs=[dict(type="MultiheadAttention", embed_dims=dims, num_heads=2)],
            feedforward_channels=16,
            ffn_dropout=0.1,
            operation_order=POST,
        )
        before = copy.deepcopy(cfg)
        with pytest.warns(UserWarning, match="deprecated"):
            layer = build_transformer_layer(cfg)
        assert cfg == before
        assert (layer.ffns[0].embed_dims, layer.ffns[0].feedforward_channels) == (dims, 16)
        assert layer(torch.randn(5, 2, dims)).shape == (5, 2, dims)
        # Without an attention the width is the default's.
        assert BaseTransformerLayer(operation_order=("ffn",)).ffns[0].embed_dims == 256

    def test_heads_that_do_not_divide_the_channels(self):
        with pytest.raises(AssertionError, match="multiple of num_heads, got 30 and 4"):
            MultiheadAttention(30, 4)

    def test_one_mask_for_all(self):
        layer = make_layer(DECODER)
        x = torch.randn(5, 3, D).double()
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
        with pytest.warns(UserWarning, match="Use same attn_mask in all attentions in BaseTransformerLayer"):
            got = layer(x, x, x, attn_masks=mask)
        assert torch.equal(got, layer(x, x, x, attn_masks=[mask, mask]))

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (dict(operation_order=None), "operation_order of BaseTransformerLayer must hold some of"),
            (dict(operation_order=("self_attn", "norms")), "operation_order"),
            (
                dict(operation_order=("self_attn", "cross_attn"), attn_cfgs=[{}]),
                "attn_cfgs must have one",
            ),
            (dict(operation_order=("self_attn",), attn_cfgs=None), "attn_cfgs must be a dict or a list"),
            (dict(ffn_cfgs=[dict(type="FFN")] * 2), "ffn_cfgs must have one entry for each of 1, got 2"),
            (dict(ffn_cfgs=dict(type="FFN", embed_dims=5)), "embed_dims of ffn_cfgs .5. must be"),
            (dict(batch_first=True, attn_cfgs=dict(batch_first=False)), "batch_first of the attention"),
        ],
    )
    def test_errors(self, arguments, match):
        attn = dict(type="MultiheadAttention", embed_dims=D, num_heads=HEADS)
        if isinstance(arguments.get("attn_cfgs"), dict):
            arguments = {**arguments, "attn_cfgs": {**attn, **arguments["attn_cfgs"]}}
        arguments = {"attn_cfgs": attn, "ffn_cfgs": dict(type="FFN"), "operation_order": POST, **arguments}
        with pytest.raises(AssertionError, match=match):
            BaseTransformerLayer(**arguments)

    def test_number_of_masks(self):
        with pytest.raises(AssertionError, match=r"one entry per attention \(1\), got 2"):
            make_layer(POST)(torch.zeros(1, 1, D).double(), attn_masks=[None, None])


LAYER = dict(
    type="BaseTransformerLayer",
    attn_cfgs=dict(type="MultiheadAttention", embed_dims=D, num_heads=HEADS),
    ffn_cfgs=dict(type="FFN", embed_dims=D, feedforward_channels=4),
    operation_order=DECODER,
)


class TestSequence:
    def test_layers_follow_each_other(self):
        sequence = build_transformer_layer_sequence(
            dict(type="TransformerLayerSequence", transformerlayers=LAYER, num_layers=3)
        ).double()
        assert (len(sequence.layers), sequence.embed_dims, sequence.pre_norm) == (3, D, False)
        assert sequence.layers[0] is not sequence.layers[1]
        x, memory = torch.randn(5, 2, D).double(), torch.randn(4, 2, D).double()
        pos = torch.randn(5, 2, D).double()
        expected = x
        for layer in sequence.layers:
            expected = layer(expected, memory, memory, query_pos=pos, key_pos=memory)
        torch.testing.assert_close(sequence(x, memory, memory, query_pos=pos, key_pos=memory), expected)

    def test_lists(self):
        other = {**LAYER, "operation_order": ("self_attn", "cross_attn")}
        sequence = TransformerLayerSequence([LAYER, other], 2)
        assert [len(layer.norms) for layer in sequence.layers] == [3, 0]
        with pytest.raises(AssertionError, match=r"transformerlayers must have one entry .* 3, got 2"):
            TransformerLayerSequence([LAYER, other], 3)


def test_builders():
    assert isinstance(build_attention(LAYER["attn_cfgs"]), MultiheadAttention)
    assert isinstance(build_feedforward_network(dict(type="FFN")), FFN)
    assert isinstance(build_feedforward_network({}, dict(type="FFN", embed_dims=3)), FFN)
    assert isinstance(build_transformer_layer(LAYER), BaseTransformerLayer)
    with pytest.raises(KeyError, match="Sine is not in the position encoding registry"):
        build_positional_encoding(dict(type="Sine"))
    POSITIONAL_ENCODING.register_module(name="TestSine", module=nn.Identity)
    assert isinstance(build_positional_encoding(dict(type="TestSine")), nn.Identity)


def test_attention_of_cv_ops(monkeypatch):
    monkeypatch.setattr(ATTENTION, "_entry_points", {})
    monkeypatch.setattr(ATTENTION, "_loaded", {})
    with pytest.raises(ImportError, match=r"pip install (--upgrade )?cv-ops"):
        from cv.cnn.bricks.transformer import MultiScaleDeformableAttention  # noqa: F401
    monkeypatch.setitem(ATTENTION._loaded, "MultiScaleDeformableAttention", MultiheadAttention)
    assert transformer.MultiScaleDeformableAttention is MultiheadAttention
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = transformer.nothing


def test_no_warnings_in_normal_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = make_layer(DECODER)
        x = torch.randn(5, 3, D).double()
        layer(x, x, x, query_pos=x, key_pos=x, attn_masks=None)
