"""CrissCrossAttention against loops over pixels."""

from __future__ import annotations

import importlib
from importlib import metadata

import pytest
import torch
from torch import Tensor

from cv.cnn import Scale
from cv.ops import CrissCrossAttention


def layer_and_input(*shape: int) -> tuple[CrissCrossAttention, Tensor]:
    torch.manual_seed(0)
    layer = CrissCrossAttention(shape[1]).double()
    with torch.no_grad():
        layer.gamma.scale.fill_(0.7)
    return layer, torch.randn(*shape, dtype=torch.float64)


def oracle(layer: CrissCrossAttention, x: Tensor) -> Tensor:
    """Pixel by pixel: softmax over the pixels of its cross, each once."""
    n, _, height, width = x.shape
    query, key, value = layer.query_conv(x), layer.key_conv(x), layer.value_conv(x)
    out = x.clone()
    for b in range(n):
        for h in range(height):
            for w in range(width):
                cross = [(i, w) for i in range(height) if i != h] + [(h, j) for j in range(width)]
                scores = torch.stack([query[b, :, h, w] @ key[b, :, i, j] for i, j in cross])
                weights = torch.softmax(scores, 0)
                attended = sum(
                    weight * value[b, :, i, j] for weight, (i, j) in zip(weights, cross, strict=True)
                )
                out[b, :, h, w] += 0.7 * attended
    return out


@pytest.mark.parametrize("shape", [(2, 16, 3, 4), (1, 8, 1, 5), (1, 9, 4, 1), (1, 3, 1, 1)])
def test_against_loops(shape: tuple[int, ...]) -> None:
    layer, x = layer_and_input(*shape)
    torch.testing.assert_close(layer(x), oracle(layer, x), rtol=1e-12, atol=1e-12)


def test_the_identity_right_after_construction() -> None:
    layer = CrissCrossAttention(16)
    x = torch.randn(2, 16, 5, 6)
    assert torch.equal(layer(x), x)
    assert layer.gamma.scale.item() == 0


def test_parameter_names_are_those_of_checkpoints() -> None:
    layer = CrissCrossAttention(32)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {
        "query_conv.weight": (4, 32, 1, 1),
        "query_conv.bias": (4,),
        "key_conv.weight": (4, 32, 1, 1),
        "key_conv.bias": (4,),
        "value_conv.weight": (32, 32, 1, 1),
        "value_conv.bias": (32,),
        "gamma.scale": (),
    }
    assert isinstance(layer.gamma, Scale)
    assert "in_channels=32" in repr(layer)


def test_gradients() -> None:
    layer, x = layer_and_input(1, 4, 2, 3)
    x.requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype) -> None:
    layer, x = layer_and_input(1, 8, 4, 5)
    expected = layer(x)
    actual = layer.to(dtype)(x.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=5e-2, atol=5e-2)


def test_compile_and_layout() -> None:
    layer, x = layer_and_input(2, 8, 4, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), layer(x))
    assert layer(x[:0]).shape == (0, 8, 4, 5)


def test_the_entry_point_names_the_class() -> None:
    (entry,) = metadata.entry_points(group="cv.cnn.plugin_layers", name="CrissCrossAttention")
    module, _, name = entry.value.partition(":")
    assert getattr(importlib.import_module(module), name) is CrissCrossAttention


def test_errors() -> None:
    with pytest.raises(ValueError, match="in_channels must be positive, got 0"):
        CrissCrossAttention(0)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, H, W\), got \(1, 4, 2, 2\)"):
        CrissCrossAttention(8)(torch.zeros(1, 4, 2, 2))
