"""modulated_deform_conv2d and its layers, and the operator it shares with v1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cv.cnn.deformable import DeformableLayer
from cv.ops import ModulatedDeformConv2d, ModulatedDeformConv2dPack, modulated_deform_conv2d
from cv_testing import deform_conv_oracle as oracle
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
    check_second_derivative_is_refused,
)

OP = torch.ops.cv.deform_conv2d.default
BACKWARD_OP = torch.ops.cv.deform_conv2d_backward.default


def make_inputs(
    *,
    n: int = 2,
    channels: int = 6,
    out_channels: int = 4,
    size: tuple[int, int] = (6, 7),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
    spread: float = 1.5,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, offset, mask, weight, bias in float64, all requiring grad."""
    rng = torch.Generator().manual_seed(seed)
    out_h, out_w = (
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    taps = kernel[0] * kernel[1]

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=rng, dtype=torch.float64) * scale).requires_grad_()

    return (
        normal(n, channels, *size),
        oracle.smooth_offsets((n, 2 * deform_groups * taps, out_h, out_w), spread, rng).requires_grad_(),
        torch.rand(
            n, deform_groups * taps, out_h, out_w, generator=rng, dtype=torch.float64
        ).requires_grad_(),
        normal(out_channels, channels // groups, *kernel, scale=(channels // groups * taps) ** -0.5),
        normal(out_channels),
    )


def bind(fn, **options):
    return lambda x, offset, mask, weight, bias: fn(x, offset, mask, weight, bias, **options)


GEOMETRIES = {
    "plain": {},
    "stride": {"stride": (2, 1), "size": (7, 5)},
    "dilation": {"dilation": (2, 3), "padding": (2, 3)},
    "pointwise": {"kernel": (1, 1), "padding": (0, 0)},
    "wide kernel": {"kernel": (1, 5), "padding": (0, 2)},
    "groups": {"groups": 2},
    "deform groups": {"deform_groups": 3},
    "both kinds of groups, neither dividing the other": {"groups": 2, "deform_groups": 3},
    "depthwise": {"groups": 6, "out_channels": 6},
    "depthwise, more channels than a vector": {"channels": 37, "groups": 37, "out_channels": 37},
    "depthwise with multiplier": {"groups": 6, "out_channels": 12, "deform_groups": 2},
    "one channel": {"channels": 1, "out_channels": 1},
    "several blocks of pixels": {"size": (11, 17), "out_channels": 7},
    "channels beyond a vector": {"channels": 37, "out_channels": 5, "size": (4, 5)},
    "far offsets": {"spread": 20.0},
    "input smaller than the kernel": {"size": (2, 2), "padding": (1, 1)},
    "one output pixel": {"size": (3, 3), "padding": (0, 0)},
}


def split(geometry: dict) -> dict:
    return {k: v for k, v in ({"padding": (1, 1)} | geometry).items()
            if k in ("stride", "padding", "dilation", "groups", "deform_groups")}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_is_what_the_paper_defines(geometry, dtype, device):
    options = split(geometry)
    assert_matches_oracle(
        bind(modulated_deform_conv2d, **options),
        bind(oracle.modulated_deform_conv2d, **options),
        make_inputs(**geometry),
        device=device,
        dtype=dtype,
        backward=True,
        scale=20.0,  # gradients of the weight add N * H_out * W_out terms
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_geometry_is_what_the_paper_defines(data):
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    groups, deform_groups = data.draw(st.sampled_from([1, 2, 3])), data.draw(st.sampled_from([1, 2, 3]))
    geometry = {
        "n": data.draw(st.integers(1, 3)),
        "channels": 6 * data.draw(st.sampled_from([1, 3, 6])),
        "out_channels": 6,
        "kernel": data.draw(pair(1, 3)),
        "size": data.draw(pair(5, 9)),
        "stride": data.draw(pair(1, 3)),
        "padding": data.draw(pair(0, 2)),
        "dilation": data.draw(pair(1, 2)),
        "groups": groups,
        "deform_groups": deform_groups,
        "spread": data.draw(st.sampled_from([0.3, 2.0, 8.0])),
        "seed": data.draw(st.integers(0, 1000)),
    }
    options = split(geometry)
    assert_matches_oracle(
        bind(modulated_deform_conv2d, **options),
        bind(oracle.modulated_deform_conv2d, **options),
        make_inputs(**geometry),
        dtype=torch.float64,
        backward=True,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_a_map_of_many_chunks_is_computed_like_a_small_one(device):
    # 900 columns of 8 bytes a pixel and 4 x 2700 pixels are 74 MiB: several chunks (on CUDA, which takes
    # 64 MiB at a time, two), cut inside and across images
    geometry = {"n": 4, "channels": 100, "out_channels": 3, "size": (60, 45)}
    assert_matches_oracle(
        bind(modulated_deform_conv2d, padding=1),
        bind(oracle.modulated_deform_conv2d, padding=(1, 1)),
        make_inputs(**geometry),
        dtype=torch.float64,
        device=device,
        backward=True,
        scale=100.0,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2])
def test_without_offsets_and_with_unit_masks_it_is_conv2d(groups, device):
    x, offset, mask, weight, bias = (t.detach().to(device) for t in make_inputs(groups=groups, stride=(2, 1)))
    out = modulated_deform_conv2d(
        x, offset * 0, torch.ones_like(mask), weight, bias, stride=(2, 1), padding=1, groups=groups
    )
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, stride=(2, 1), padding=1, groups=groups))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (-2, 3), (0, -1)])
def test_integer_offsets_shift_the_input(dy, dx, device):
    x, offset, mask, weight, bias = (t.detach().to(device) for t in make_inputs())
    shift = offset.new_tensor([dy, dx]).repeat(9).reshape(1, 18, 1, 1).expand_as(offset)
    shifted = F.pad(x, (4, 4, 4, 4)).roll((-dy, -dx), (2, 3))[:, :, 3:-3, 3:-3]  # 1 pixel of margin = padding
    out = modulated_deform_conv2d(x, shift, torch.ones_like(mask), weight, bias, padding=1)
    torch.testing.assert_close(out, F.conv2d(shifted, weight, bias))


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    args = make_inputs(n=2, channels=4, out_channels=2, size=(4, 5), deform_groups=2, groups=2)
    options = (1, 1, 1, 1, 1, 1, 2, 2)
    dynamic = [{0: torch.export.Dim("batch", min=1)}] * 3 + [{}, {}]
    check_operator(
        bind(modulated_deform_conv2d, padding=1, groups=2, deform_groups=2),
        args,
        op=OP,
        op_args=(*args, *options),
        device=device,
        dynamic_shapes=dynamic,
    )


