"""carafe and its layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cv.ops.carafe import CARAFE, CARAFENaive, CARAFEPack, carafe, carafe_naive
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


def make_inputs(
    n: int = 2,
    channels: int = 6,
    size: tuple[int, int] = (4, 5),
    kernel: int = 3,
    groups: int = 2,
    scale: int = 2,
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, *size, generator=rng, dtype=torch.float64)
    shape = (n, groups * kernel * kernel, size[0] * scale, size[1] * scale)
    return x.requires_grad_(), torch.rand(shape, generator=rng, dtype=torch.float64).requires_grad_()


def oracle(x: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """Equations 2 and 3 of the paper: one shifted and enlarged copy of the map for each tap."""
    n, channels, height, width = x.shape
    radius = kernel // 2
    padded = F.pad(x, [radius] * 4)
    masks = masks.reshape(n, groups, 1, kernel, kernel, height * scale, width * scale)
    out = 0
    for ky in range(kernel):
        for kx in range(kernel):
            shifted = padded[:, :, ky : ky + height, kx : kx + width]
            large = shifted.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
            out = (
                out + large.reshape(n, groups, channels // groups, *large.shape[2:]) * masks[:, :, :, ky, kx]
            )
    return out.reshape(n, channels, height * scale, width * scale)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    ("channels", "kernel", "groups", "scale"),
    [(6, 3, 2, 2), (4, 5, 1, 2), (40, 3, 1, 3), (32, 1, 4, 1), (16, 5, 2, 2)],
)
def test_is_what_the_paper_defines(channels, kernel, groups, scale, last, dtype, device):
    def run(x, masks):
        memory_format = torch.channels_last if last else torch.contiguous_format
        return carafe(x.contiguous(memory_format=memory_format), masks, kernel, groups, scale)

    assert_matches_oracle(
        run,
        lambda x, masks: oracle(x, masks, kernel, groups, scale),
        make_inputs(1, channels, (4, 5), kernel, groups, scale),
        dtype=dtype,
        device=device,
        backward=True,
        scale=5.0 * kernel,
    )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 2),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 20),
    size=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    scale=st.integers(1, 3),
    last=st.booleans(),
)
def test_random_shapes(n, groups, per_group, size, kernel, scale, last):
    x, masks = make_inputs(n, groups * per_group, size, kernel, groups, scale)
    source = x.contiguous(memory_format=torch.channels_last) if last else x
    out = carafe(source, masks, kernel, groups, scale)
    assert out.shape == (n, groups * per_group, size[0] * scale, size[1] * scale)
    if out.numel() == 0:
        return
    expected = oracle(x, masks, kernel, groups, scale)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad(out, (x, masks), grad),
        torch.autograd.grad(expected, (x, masks), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("kernel", "scale"), [(5, 1), (7, 2), (3, 3), (1, 4)])
def test_wide_maps(kernel, scale, dtype, last):
    """Several vectors of columns, and of 13 channels: eight at once, four, and one."""
    x, masks = (t.detach().to(dtype).requires_grad_() for t in make_inputs(1, 26, (3, 45), kernel, 2, scale))
    source = x.contiguous(memory_format=torch.channels_last) if last else x
    out, expected = carafe(source, masks, kernel, 2, scale), oracle(x, masks, kernel, 2, scale)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad(out, (x, masks), grad),
        torch.autograd.grad(expected, (x, masks), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("channels", [1, 64])
def test_what_lies_outside_does_not_count(channels, last):
    x, masks = (t.detach() for t in make_inputs(1, channels, (3, 20), 3, 1, 1))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    masks[:, 0] = float("inf")  # upper left tap
    out = carafe(x, masks, 3, 1, 1)
    assert torch.isfinite(out[:, :, 0]).all()
    assert torch.isfinite(out[:, :, :, 0]).all()
    assert not torch.isfinite(out[:, :, 1:, 1:]).any()


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    x, masks = make_inputs(2, 4, (3, 2))
    check_operator(
        lambda x, m: carafe(x, m, 3, 2, 2),
        (x, masks),
        op=torch.ops.cv.carafe.default,
        op_args=(x, masks, 3, 2, 2),
        device=device,
        dynamic_shapes=[{0: torch.export.Dim("n", min=1)}, {0: torch.export.Dim("n", min=1)}],
    )


@pytest.mark.parametrize("last", [False, True])
def test_the_backward_operator_passes_opcheck(last):
    x, masks = (t.detach() for t in make_inputs())
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    grad = torch.randn(2, 6, 8, 10, dtype=torch.float64)
    for wanted in ((True, False), (False, True)):
        results = torch.library.opcheck(
            torch.ops.cv.carafe_backward.default, (grad, x, masks, 3, 2, 2, *wanted)
        )
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("device", DEVICES)
def test_there_is_no_second_derivative(device):
    check_second_derivative_is_refused(lambda x, m: carafe(x, m, 3, 2, 2), make_inputs(), device=device)


@pytest.mark.parametrize("channels", [6, 74])
def test_every_instruction_set_agrees(channels):
    check_every_cpu_isa(lambda x, m: carafe(x, m, 3, 2, 2), make_inputs(channels=channels))


@pytest.mark.parametrize("channels", [6, 32])
def test_cuda_agrees(channels):
    args = make_inputs(channels=channels)
    check_cpu_equals_cuda(lambda x, m: carafe(x, m, 3, 2, 2), args, scale=20.0)
    check_cuda_stream(lambda x, m: carafe(x, m, 3, 2, 2), args)


@pytest.mark.parametrize("device", DEVICES)
def test_the_output_has_the_memory_format_of_the_features(device):
    x, masks = (t.detach().to(device) for t in make_inputs())
    assert carafe(x, masks, 3, 2, 2).is_contiguous()
    out = carafe(x.contiguous(memory_format=torch.channels_last), masks, 3, 2, 2)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_mask_on_the_middle_is_nearest_neighbour():
    x = torch.randn(1, 8, 5, 4)
    masks = torch.zeros(1, 9, 15, 12)
    masks[:, 4] = 1
    torch.testing.assert_close(carafe(x, masks, 3, 1, 3), F.interpolate(x, scale_factor=3, mode="nearest"))


def test_the_layers_are_the_function():
    x, masks = make_inputs()
    expected = carafe(x, masks, 3, 2, 2)
    assert torch.equal(CARAFE(3, 2, 2)(x, masks), expected)
    assert torch.equal(CARAFENaive(3, 2, 2)(x, masks), expected)
    assert torch.equal(carafe_naive(x, masks, 3, 2, 2), expected)


def test_the_pack():
    torch.manual_seed(0)
    pack = CARAFEPack(8, 2, up_kernel=3, up_group=2, compressed_channels=4)
    x = torch.randn(2, 8, 5, 6)
    masks = pack.kernel_normalizer(pack.content_encoder(pack.channel_compressor(x)))
    assert masks.shape == (2, 18, 10, 12)
    torch.testing.assert_close(masks.view(2, 2, 9, 10, 12).sum(2), torch.ones(2, 2, 10, 12))
    torch.testing.assert_close(pack(x), oracle(x, masks, 3, 2, 2))
    # a nearly uniform mean at the start
    torch.testing.assert_close(masks, torch.full_like(masks, 1 / 9), atol=0.01, rtol=0)
    names = {f"{c}.{p}" for c in ("channel_compressor", "content_encoder") for p in ("weight", "bias")}
    assert set(pack.state_dict()) == names
    pack(x).sum().backward()
    assert all(p.grad is not None for p in pack.parameters())


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_pack_keeps_sizes_whatever_the_encoder(kernel, dilation):
    pack = CARAFEPack(4, 3, encoder_kernel=kernel, encoder_dilation=dilation)
    assert pack(torch.randn(1, 4, 7, 6)).shape == (1, 4, 21, 18)


def test_the_pack_under_autocast():
    pack = CARAFEPack(8, 2)
    x = torch.randn(1, 8, 4, 4)
    expected = pack(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = pack(x)
        low = pack(x.bfloat16())
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)
    assert low.dtype == torch.bfloat16


def test_configs_find_it():
    from cv.cnn import build_upsample_layer

    layer = build_upsample_layer(dict(type="carafe", channels=8, scale_factor=2, up_kernel=5))
    assert isinstance(layer, CARAFEPack)
    assert layer(torch.randn(1, 8, 3, 3)).shape == (1, 8, 6, 6)


def test_bad_arguments_are_named():
    x, masks = make_inputs()
    cases = [
        (TypeError, "features must be a tensor", ([1], masks, 3, 2, 2)),
        (TypeError, "masks must have a floating dtype", (x, masks.long(), 3, 2, 2)),
        (TypeError, "masks must have the dtype of features", (x, masks.float(), 3, 2, 2)),
        (ValueError, "kernel_size must be odd", (x, masks, 4, 2, 2)),
        (AssertionError, "kernel_size must be odd", (x, masks, 0, 2, 2)),
        (ValueError, "group_size must be at least 1", (x, masks, 3, 0, 2)),
        (ValueError, "scale_factor must be at least 1", (x, masks, 3, 2, 0)),
        (ValueError, "group_size must divide the channels of features, got 4 and 6", (x, masks, 3, 4, 2)),
        (ValueError, r"features must have shape \(N, C, H, W\)", (x[0], masks, 3, 2, 2)),
        (ValueError, r"masks must have shape \(2, 18, 12, 15\)", (x, masks, 3, 2, 3)),
    ]
    for error, message, args in cases:
        with pytest.raises(error, match=message):
            carafe(*args)
    with pytest.raises(ValueError, match="channels must be divisible by up_group"):
        CARAFEPack(5, 2, up_group=2)
