"""Patches: against convolutions, and against merging written out patch by patch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cv.cnn.bricks.transformer import AdaptivePadding, PatchEmbed, PatchMerging


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from(["corner", "same"]),
)
def test_adaptive_padding_gives_a_window_for_each_step(size, kernel, stride, dilation, mode):
    layer = AdaptivePadding(kernel, stride, dilation, mode)
    x = torch.ones(1, 2, *size)
    padded = layer(x)
    rows, columns = layer.get_pad_shape(size)
    assert padded.shape == (1, 2, size[0] + rows, size[1] + columns)
    windows = F.unfold(padded, kernel, dilation, 0, stride)
    assert windows.shape[2] == -(-size[0] // stride[0]) * -(-size[1] // stride[1])
    top, left = (rows // 2, columns // 2) if mode == "same" else (0, 0)
    torch.testing.assert_close(padded[..., top : top + size[0], left : left + size[1]], x)
    assert padded.sum() == x.sum()


def test_adaptive_padding_adds_the_odd_one_last():
    x = torch.ones(1, 1, 3, 3)
    assert AdaptivePadding(2, 2, padding="same")(x)[0, 0].tolist()[3] == [0, 0, 0, 0]
    padded = AdaptivePadding(4, 4, padding="same")(torch.ones(1, 1, 2, 1))[0, 0]
    assert padded.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("error", [AssertionError, ValueError])
def test_adaptive_padding_refuses_another_mode(error):
    with pytest.raises(error, match="padding must be 'corner' or 'same', got 'valid'"):
        AdaptivePadding(2, 2, padding="valid")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [
        ((32, 48), 16, 16, "corner", 1),
        ((30, 45), 16, None, "corner", 1),
        ((30, 45), 7, 4, "same", 1),
        ((30, 45), (7, 5), (4, 2), (3, 2), (1, 2)),
        ((30, 45), 7, 4, 3, 1),
    ],
)
def test_patch_embed_is_a_convolution_row_after_row(size, kernel, stride, padding, dilation):
    layer = PatchEmbed(
        3, 8, None, kernel, stride, padding, dilation, norm_cfg={"type": "LN"}, input_size=size
    )
    x = torch.randn(2, 3, *size)
    out, grid = layer(x)
    conv = layer.projection
    padded = layer.adaptive_padding(x) if isinstance(padding, str) else x
    expected = F.conv2d(padded, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)
    assert grid == tuple(expected.shape[2:]) == layer.init_out_size
    assert layer.init_input_size == size
    rows = torch.stack([layer.norm(expected[:, :, y, z]) for y in range(grid[0]) for z in range(grid[1])], 1)
    torch.testing.assert_close(out, rows, rtol=1e-5, atol=1e-5)


def test_patch_embed_has_the_parameters_of_checkpoints():
    layer = PatchEmbed(kernel_size=4, stride=4, embed_dims=6, norm_cfg={"type": "LN"})
    names = {"projection.weight", "projection.bias", "norm.weight", "norm.bias"}
    assert set(layer.state_dict()) == names
    layer = PatchEmbed(padding=0, bias=False)
    assert set(layer.state_dict()) == {"projection.weight"}
    assert layer.adaptive_padding is layer.norm is layer.init_out_size is layer.init_input_size is None
    assert layer.embed_dims == 768


@pytest.mark.parametrize("as_type", [tuple, list, torch.Size])
def test_patch_merging_puts_neighbours_side_by_side(as_type):
    layer = PatchMerging(3, 5)
    x = torch.randn(2, 4 * 6, 3)
    out, grid = layer(x, as_type((4, 6)))
    assert grid == (2, 3)
    image = x.reshape(2, 4, 6, 3)
    for row in range(2):
        for column in range(3):
            block = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]  # (N, 2, 2, C)
            merged = block.permute(0, 3, 1, 2).flatten(1)  # channel first
            expected = layer.reduction(layer.norm(merged))
            torch.testing.assert_close(out[:, row * 3 + column], expected)


def test_patch_merging_pads_odd_grids_and_overlaps():
    layer = PatchMerging(4, 8)
    assert layer(torch.randn(1, 15, 4), (5, 3))[1] == (3, 2)
    layer = PatchMerging(4, 8, kernel_size=3, stride=2, padding=(1, 1), norm_cfg=None, bias=True)
    x = torch.randn(1, 30, 4)
    out, grid = layer(x, (5, 6))
    assert grid == (3, 3)
    weight = layer.reduction.weight.reshape(8, 4, 3, 3)
    image = x.transpose(1, 2).reshape(1, 4, 5, 6)
    expected = F.conv2d(image, weight, layer.reduction.bias, 2, 1)
    torch.testing.assert_close(out, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_patch_merging_has_the_parameters_of_checkpoints():
    assert set(PatchMerging(4, 8).state_dict()) == {"norm.weight", "norm.bias", "reduction.weight"}
    assert isinstance(PatchMerging(4, 8).norm, nn.LayerNorm)


def test_patch_merging_refuses_a_wrong_grid():
    layer = PatchMerging(4, 8)
    with pytest.raises(AssertionError, match=r"x must have shape \(N, 3 \* 4, C\), got \(1, 15, 4\)"):
        layer(torch.randn(1, 15, 4), (3, 4))
    with pytest.raises(ValueError, match=r"input_size must be a sequence \(height, width\), got 15"):
        layer(torch.randn(1, 15, 4), 15)