@pytest.mark.parametrize(
    "wanted", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_backward_operator_passes_opcheck(wanted, channels_last):
    x, offset, mask, weight, _ = (t.detach() for t in make_inputs())
    if channels_last:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    grad = torch.ones(2, 4, 6, 7, dtype=torch.float64)
    args = (grad, x, offset, mask, weight, *[1] * 8, *map(bool, wanted), False)
    assert set(torch.library.opcheck(BACKWARD_OP, args).values()) == {"SUCCESS"}


def test_second_derivative_is_refused():
    check_second_derivative_is_refused(bind(modulated_deform_conv2d, padding=1), make_inputs())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [6, 40])
def test_every_instruction_set_agrees(channels, dtype):
    check_every_cpu_isa(bind(modulated_deform_conv2d, padding=1), make_inputs(channels=channels), dtype=dtype)


# How the CPU cuts its work: blocks of at most 1024 pixels and 4 MiB of columns, sums for slices of them.
CUTS = {
    "one block": {"channels": 40, "size": (20, 20)},
    "parts of one image": {"n": 1, "channels": 20, "out_channels": 5, "size": (48, 40)},
    "parts of images, groups": {"n": 3, "channels": 40, "groups": 2, "size": (36, 30), "deform_groups": 2},
    "several images in a block": {"n": 40, "channels": 20, "size": (6, 5)},
    "taps apart": {"n": 1, "channels": 64, "out_channels": 16, "size": (12, 11)},
    "taps apart, parts": {"n": 1, "channels": 64, "out_channels": 200, "size": (37, 31), "kernel": (2, 3)},
    "depthwise, one image": {"n": 1, "channels": 20, "out_channels": 20, "groups": 20, "size": (40, 32)},
    "depthwise, images": {"n": 3, "channels": 20, "out_channels": 40, "groups": 20, "size": (25, 20)},
}


