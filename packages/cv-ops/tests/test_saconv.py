"""SAConv2d."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cv.cnn import ConvAWS2d
from cv.ops import deform_conv2d
from cv.ops.saconv import SAConv2d
from cv_testing.ops import DEVICES


def make_layer(seed: int = 0, **options) -> SAConv2d:
    """With random numbers where the layer starts with zeros."""
    torch.manual_seed(seed)
    layer = SAConv2d(4, 6, 3, **options).double()
    for name, p in layer.named_parameters():
        if name != "weight":
            torch.nn.init.normal_(p, std=0.3)
    return layer


def oracle(layer: SAConv2d, x: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Section 4 of the paper, step by step."""
    x = x + F.conv2d(x.mean((2, 3))[..., None, None], layer.pre_context.weight, layer.pre_context.bias)
    around = F.unfold(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5).view(*x.shape[:2], 25, -1).mean(2).view_as(x)
    s = F.conv2d(around, layer.switch.weight, layer.switch.bias, stride)
    flat = layer.weight.flatten(1)
    std = (flat.var(1) + 1e-5).sqrt()
    w = ((flat - flat.mean(1, keepdim=True)) / std[:, None]).view_as(layer.weight)
    out = 0
    for share, weight, times, name in (
        (s, w, 1, "offset_s"),
        (1 - s, w + layer.weight_diff, 3, "offset_l"),
    ):
        if layer.use_deform:
            predictor = getattr(layer, name)
            offset = F.conv2d(around, predictor.weight, predictor.bias, stride, 1)
            y = deform_conv2d(x, offset, weight, stride, padding * times, dilation * times)
        else:
            y = F.conv2d(x, weight, None, stride, padding * times, dilation * times)
        out = out + share * y
    if layer.bias is not None:
        out = out + layer.bias[:, None, None]
    return out + F.conv2d(
        out.mean((2, 3))[..., None, None], layer.post_context.weight, layer.post_context.bias
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("use_deform", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 2, 2)])
def test_is_what_the_paper_defines(stride, padding, dilation, bias, use_deform, device):
    layer = make_layer(
        stride=stride, padding=padding, dilation=dilation, bias=bias, use_deform=use_deform
    ).to(device)
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    torch.testing.assert_close(layer(x), oracle(layer, x, stride, padding, dilation))


@pytest.mark.parametrize("use_deform", [False, True])
def test_starts_as_the_standardised_convolution(use_deform):
    torch.manual_seed(0)
    layer = SAConv2d(4, 6, 3, padding=1, use_deform=use_deform)
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(layer(x), ConvAWS2d.forward(layer, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_deform", [False, True])
def test_every_parameter_learns(use_deform):
    layer = make_layer(padding=1, use_deform=use_deform)
    layer(torch.randn(2, 4, 7, 7, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_names_of_checkpoints():
    plain = {"weight", "weight_diff", "weight_gamma", "weight_beta"}
    plain |= {f"{c}.{p}" for c in ("switch", "pre_context", "post_context") for p in ("weight", "bias")}
    assert set(SAConv2d(4, 6, 3, bias=False).state_dict()) == plain
    deform = SAConv2d(4, 6, 3, bias=False, use_deform=True)
    offsets = {f"{c}.{p}" for c in ("offset_s", "offset_l") for p in ("weight", "bias")}
    assert set(deform.state_dict()) == plain | offsets
    assert deform.offset_s.weight.shape == (18, 4, 3, 3)
    assert deform.weight_diff.shape == deform.weight.shape


def test_a_checkpoint_of_a_plain_convolution_is_standardised():
    plain, layer = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False), SAConv2d(4, 6, 3, padding=1, bias=False)
    layer.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5)])
def test_tiny_maps(size):
    out = make_layer(padding=1, use_deform=True)(torch.randn(1, 4, *size, dtype=torch.float64))
    assert out.shape == (1, 6, *size)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(), (0,), (4, 6, 6), (2, 3, 6, 6), (1, 4, 0, 6), (1, 4, 6, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4, H, W\) and at least one pixel, got \("):
        make_layer(padding=1)(torch.zeros(shape, dtype=torch.float64))


def test_no_images_give_none():
    assert make_layer(padding=1)(torch.zeros(0, 4, 5, 5, dtype=torch.float64)).shape == (0, 6, 5, 5)


@pytest.mark.parametrize("use_deform", [False, True])
def test_autocast(use_deform):
    layer = make_layer(padding=1, use_deform=use_deform).float()
    x = torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out.float(), layer(x), rtol=0.1, atol=0.2)


def test_configs_find_it():
    from cv.cnn import build_conv_layer

    layer = build_conv_layer(dict(type="SAC", use_deform=True), 4, 6, 3, padding=1)
    assert isinstance(layer, SAConv2d)
    assert layer.use_deform
