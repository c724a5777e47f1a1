"""Activations, scale, dropout, weight standardisation, adaptive padding: against their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cv.cnn import (
    Conv2dAdaptivePadding,
    ConvAWS2d,
    ConvWS2d,
    DeformableLayer,
    Dropout,
    DropPath,
    HSigmoid,
    HSwish,
    Scale,
    Swish,
    build_activation_layer,
    build_dropout,
    conv_ws_2d,
)
from cv.cnn.bricks.drop import drop_path
from cv.cnn.checkpoint import load_state_dict

X = torch.linspace(-5, 5, 101, dtype=torch.double)


@pytest.mark.parametrize(
    ("layer", "formula"),
    [
        (HSigmoid(), lambda x: min(max((x + 1) / 2, 0), 1)),
        (HSigmoid(3, 6, 0.1, 0.9), lambda x: min(max((x + 3) / 6, 0.1), 0.9)),
        (HSwish(), lambda x: x * min(max(x + 3, 0), 6) / 6),
        (HSwish(inplace=True), lambda x: x * min(max(x + 3, 0), 6) / 6),
        (Swish(), lambda x: x / (1 + math.exp(-x))),
        (Scale(2.5), lambda x: 2.5 * x),
    ],
    ids=["hsigmoid", "hsigmoid2", "hswish", "hswish-inplace", "swish", "scale"],
)
def test_formulas(layer, formula):
    expected = torch.tensor([formula(x) for x in X.tolist()], dtype=torch.double)
    given = X.clone()
    torch.testing.assert_close(layer(given), expected)
    overwritten = getattr(layer, "inplace", False)
    assert torch.equal(given, X) != overwritten
    assert layer(torch.zeros(0, 3)).shape == (0, 3)
    if not overwritten:
        # away from the corners
        x = torch.tensor([-4.3, -2.1, -0.4, 0.3, 1.7, 4.2], dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradcheck(layer.double(), (x,))


def test_details():
    with pytest.raises(AssertionError, match="divisor must not be 0"):
        HSigmoid(divisor=0)
    assert repr(HSigmoid()) == "HSigmoid(bias=1.0, divisor=2.0, min_value=0.0, max_value=1.0)"
    scale = Scale()
    assert scale.scale.requires_grad
    assert scale.scale.shape == ()
    assert scale.scale.dtype == torch.float
    assert not vars(DeformableLayer).get("__init__")


class TestDropout:
    def test_drop_path(self):
        torch.manual_seed(0)
        x = torch.ones(1000, 2, 3)
        assert drop_path(x, 0.5) is x
        assert drop_path(x, 0.0, training=True) is x
        out = drop_path(x, 0.3, training=True)
        kept = out[:, 0, 0] != 0
        assert torch.equal(out, torch.where(kept[:, None, None], x / 0.7, 0))
        assert kept.double().mean().item() == pytest.approx(0.7, abs=0.05)
        assert (drop_path(x, 1.0, training=True) == 0).all()

    def test_layers(self):
        layer = build_dropout(dict(type="DropPath", drop_prob=0.2))
        assert isinstance(layer, DropPath)
        x = torch.ones(4, 2)
        assert layer.eval()(x) is x
        assert "drop_prob=0.2" in repr(layer)
        layer = build_dropout(dict(type="Dropout"), dict(drop_prob=0.1, inplace=True))
        assert isinstance(layer, Dropout)
        assert isinstance(layer, nn.Dropout)
        assert (layer.p, layer.inplace) == (0.1, True)
        assert Dropout().p == 0.5


class TestWeightStandardisation:
    @pytest.mark.parametrize(
        "arguments",
        [dict(), dict(stride=2, padding=1, dilation=2), dict(groups=2, bias=False), dict(kernel_size=1)],
    )
    def test_formula(self, arguments):
        torch.manual_seed(0)
        arguments = {"kernel_size": 3, **arguments}
        layer = ConvWS2d(4, 6, **arguments, eps=1e-3).double()
        x = torch.randn(2, 4, 7, 7, dtype=torch.double)
        weight = layer.weight.detach().clone()
        for channel in range(6):
            values = weight[channel].flatten().tolist()
            mean = sum(values) / len(values)
            std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
            weight[channel] = (weight[channel] - mean) / (std + 1e-3)
        expected = F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        torch.testing.assert_close(layer(x), expected)
        functional = conv_ws_2d(
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups, 1e-3
        )
        torch.testing.assert_close(functional, expected)

    def test_gradients(self):
        torch.manual_seed(0)
        x = torch.randn(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
        w = torch.randn(3, 2, 2, 2, dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradcheck(conv_ws_2d, (x, w))

    def test_one_weight_per_channel_is_not_nan(self):
        for cls in (ConvWS2d, ConvAWS2d):
            assert cls(1, 2, 1)(torch.ones(1, 1, 2, 2)).isfinite().all()

    def test_adaptive_takes_over_a_plain_convolution(self):
        torch.manual_seed(0)
        plain = nn.Conv2d(4, 6, 3, padding=1)
        layer = ConvAWS2d(4, 6, 3, padding=1)
        x = torch.randn(2, 4, 5, 5)
        flat = plain.weight.detach().flatten(1)
        load_state_dict(layer, plain.state_dict(), strict=True)  # nothing is missing
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.weight_beta.flatten(), flat.mean(1))
        torch.testing.assert_close(layer.weight_gamma.flatten(), (flat.var(1) + 1e-5).sqrt())

        again = ConvAWS2d(4, 6, 3, padding=1)
        layer.weight_beta.fill_(3)
        load_state_dict(again, layer.state_dict(), strict=True)
        assert (again.weight_beta == 3).all()

    def test_adaptive_formula(self):
        torch.manual_seed(0)
        layer = ConvAWS2d(4, 6, 3, bias=False).double()
        nn.init.normal_(layer.weight_gamma)
        nn.init.normal_(layer.weight_beta)
        flat = layer.weight.detach().flatten(1)
        weight = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True) + 1e-5).sqrt()
        weight = weight.view_as(layer.weight) * layer.weight_gamma + layer.weight_beta
        x = torch.randn(1, 4, 5, 5, dtype=torch.double)
        torch.testing.assert_close(layer(x), F.conv2d(x, weight))
        assert [name for name, _ in layer.named_parameters()] == ["weight"]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
)
def test_adaptive_padding(size, kernel, stride, dilation):
    """Output i starts at i·stride − before, where `before` is half of what is missing, rounded down."""
    layer = Conv2dAdaptivePadding(1, 1, kernel, stride, padding=7, dilation=dilation).double()
    x = torch.randn(1, 1, *size, dtype=torch.double)
    out = layer(x)
    outputs = [math.ceil(length / stride) for length in size]
    assert list(out.shape[2:]) == outputs
    before = []
    for length, k, n in zip(size, kernel, outputs, strict=True):
        missing = max((n - 1) * stride + (k - 1) * dilation + 1 - length, 0)
        before.append(missing // 2)
    canvas = F.pad(x, (30, 30, 30, 30))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            total = layer.bias.item()
            for a in range(kernel[0]):
                for b in range(kernel[1]):
                    y = i * stride - before[0] + a * dilation + 30
                    z = j * stride - before[1] + b * dilation + 30
                    total += layer.weight[0, 0, a, b].item() * canvas[0, 0, y, z].item()
            assert out[0, 0, i, j].item() == pytest.approx(total, abs=1e-9)
            if i + j > 3:
                break


def test_hard_swish_is_torchs():
    layer = build_activation_layer({"type": "HSwish", "inplace": True})
    assert isinstance(layer, nn.Hardswish)
    assert layer.inplace