@pytest.mark.parametrize("geometry", CUTS.values(), ids=CUTS.keys())
def test_work_that_is_cut_gives_what_the_paper_defines(geometry):
    options = split(geometry)
    assert_matches_oracle(
        bind(modulated_deform_conv2d, **options),
        bind(oracle.modulated_deform_conv2d, **options),
        make_inputs(**geometry),
        dtype=torch.float64,
        backward=True,
        scale=100.0,
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("geometry", CUTS.values(), ids=CUTS.keys())
def test_results_do_not_depend_on_the_number_of_threads(geometry, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, *others = (a.detach().float() for a in make_inputs(**geometry))
    leaves = [a.requires_grad_() for a in (x.contiguous(memory_format=layout), *others)]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            out = modulated_deform_conv2d(*leaves, **split(geometry))
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaves[:4])))
    finally:
        torch.set_num_threads(before)
    # torch's matrix product itself may round otherwise on one thread; a depthwise convolution has none
    rounding = 0.0 if geometry.get("groups") == geometry["channels"] else 2e-6
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            atol = rounding * float(expected.abs().max())
            torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_in_channels_last_out(device):
    x, offset, mask, weight, bias = (t.detach().to(device) for t in make_inputs())
    expected = modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = modulated_deform_conv2d(last, offset, mask, weight, bias, padding=1)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    (grad,) = torch.autograd.grad(out.sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_positions_that_are_not_finite_or_far_away_read_zero(value, device):
    x, offset, mask, weight, bias = (t.detach().to(device) for t in make_inputs(channels=20))
    offset[0, 0] = value
    zeroed = mask.clone()
    zeroed[0, 0] = 0
    ready = offset.clone()
    ready[0, 0] = 0
    out = modulated_deform_conv2d(x, offset.requires_grad_(), mask, weight, bias, padding=1)
    torch.testing.assert_close(out, modulated_deform_conv2d(x, ready, zeroed, weight, bias, padding=1))
    (grad,) = torch.autograd.grad(out.sum(), offset)
    assert torch.isfinite(grad).all()
    assert (grad[0, :2] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [3, 20])
def test_a_position_exactly_one_pixel_outside_has_no_gradient(channels, device):
    x = torch.ones(1, channels, 4, 4, dtype=torch.float64, device=device)
    weight = torch.ones(1, channels, 1, 1, dtype=torch.float64, device=device)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.float64, device=device)
    offset = torch.zeros(1, 2, 4, 4, dtype=torch.float64, device=device)
    offset[0, 0, 0] = -1.0  # y of the first row
    offset[0, 1, :, 0] = -1.0  # x of the first column
    out = modulated_deform_conv2d(x, offset.requires_grad_(), mask, weight)
    (grad,) = torch.autograd.grad(out.sum(), offset)
    assert (out[0, 0, 0] == 0).all()
    assert (out[0, 0, :, 0] == 0).all()
    assert (grad[0, 0, 0] == 0).all()
    assert (grad[0, 1, :, 0] == 0).all()


