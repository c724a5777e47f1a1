"""NonLocal, ContextBlock and GeneralizedAttention against loops over positions."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cv.cnn import ContextBlock, GeneralizedAttention, NonLocal1d, NonLocal2d, NonLocal3d
from cv.cnn.bricks.non_local import _NonLocalNd
from cv.cnn.checkpoint import load_state_dict

SIZES = [(NonLocal1d, (6,)), (NonLocal2d, (4, 6)), (NonLocal3d, (2, 4, 2))]
MODES = ["gaussian", "embedded_gaussian", "dot_product", "concatenation"]


def linear(conv_module, x):
    """A 1×1 convolution at every position: ``(C, positions)`` to ``(O, positions)``."""
    conv = conv_module.conv
    return conv.weight.detach().flatten(1) @ x + conv.bias.detach()[:, None]


class TestNonLocal:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("sub_sample", [True, False])
    @pytest.mark.parametrize("use_scale", [True, False])
    @pytest.mark.parametrize(("cls", "size"), SIZES)
    def test_formula(self, cls, size, mode, sub_sample, use_scale):
        torch.manual_seed(0)
        options = dict(mode=mode, use_scale=use_scale, zeros_init=False, std=0.5)
        block = cls(4, sub_sample=sub_sample, **options).double()
        for name, p in block.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(p)
        x = torch.randn(2, 4, *size, dtype=torch.double)
        got = block(x)

        g = block.g[0] if sub_sample else block.g
        phi = None if mode == "gaussian" else block.phi[0] if sub_sample else block.phi
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(size)]
        window = {1: 2, 2: 2, 3: (1, 2, 2)}[len(size)]

        def attended(values, channels):
            values = values.view(1, channels, *size)
            return (pool(values, window) if sub_sample else values).flatten(2)[0]

        for image in range(2):
            flat = x[image].flatten(1)
            values = attended(linear(g, flat), 2)
            if mode == "gaussian":
                queries, keys = flat, attended(flat, 4)
            else:
                queries, keys = linear(block.theta, flat), attended(linear(phi, flat), 2)
            y = torch.zeros(2, flat.shape[1], dtype=torch.double)
            for i in range(flat.shape[1]):
                q, n = queries[:, i], keys.shape[1]
                energies = []
                for j in range(n):
                    k = keys[:, j]
                    if mode == "concatenation":
                        project = block.concat_project.conv.weight.detach().flatten()
                        energies.append(max(float(project @ torch.cat([q, k])), 0) / n)
                    elif mode == "dot_product":
                        energies.append(float(q @ k) / n)
                    else:
                        scale = math.sqrt(2) if use_scale and mode == "embedded_gaussian" else 1
                        energies.append(math.exp(float(q @ k) / scale))
                if "gaussian" in mode:
                    energies = [e / sum(energies) for e in energies]
                y[:, i] = values @ torch.tensor(energies, dtype=torch.double)
            expected = x[image] + linear(block.conv_out, y).view(4, *size)
            torch.testing.assert_close(got[image], expected)

    def test_identity_at_first(self):
        x = torch.randn(2, 4, 5, 5)
        for norm_cfg in (None, dict(type="BN")):
            block = NonLocal2d(4, norm_cfg=norm_cfg)
            assert torch.equal(block(x), x)
            assert (block.conv_out.norm.weight if norm_cfg else block.conv_out.conv.weight).abs().max() == 0
        block = NonLocal2d(4, zeros_init=False, norm_cfg=dict(type="BN"))
        assert not torch.equal(block(x), x)

    def test_parameter_names(self):
        names = set(NonLocal2d(4).state_dict())
        parts = ("g", "theta", "phi", "conv_out")
        expected = {f"{part}.conv.{p}" for part in parts for p in ("weight", "bias")}
        assert names == expected
        sub_sampled = set(NonLocal2d(4, sub_sample=True, mode="concatenation").state_dict())
        assert {"g.0.conv.weight", "phi.0.conv.weight", "concat_project.conv.weight"} <= sub_sampled

    def test_errors(self):
        with pytest.raises(ValueError, match=r"mode should be one of gaussian.*got 'unsupported'"):
            _NonLocalNd(3, mode="unsupported")
        assert _NonLocalNd(3).inter_channels == 1
        assert _NonLocalNd(1, reduction=4).inter_channels == 1


class TestContextBlock:
    @pytest.mark.parametrize("pooling", ["att", "avg"])
    @pytest.mark.parametrize("fusions", [("channel_add",), ["channel_mul"], ("channel_add", "channel_mul")])
    def test_formula(self, pooling, fusions):
        torch.manual_seed(0)
        block = ContextBlock(8, 0.25, pooling, fusions).double()
        x = torch.randn(2, 8, 3, 5, dtype=torch.double)
        if "channel_add" in fusions:
            expected = torch.sigmoid(torch.zeros(1)).item() * x if "channel_mul" in fusions else x
            torch.testing.assert_close(block(x), expected)  # the transforms start at zero
        for p in block.parameters():
            nn.init.normal_(p)
        flat = x.flatten(2)
        if pooling == "att":
            mask = block.conv_mask
            scores = torch.einsum("c,ncp->np", mask.weight.flatten(), flat) + mask.bias
            weights = scores.exp() / scores.exp().sum(1, keepdim=True)
            context = torch.einsum("ncp,np->nc", flat, weights)
        else:
            context = flat.mean(2)

        def transform(layers):
            first, norm, _, last = layers
            h = context @ first.weight.flatten(1).T + first.bias
            h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
            h = (h * norm.weight.flatten() + norm.bias.flatten()).clamp(min=0)
            return (h @ last.weight.flatten(1).T + last.bias)[:, :, None, None]

        expected = x
        if "channel_mul" in fusions:
            expected = expected * torch.sigmoid(transform(block.channel_mul_conv))
        if "channel_add" in fusions:
            expected = expected + transform(block.channel_add_conv)
        torch.testing.assert_close(block(x), expected)

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (dict(pooling_type="max"), "pooling_type must be 'avg' or 'att'"),
            (dict(fusion_types="channel_add"), "fusion_types must be a list or tuple"),
            (dict(fusion_types=()), "with at least one"),
            (dict(fusion_types=("channels",)), "fusion_types must be among"),
        ],
    )
    def test_errors(self, arguments, match):
        with pytest.raises(AssertionError, match=match):
            ContextBlock(16, 0.5, **arguments)

    def test_bottleneck_without_channels(self):
        with pytest.raises(AssertionError, match=r"at least 1, got in_channels=8, ratio=0\.1"):
            ContextBlock(8, 0.1)


def generalized_attention(block, x):
    """The energy of every pair of positions, term by term."""
    heads, dim = block.num_heads, block.qk_embed_dim
    types = block.attention_type
    q_stride, kv_stride = block.q_stride, block.kv_stride
    _, height, width = x.shape
    queries = list(itertools.product(range(0, height, q_stride), range(0, width, q_stride)))
    keys = list(itertools.product(range(0, height, kv_stride), range(0, width, kv_stride)))

    def at(conv, y, z):
        return (conv.weight.flatten(1) @ x[:, y, z]).view(heads, dim)

    def position(linear, difference):
        embed_dim = block.position_embedding_dim
        phases = [
            difference * block.position_magnitude / 1000 ** (4 * i / embed_dim) for i in range(embed_dim // 4)
        ]
        embedding = [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
        return (linear.weight @ torch.tensor(embedding, dtype=x.dtype)).view(heads, dim) / math.sqrt(2)

    out = torch.zeros(heads, dim, len(queries), dtype=x.dtype)
    for i, (qy, qx) in enumerate(queries):
        energy = torch.zeros(heads, len(keys), dtype=x.dtype)
        for j, (ky, kx) in enumerate(keys):
            where = 0
            if types[1] or types[3]:
                where = position(block.appr_geom_fc_x, qx - kx) + position(block.appr_geom_fc_y, qy - ky)
            if types[0]:
                energy[:, j] += (at(block.query_conv, qy, qx) * at(block.key_conv, ky, kx)).sum(1)
            if types[1]:
                energy[:, j] += (at(block.query_conv, qy, qx) * where).sum(1)
            if types[2]:
                energy[:, j] += (block.appr_bias.view(heads, dim) * at(block.key_conv, ky, kx)).sum(1)
            if types[3]:
                energy[:, j] += (block.geom_bias.view(heads, dim) * where).sum(1)
            if block.spatial_range >= 0:
                for q, k in ((qy, ky), (qx, kx)):
                    first = (q - block.spatial_range) // kv_stride
                    last = (q + block.spatial_range + 1) // kv_stride
                    if not first <= k // kv_stride <= last:
                        energy[:, j] = -math.inf
        attention = energy.softmax(1)
        for j, (ky, kx) in enumerate(keys):
            out[:, :, i] += attention[:, j, None] * at(block.value_conv, ky, kx)
    size = (len(range(0, height, q_stride)), len(range(0, width, q_stride)))
    out = block.proj_conv(out.view(1, heads * dim, *size))
    if q_stride > 1:
        out = F.interpolate(out, size=(height, width), mode="bilinear", align_corners=False)
    return x + block.gamma * out[0]


class TestGeneralizedAttention:
    @pytest.mark.parametrize("attention_type", ["".join(t) for t in itertools.product("01", repeat=4)][1:])
    def test_terms(self, attention_type):
        torch.manual_seed(int(attention_type, 2))
        block = GeneralizedAttention(8, num_heads=2, attention_type=attention_type).double()
        nn.init.constant_(block.gamma, 0.7)
        nn.init.normal_(block.proj_conv.bias)
        x = torch.randn(2, 8, 4, 5, dtype=torch.double)
        with torch.no_grad():
            got = block(x)
            for image in range(2):
                torch.testing.assert_close(got[image], generalized_attention(block, x[image]))

    @pytest.mark.parametrize(
        "arguments",
        [
            dict(spatial_range=1),
            dict(spatial_range=1, kv_stride=1, attention_type="0010"),
            dict(q_stride=2, spatial_range=2),
            dict(kv_stride=3, position_magnitude=2, position_embedding_dim=12),
            dict(num_heads=3),  # channels that the heads do not divide
        ],
    )
    def test_options(self, arguments):
        torch.manual_seed(0)
        block = GeneralizedAttention(8, **{"num_heads": 2, **arguments}).double()
        nn.init.constant_(block.gamma, 0.7)
        x = torch.randn(8, 5, 6, dtype=torch.double)
        with torch.no_grad():
            torch.testing.assert_close(block(x[None])[0], generalized_attention(block, x))

    def test_identity_at_first_and_gradients(self):
        block = GeneralizedAttention(8, num_heads=2, spatial_range=1)
        x = torch.randn(1, 8, 5, 5)
        assert torch.equal(block(x), x)
        nn.init.ones_(block.gamma)
        block(x).square().sum().backward()
        for name, p in block.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name

    def test_old_checkpoints(self):
        block = GeneralizedAttention(8, num_heads=2, spatial_range=1)
        state = block.state_dict()
        state["local_constraint_map"] = torch.zeros(1, dtype=torch.uint8)
        load_state_dict(block, state, strict=True)

    @pytest.mark.parametrize("attention_type", ["0000", "111", "1112", "11111"])
    def test_errors(self, attention_type):
        with pytest.raises(AssertionError, match="attention_type must be four binary digits"):
            GeneralizedAttention(8, attention_type=attention_type)

    def test_fewer_channels_than_heads(self):
        with pytest.raises(AssertionError, match="at least num_heads, got 8 channels and 9 heads"):
            GeneralizedAttention(8)
