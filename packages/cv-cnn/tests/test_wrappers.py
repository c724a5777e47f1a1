"""Layers that accept inputs without elements."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cv.cnn import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d, Linear, MaxPool2d, MaxPool3d
from cv.cnn.bricks.wrappers import NewEmptyTensorOp, obsolete_torch_version

CASES = [
    (Conv2d, nn.Conv2d, (3, 4, 3), dict(stride=2, padding=1, dilation=2), (3, 9, 8)),
    (Conv3d, nn.Conv3d, (3, 4, 3), dict(stride=2, padding=1), (3, 9, 8, 7)),
    (ConvTranspose2d, nn.ConvTranspose2d, (3, 4, 3), dict(stride=2, padding=1, output_padding=1), (3, 4, 5)),
    (ConvTranspose3d, nn.ConvTranspose3d, (3, 4, 3), dict(stride=2), (3, 4, 5, 3)),
    (MaxPool2d, nn.MaxPool2d, (3,), dict(stride=2, padding=1, ceil_mode=True), (3, 9, 8)),
    (MaxPool3d, nn.MaxPool3d, (2,), dict(), (3, 9, 8, 7)),
    (Linear, nn.Linear, (6, 4), dict(), (5, 6)),
]


@pytest.mark.parametrize(("wrapped", "plain", "args", "kwargs", "shape"), CASES)
def test_same_as_torch(wrapped, plain, args, kwargs, shape):
    torch.manual_seed(0)
    layer, reference = wrapped(*args, **kwargs), plain(*args, **kwargs)
    assert isinstance(layer, plain)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, *shape)
    assert torch.equal(layer(x), reference(x))
    assert torch.equal(layer(x[0]), reference(x[0]))  # without a batch


@pytest.mark.parametrize(("wrapped", "plain", "args", "kwargs", "shape"), CASES)
def test_empty_batch(wrapped, plain, args, kwargs, shape):
    layer = wrapped(*args, **kwargs)
    x = torch.randn(0, *shape, requires_grad=True)
    out = layer(x)
    assert out.shape == (0, *layer(torch.randn(1, *shape)).shape[1:])
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert all((p.grad == 0).all() for p in layer.parameters())
    layer.eval()
    assert layer(x).shape == out.shape


@pytest.mark.parametrize("with_batch", [True, False])
@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        (Conv2d(3, 4, 3, stride=2, padding=1), (0, 8), (0, 4)),
        (Conv2d(3, 4, 3, padding="same"), (5, 0), (5, 0)),
        (Conv2d(3, 4, 1, padding="valid"), (0, 8), (0, 8)),
        (Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), (0, 8, 7), (0, 8, 7)),
        (ConvTranspose2d(3, 4, 2, stride=2), (0, 5), (0, 10)),
        (ConvTranspose3d(3, 4, 2, stride=2), (5, 0, 2), (10, 0, 4)),
        (MaxPool2d(2), (0, 8), (0, 4)),
        (MaxPool2d(3, 2, 1), (0, 8), (0, 4)),
        (MaxPool2d(3, 2, ceil_mode=True), (0, 8), (0, 4)),
        (MaxPool3d(2), (4, 0, 8), (2, 0, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_empty_in_space(layer, size, expected, with_batch):
    layer.zero_grad()
    batch = (2,) if with_batch else ()
    x = torch.zeros(*batch, 3, *size, requires_grad=True)
    out = layer(x)
    channels = getattr(layer, "out_channels", 3)
    assert out.shape == (*batch, channels, *expected)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert all((p.grad == 0).all() for p in layer.parameters())


def test_indices_of_an_empty_pooling():
    values, indices = MaxPool2d(2, return_indices=True)(torch.zeros(1, 3, 0, 4))
    assert values.shape == indices.shape == (1, 3, 0, 2)
    assert indices.dtype == torch.int64


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(3, 4, 3), (1, 3, 0, 8)),  # the kernel does not fit
        (Conv2d(3, 4, 3, padding=2), (1, 3, 0, 8)),  # an output without an input
        (ConvTranspose2d(3, 4, 3), (1, 3, 0, 8)),
        (MaxPool2d(2, padding=1), (1, 3, 0, 8)),
        (MaxPool2d(3, 2, 1, ceil_mode=True), (1, 3, 0, 8)),
    ],
)
def test_what_has_no_meaning_is_an_error(layer, shape):
    with pytest.raises(RuntimeError):
        layer(torch.zeros(shape))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    ceil_mode=st.booleans(),
    pad=st.integers(0, 2),
)
def test_sizes_agree_with_torch(size, kernel, stride, dilation, ceil_mode, pad):
    """The rule for the size is torch's: an axis that comes out with elements does so as torch makes it."""
    layers = [Conv2d(1, 2, kernel, stride, pad, dilation)]
    if pad <= kernel // 2:
        layers.append(MaxPool2d(kernel, stride, pad, dilation, ceil_mode=ceil_mode))
    for layer in layers:
        try:
            out = layer(torch.zeros(1, 1, *size))
        except RuntimeError:
            continue
        for axis, length in enumerate(size):
            if length and out.shape[2 + axis]:
                full = [9, 9]
                full[axis] = length
                assert out.shape[2 + axis] == layer(torch.zeros(1, 1, *full)).shape[2 + axis]


def test_new_empty_tensor_op():
    x = torch.zeros(0, 3, requires_grad=True)
    out = NewEmptyTensorOp.apply(x, (0, 5))
    assert out.shape == (0, 5)
    out.sum().backward()
    assert x.grad.shape == (0, 3)


def test_obsolete_torch_version():
    assert obsolete_torch_version("parrots", (1, 4))
    assert obsolete_torch_version((1, 4), (1, 4))
    assert not obsolete_torch_version((2, 10), (1, 4))