@pytest.mark.parametrize("channels", [3, 20])
def test_a_nan_in_the_input_stays_where_it_is_read(channels):
    x, offset, mask, weight, bias = (t.detach() for t in make_inputs(channels=channels, n=1))
    x[0, 0, 0, 0] = float("nan")
    out = modulated_deform_conv2d(x, offset * 0, mask, weight, bias, padding=1)
    touched = torch.isnan(out).any(dim=1)[0]
    assert touched[:2, :2].all()
    assert not touched[3:].any()
    assert not touched[:, 3:].any()


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(device):
    inputs = [t.detach().to(device) for t in make_inputs()]
    x, offset, mask = (t[:0].requires_grad_() for t in inputs[:3])
    weight, bias = (t.requires_grad_() for t in inputs[3:])
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1)
    assert out.shape == (0, 4, 6, 7)
    grads = torch.autograd.grad(out.sum(), (x, offset, mask, weight, bias))
    assert [g.shape for g in grads] == [t.shape for t in (x, offset, mask, weight, bias)]
    assert all((g == 0).all() for g in grads)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16)])
def test_autocast_computes_in_the_lower_dtype(device, dtype):
    args = make_inputs()
    x, offset, mask, weight, bias = (t.detach().float().requires_grad_() for t in args)
    with torch.autocast(device, dtype):
        out = modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1), rtol=0.05, atol=0.05
    )
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for geometry in GEOMETRIES.values():
            check_cpu_equals_cuda(
                bind(modulated_deform_conv2d, **split(geometry)), make_inputs(**geometry), scale=20.0
            )
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(bind(modulated_deform_conv2d, padding=1), make_inputs())


BAD_ARGUMENTS = [
    ({"mask": None}, TypeError, "mask of modulated_deform_conv2d must be a tensor, got None"),
    ({"offset": None}, TypeError, "offset of modulated_deform_conv2d must be a tensor, got NoneType"),
    ({"input": torch.zeros(2, 6, 6)}, ValueError, r"input must have shape \(N, C, H, W\), got \(2, 6, 6\)"),
    ({"input": [1.0]}, TypeError, "input of modulated_deform_conv2d must be a tensor, got list"),
    ({"input": torch.zeros(2, 6, 6, 7, dtype=torch.int32)}, TypeError, "floating dtype, got torch.int32"),
    ({"weight": torch.zeros(4, 6, 3)}, ValueError, r"weight must have shape \(C_out, C / groups"),
    ({"weight": torch.zeros(4, 5, 3, 3)}, ValueError, r"weight must have shape \(C_out, 6, KH, KW\)"),
    ({"weight": torch.zeros(4, 6, 3, 3).double()}, TypeError, "weight must have the dtype of input"),
    ({"bias": torch.zeros(5)}, ValueError, r"bias must have shape \(4,\), got \(5,\)"),
    ({"offset": torch.zeros(2, 9, 6, 7)}, ValueError, r"shape \(2, 18, 6, 7\), got \(2, 9, 6, 7\)"),
    ({"mask": torch.zeros(2, 18, 6, 7)}, ValueError, r"mask must have shape \(2, 9, 6, 7\), got"),
    ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ({"padding": (0, -1)}, ValueError, r"padding must be at least 0, got \(0, -1\)"),
    ({"dilation": (1, 1, 1)}, ValueError, r"dilation must be one number or two, got \(1, 1, 1\)"),
    ({"dilation": 9}, ValueError, r"input is too small: 6 x 7 with padding \(1, 1\) gives no output pixel"),
    ({"groups": 4}, ValueError, "groups must divide the input's channels"),
    ({"deform_groups": 4}, ValueError, "deform_groups must divide the input's channels, got 4 and 6"),
    ({"deform_groups": 0}, ValueError, "deform_groups must divide"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    names = ("input", "offset", "mask", "weight", "bias")
    good = {name: t.detach().float() for name, t in zip(names, make_inputs(), strict=True)}
    with pytest.raises(error, match=text):
        modulated_deform_conv2d(**(good | {"padding": 1} | change))


# --- layers ---------------------------------------------------------------------------------------


def test_layer_is_the_function():
    layer = ModulatedDeformConv2d(6, 4, 3, stride=2, padding=1, dilation=1, groups=2, deform_groups=3)
    x, offset, mask, *_ = (t.detach().float() for t in make_inputs(stride=(2, 2), groups=2, deform_groups=3))
    expected = modulated_deform_conv2d(x, offset, mask, layer.weight, layer.bias, 2, 1, 1, 2, 3)
    torch.testing.assert_close(layer(x, offset, mask), expected, rtol=0, atol=0)
    assert isinstance(layer, DeformableLayer)
    assert layer.bias is not None
    assert (layer.bias == 0).all()
    assert layer.weight.abs().max() <= (6 * 9) ** -0.5
    assert ModulatedDeformConv2d(6, 4, 3, bias=False).bias is None


def test_layer_describes_itself_like_a_convolution():
    layer = ModulatedDeformConv2dPack(6, 4, (3, 1), stride=2, padding=(1, 0), deform_groups=2)
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (6, 4, (3, 1))
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 2), (1, 0), (1, 1), 1)
    assert layer.transposed is False
    assert "6, 4, kernel_size=(3, 1)" in repr(layer)


