"""masked_conv2d and MaskedConv2d."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cv.ops import masked_conv
from cv.ops.masked_conv import MaskedConv2d, masked_conv2d
from cv_testing.ops import DEVICES, DTYPES, assert_matches_oracle, check_gradient


@pytest.fixture(params=["as it costs", "gathered"])
def choice(request):
    """These maps are too small to gather pixels of them, unless that costs nothing."""
    if request.param == "as it costs":
        yield
    else:
        with gathering():
            yield


def gathering():
    return mock.patch.multiple(masked_conv, _GATHER_CALLS=0, _COPY=0, _GATHERED_PRODUCT=0.5)


def oracle(x, mask, weight, bias, **options):
    """The whole convolution, and zero where the mask is not positive."""
    out = F.conv2d(x, weight, bias, **options)
    return torch.where((mask > 0)[:, None].expand_as(out), out, torch.zeros_like(out))


def make_inputs(n=2, channels=4, out_channels=6, size=(6, 7), kernel=(3, 3), groups=1):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, *size, generator=rng, dtype=torch.float64)
    weight = torch.randn(out_channels, channels // groups, *kernel, generator=rng, dtype=torch.float64)
    bias = torch.randn(out_channels, generator=rng, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_is_the_convolution_where_the_mask_is(share, dtype, device, choice):
    x, weight, bias = make_inputs()
    mask = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(1)) < share
    assert_matches_oracle(
        lambda x, w, b: masked_conv2d(x, mask.to(x.device), w, b, 1),
        lambda x, w, b: oracle(x, mask, w, b, padding=1),
        (x, weight, bias),
        dtype=dtype,
        device=device,
        backward=True,
        scale=40.0,
    )


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    shared=st.booleans(),
    share=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    gather=st.booleans(),
)
def test_random_shapes(n, groups, kernel, padding, dilation, shared, share, gather):
    x, weight, bias = make_inputs(n, kernel=kernel, groups=groups)
    options = {"padding": padding, "dilation": dilation, "groups": groups}
    size = F.conv2d(x, weight, bias, **options).shape[2:]
    mask = (torch.rand(1 if shared else n, *size, generator=torch.Generator().manual_seed(n)) < share).float()
    with gathering() if gather else contextlib.nullcontext():
        out = masked_conv2d(x, mask, weight, bias, **options)
    expected = oracle(x, mask, weight, bias, **options)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous()
    grad = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad(out, (x, weight, bias), grad),
        torch.autograd.grad(expected, (x, weight, bias), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32], ids=str)
def test_a_mask_of_any_dtype(dtype, choice):
    x, weight, bias = make_inputs()
    mask = torch.zeros(1, 4, 5, dtype=dtype)
    mask[0, 2, 3] = 1
    out = masked_conv2d(x, mask, weight, bias)
    torch.testing.assert_close(out[:, :, 2, 3], F.conv2d(x, weight, bias)[:, :, 2, 3])
    assert (out != 0).sum() == out.shape[0] * out.shape[1]


def test_what_is_not_positive_is_masked(choice):
    x, weight, bias = make_inputs()
    for value in (0.0, -1.0, float("nan")):
        assert (masked_conv2d(x, torch.full((1, 4, 5), value), weight, bias) == 0).all()


def test_nan_outside_the_mask_does_not_reach_the_output(choice):
    x, weight, bias = make_inputs()
    x = x.detach().clone()
    x[:, :, 0] = float("nan")
    for share in (1, 4):  # the mask's rows that are wanted: gathered, and whole
        mask = torch.zeros(1, 6, 7)
        mask[:, 6 - share :] = 1
        assert torch.isfinite(masked_conv2d(x, mask, weight, bias, 1)).all()


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_gradients(share, choice):
    x, weight, bias = make_inputs(n=1, channels=2, out_channels=2, size=(4, 5))
    mask = torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(3)) < share
    check_gradient(lambda x, w, b: masked_conv2d(x, mask, w, b), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda x, w: masked_conv2d(x, mask, w), (x, weight))


def test_few_pixels_of_a_large_map_are_gathered():
    x, weight = torch.randn(1, 64, 64, 64), torch.randn(32, 64, 3, 3)
    mask = torch.rand(1, 64, 64)
    for share, gathers in ((0.0, True), (0.01, True), (0.9, False)):
        with mock.patch.object(masked_conv, "_gathered", wraps=masked_conv._gathered) as gathered:
            out = masked_conv2d(x, mask < share, weight, None, 1)
        assert gathered.called is gathers
        torch.testing.assert_close(
            out, oracle(x, mask < share, weight, None, padding=1), rtol=1e-3, atol=1e-3
        )


def test_compiles_in_one_graph():
    x, weight, bias = make_inputs()
    mask = torch.zeros(1, 6, 7)
    mask[0, 1, 1] = 1
    compiled = torch.compile(
        lambda x, m, w, b: masked_conv2d(x, m, w, b, 1), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x, mask, weight, bias), masked_conv2d(x, mask, weight, bias, 1))


def test_the_layer():
    layer = MaskedConv2d(4, 6, 3, padding=2, dilation=2, groups=2).double()
    x, _, _ = make_inputs()
    torch.testing.assert_close(layer(x), torch.nn.Conv2d.forward(layer, x))
    mask = torch.zeros(2, 6, 7)
    mask[1, 2:4, 3] = 1
    torch.testing.assert_close(
        layer(x, mask), oracle(x, mask, layer.weight, layer.bias, padding=2, dilation=2, groups=2)
    )
    with pytest.raises(ValueError, match="stride must be 1"):
        MaskedConv2d(4, 6, 3, stride=2).double()(x, mask)
    assert MaskedConv2d(4, 6, 3, stride=2).double()(x).shape == (2, 6, 2, 3)


def test_configs_find_it():
    from cv.cnn import build_conv_layer

    assert isinstance(build_conv_layer(dict(type="MaskedConv"), 3, 4, 1), MaskedConv2d)


def test_bad_arguments_are_named():
    x, weight, bias = make_inputs()
    mask = torch.ones(1, 4, 5)
    cases = [
        (TypeError, "mask must be a tensor", (x, None, weight, bias)),
        (AssertionError, r"mask must have shape \(1, 4, 5\) or \(2, 4, 5\)", (x, mask[0], weight, bias)),
        (ValueError, "mask must have shape", (x, torch.ones(3, 4, 5), weight, bias)),
        (ValueError, "features must have shape", (x[0], mask, weight, bias)),
        (ValueError, "weight must have shape", (x, mask, weight[:, :2], bias)),
        (ValueError, "too small", (x[:, :, :2], mask, weight, bias)),
        (ValueError, "stride must be 1", (x, mask, weight, bias, 0, 2)),
    ]
    for error, message, args in cases:
        with pytest.raises(error, match=message):
            masked_conv2d(*args)
    with pytest.raises(ValueError, match="groups must divide"):
        masked_conv2d(x, mask, weight, bias, groups=3)
