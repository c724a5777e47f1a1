"""deform_conv2d and its layers. More of the shared operator is tested in test_modulated_deform_conv.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.checkpoint import load_state_dict
from cv.cnn.deformable import DeformableLayer
from cv.ops import DeformConv2d, DeformConv2dPack, deform_conv2d, modulated_deform_conv2d
from cv_testing import deform_conv_oracle as oracle
from cv_testing.ops import DEVICES, DTYPES, assert_matches_oracle, check_cpu_equals_cuda, check_operator


def make_inputs(*, groups: int = 1, deform_groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x (2, 6, 6, 7), offset and weight (4, 6 / groups, 3, 3) for stride (2, 1) and padding 1."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    offset = oracle.smooth_offsets((2, 18 * deform_groups, 3, 7), 1.5, rng).requires_grad_()
    return normal(2, 6, 6, 7), offset, normal(4, 6 // groups, 3, 3)


def define(x: Tensor, offset: Tensor, weight: Tensor, **options) -> Tensor:
    return oracle.modulated_deform_conv2d(x, offset, None, weight, stride=(2, 1), padding=(1, 1), **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 3)])
def test_is_what_the_paper_defines(groups, deform_groups, dtype, device):
    options = {"groups": groups, "deform_groups": deform_groups}
    assert_matches_oracle(
        lambda x, o, w: deform_conv2d(x, o, w, stride=(2, 1), padding=1, **options),
        lambda x, o, w: define(x, o, w, **options),
        make_inputs(**options),
        device=device,
        dtype=dtype,
        backward=True,
        scale=20.0,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    args = make_inputs()
    x, offset, weight = args
    check_operator(
        lambda x, o, w: deform_conv2d(x, o, w, stride=(2, 1), padding=1),
        args,
        op=torch.ops.cv.deform_conv2d.default,
        op_args=(x, offset, None, weight, None, 2, 1, 1, 1, 1, 1, 1, 1),
        device=device,
        dynamic_shapes=[{0: torch.export.Dim("batch", min=1)}] * 2 + [{}],
    )


@pytest.mark.cuda
def test_cuda_is_cpu():
    check_cpu_equals_cuda(
        lambda x, o, w: deform_conv2d(x, o, w, stride=(2, 1), padding=1), make_inputs(), scale=20.0
    )


def test_is_v2_with_masks_of_one():
    x, offset, weight = make_inputs()
    ones = torch.ones(2, 9, 3, 7, dtype=torch.float64)
    expected = modulated_deform_conv2d(x, offset, ones, weight, None, (2, 1), 1)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, (2, 1), 1), expected, rtol=0, atol=0)


@pytest.mark.parametrize("step", [1, 2, 64])
def test_im2col_step_changes_nothing(step):
    x, offset, weight = make_inputs()
    expected = deform_conv2d(x, offset, weight, (2, 1), 1)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, (2, 1), 1, im2col_step=step), expected)


def test_there_is_no_bias():
    x, offset, weight = make_inputs()
    with pytest.raises(AssertionError, match="bias must be False"):
        deform_conv2d(x, offset, weight, (2, 1), 1, bias=True)
    with pytest.raises(ValueError, match="im2col_step must be positive, got 0"):
        deform_conv2d(x, offset, weight, (2, 1), 1, im2col_step=0)
    with pytest.raises(AssertionError, match="bias must be False"):
        DeformConv2d(4, 4, 3, bias=True)
    assert not hasattr(DeformConv2d(4, 4, 3), "bias")


def test_layers_refuse_channels_that_groups_do_not_divide():
    with pytest.raises(AssertionError, match="in_channels must be divisible by groups, got 3 and 2"):
        DeformConv2d(3, 2, 3, groups=2)
    with pytest.raises(AssertionError, match="out_channels must be divisible by groups, got 4 and 3"):
        DeformConv2d(3, 4, 3, groups=3)


def test_layer_is_the_function():
    x, offset, _ = (t.detach().float() for t in make_inputs(deform_groups=2, groups=2))
    layer = DeformConv2d(6, 4, 3, (2, 1), 1, groups=2, deform_groups=2)
    expected = deform_conv2d(x, offset, layer.weight, (2, 1), 1, 1, 2, 2)
    torch.testing.assert_close(layer(x, offset), expected, rtol=0, atol=0)
    assert isinstance(layer, DeformableLayer)


def test_an_input_without_an_output_pixel_gives_an_empty_output():
    layer = DeformConv2d(3, 4, 3)
    assert layer(torch.zeros(2, 3, 2, 2), torch.zeros(2, 18, 0, 0)).shape == (2, 4, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 9)])
def test_an_input_smaller_than_the_kernel_is_as_if_padded_and_cropped(size):
    layer = DeformConv2d(3, 4, 3, padding=1)
    x, offset = torch.randn(2, 3, *size), torch.randn(2, 18, *size)
    pad = [max(3 - s, 0) for s in size]
    padded = layer(F.pad(x, (0, pad[1], 0, pad[0])), F.pad(offset, (0, pad[1], 0, pad[0])))
    torch.testing.assert_close(layer(x, offset), padded[:, :, : size[0], : size[1]])


def test_a_new_pack_is_a_convolution():
    layer = DeformConv2dPack(6, 4, 3, stride=2, padding=1, deform_groups=2)
    x = torch.randn(2, 6, 9, 8)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, stride=2, padding=1))
    assert layer.conv_offset.weight.shape == (36, 6, 3, 3)
    assert isinstance(layer, DeformableLayer)
    assert not hasattr(layer, "bias")


def test_pack_uses_and_trains_its_offset_branch():
    layer = DeformConv2dPack(3, 4, 3, padding=1).double()
    nn.init.normal_(layer.conv_offset.weight, std=0.2)
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    expected = oracle.modulated_deform_conv2d(x, layer.conv_offset(x), None, layer.weight, padding=(1, 1))
    out = layer(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert layer.conv_offset.weight.grad.abs().sum() > 0
    layer.init_offset()
    assert (layer.conv_offset.weight == 0).all()


def load(layer: nn.Module, state: dict[str, Tensor], metadata: dict[str, int]) -> None:
    """As a loader calls it that shows every layer the whole state dict, like that of cv.cnn."""
    layer._load_from_state_dict(state, "conv2.", metadata, True, [], [], [])


@pytest.mark.parametrize("metadata", [{}, {"version": 1}])
def test_old_state_dicts_are_upgraded(metadata):
    layer = DeformConv2dPack(3, 4, 3)
    keys = {"conv2.weight", "conv2.conv_offset.weight", "conv2.conv_offset.bias"}
    old = {"conv2.weight": torch.ones(4, 3, 3, 3), "conv2_offset.weight": torch.ones(18, 3, 3, 3),
           "conv2_offset.bias": torch.ones(18)}  # fmt: skip
    load(layer, old, metadata)
    assert set(old) == keys
    assert (layer.weight == 1).all()


def test_new_state_dicts_are_left_alone():
    state = {"conv2.weight": torch.ones(4, 3, 3, 3), "conv2_offset.weight": torch.ones(1)}
    load(DeformConv2dPack(3, 4, 3), state, {"version": 2})
    assert set(state) == {"conv2.weight", "conv2_offset.weight"}


def test_the_old_name_of_deform_groups_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="deformable_groups"):
        assert DeformConv2d(6, 4, 3, deformable_groups=3).deform_groups == 3


def test_the_loader_of_cv_cnn_upgrades_old_checkpoints():
    model = nn.Module()
    model.conv2 = DeformConv2dPack(3, 4, 3)
    old = {"conv2.weight": torch.ones(4, 3, 3, 3), "conv2_offset.weight": torch.ones(18, 3, 3, 3),
           "conv2_offset.bias": torch.ones(18)}  # fmt: skip
    load_state_dict(model, old, strict=True)
    assert (model.conv2.conv_offset.weight == 1).all()