def test_a_new_pack_is_a_convolution_with_half_the_weight():
    layer = ModulatedDeformConv2dPack(6, 4, 3, padding=1, stride=2)
    x = torch.randn(2, 6, 7, 9)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, layer.bias, padding=1, stride=2))
    assert isinstance(layer.conv_offset, nn.Conv2d)
    assert layer.conv_offset.weight.shape == (27, 6, 3, 3)


def test_pack_splits_its_prediction_into_offsets_and_masks():
    layer = ModulatedDeformConv2dPack(6, 4, 3, padding=1, deform_groups=2).double()
    nn.init.normal_(layer.conv_offset.weight, std=0.2)
    x = torch.randn(1, 6, 5, 5, dtype=torch.float64)
    a, b, c = layer.conv_offset(x).chunk(3, dim=1)
    expected = oracle.modulated_deform_conv2d(
        x, torch.cat([a, b], 1), c.sigmoid(), layer.weight, layer.bias, padding=(1, 1), deform_groups=2
    )
    torch.testing.assert_close(layer(x), expected)


def test_pack_trains_its_offset_branch():
    layer = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    layer(torch.randn(1, 3, 6, 6)).square().sum().backward()
    grad = layer.conv_offset.weight.grad
    assert grad is not None
    assert grad.abs().sum() > 0


def test_old_state_dicts_are_upgraded():
    layer = ModulatedDeformConv2dPack(3, 4, 3)
    state = {f"conv2.{key}": value + 1 for key, value in layer.state_dict().items()}
    old = {key.replace("conv2.conv_offset.", "conv2_offset."): value for key, value in state.items()}
    missing: list[str] = []
    # as a loader calls it that shows every layer the whole state dict, like that of cv.cnn
    layer._load_from_state_dict(old, "conv2.", {}, True, missing, [], [])
    assert missing == []
    assert (layer.weight == state["conv2.weight"]).all()
    assert set(old) == set(state)
    torch.testing.assert_close(old["conv2.conv_offset.weight"], torch.ones(27, 3, 3, 3))
    assert layer.state_dict()._metadata[""]["version"] == 2


def test_an_input_without_an_output_pixel_gives_an_empty_output():
    layer = ModulatedDeformConv2d(3, 4, 3)
    out = layer(torch.zeros(2, 3, 2, 5), torch.zeros(2, 18, 0, 3), torch.zeros(2, 9, 0, 3))
    assert out.shape == (2, 4, 0, 3)
    out.sum().backward()


def test_layers_refuse_channels_that_groups_do_not_divide():
    with pytest.raises(AssertionError, match="in_channels must be divisible by groups, got 6 and 4"):
        ModulatedDeformConv2d(6, 4, 3, groups=4)
    with pytest.raises(AssertionError, match="out_channels must be divisible by groups, got 4 and 3"):
        ModulatedDeformConv2d(6, 4, 3, groups=3)
    with pytest.raises(ValueError, match="in_channels must be divisible by deform_groups, got 6 and 4"):
        ModulatedDeformConv2d(6, 4, 3, deform_groups=4)


def test_the_old_name_of_deform_groups_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="deformable_groups"):
        assert ModulatedDeformConv2dPack(6, 4, 3, deformable_groups=3).deform_groups == 3
