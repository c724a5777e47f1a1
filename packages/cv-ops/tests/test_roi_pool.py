"""roi_pool and RoIPool."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import RoIPool, roi_pool
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


def oracle(x: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """RoIPool by its definition, one bin at a time, in exact fractions (Girshick, ICCV 2015, section 2.1)."""
    height, width = x.shape[2:]
    out = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (nearest(Fraction(v) * Fraction(spatial_scale)) for v in corners)
        for ph in range(output_size[0]):
            for pw in range(output_size[1]):
                rows = bin_pixels(ph, output_size[0], y1, max(y2 - y1 + 1, 1), height)
                columns = bin_pixels(pw, output_size[1], x1, max(x2 - x1 + 1, 1), width)
                pixels = x[int(image), :, rows][:, :, columns].flatten(1)
                # max(), not amax(): the whole gradient goes to one pixel, and here no two are equal
                out.append(pixels.max(1).values if pixels.numel() else x[0].sum((1, 2)) * 0)
    return torch.stack(out).reshape(len(rois), *output_size, -1).permute(0, 3, 1, 2)


def nearest(v: Fraction) -> int:
    """Rounded, half away from zero."""
    return int(math.copysign(math.floor(abs(v) + Fraction(1, 2)), v))


def bin_pixels(index: int, bins: int, start: int, length: int, size: int) -> list[int]:
    begin = start + math.floor(Fraction(index * length, bins))
    end = start + math.ceil(Fraction((index + 1) * length, bins))
    return [p for p in range(begin, end) if 0 <= p < size]


ROIS = {
    "inside": [[0, 1.3, 2.1, 9.4, 7.7], [1, 0.2, 0.4, 4.9, 8.2]],
    "across the border": [[0, -3.2, -2.3, 5.1, 4.4], [1, 8.3, 6.1, 17.2, 14.4]],
    "outside": [[1, 30.2, 40.3, 50.1, 60.2], [0, -20.3, 1.4, -10.1, 5.2]],
    "tiny": [[0, 4.13, 3.21, 4.33, 3.4], [1, 2.3, 2.4, 2.9, 7.1]],
    "corners swapped": [[0, 7.3, 6.2, 3.1, 2.4]],
    "halves": [[0, 0.5, 1.5, 6.5, 8.5], [1, -0.5, -1.5, 2.5, 3.5]],
    "none": [],
    "many": [[i % 2, 0.31 * i, 0.23 * i, 4.2 + 0.37 * i, 3.3 + 0.29 * i] for i in range(20)],
}


def make_inputs(
    rois: str = "inside", channels: int = 5, size: tuple[int, int] = (10, 13)
) -> tuple[Tensor, Tensor]:
    # every value occurs once in a plane, in each dtype: no rounding makes two of them equal
    rng = torch.Generator().manual_seed(0)
    planes = [torch.randperm(size[0] * size[1], generator=rng) - 60 for _ in range(2 * channels)]
    x = torch.stack(planes).reshape(2, channels, *size).double()
    return x.requires_grad_(), torch.tensor(ROIS[rois], dtype=torch.float64).reshape(-1, 5)


def bind(fn, rois: Tensor, *options):
    """A function of the map alone: the boxes are not rounded with it."""
    return lambda x: fn(x, rois.to(device=x.device), *options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [5, 40])
@pytest.mark.parametrize("rois", [name for name in ROIS if name != "none"])
def test_greatest_pixel_is_what_the_paper_defines(rois, channels, dtype, device):
    x, boxes = make_inputs(rois, channels)
    options = ((3, 2), 1.0)
    assert_matches_oracle(
        bind(roi_pool, boxes, *options),
        bind(oracle, boxes, *options),
        (x,),
        device=device,
        dtype=dtype,
        backward=True,
    )


coordinate = st.integers(-80, 240).map(lambda n: n / 10 + 0.03)


@settings(max_examples=80, deadline=None)
@given(
    boxes=st.lists(st.tuples(st.integers(0, 1), *[coordinate] * 4), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bins=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    scale=st.sampled_from([0.25, 1.0, 1.5]),
)
def test_random_boxes_are_pooled_as_the_paper_defines(boxes, size, bins, scale):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rois = torch.tensor(boxes, dtype=torch.float64)
    expected = oracle(x, rois, bins, scale)
    assert torch.equal(roi_pool(x, rois, bins, scale), expected)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(roi_pool(last, rois, bins, scale), expected)


@pytest.mark.parametrize("length", [10, 14, 29, 49, 57])
def test_bins_end_with_the_region_in_float32(length):
    # 7 * float32(length / 7) may be above length: a bin must not read the pixel behind the region
    x = torch.zeros(1, 1, 60, 60)
    x[0, 0, :, length:] = 1
    x[0, 0, length:, :] = 1
    rois = torch.tensor([[0.0, 0, 0, length - 1, length - 1]])
    assert not roi_pool(x, rois, 7).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 600])
def test_few_and_many_boxes_on_a_larger_map(count, device):
    # one box takes planes, many take the turned map
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, 50, 40, 56, generator=rng, dtype=torch.float64).requires_grad_()
    corner = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 30 - 2
    extent = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 12
    rois = torch.cat([torch.zeros(count, 1, dtype=torch.float64), corner, corner + extent], 1)
    assert_matches_oracle(
        bind(roi_pool, rois, (2, 3)),
        bind(oracle, rois, (2, 3)),
        (x,),
        dtype=torch.float64,
        device=device,
        backward=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [3, 40])
def test_bins_of_long_rows(channels, dtype):
    x, _ = make_inputs(channels=channels, size=(9, 61))
    rois = torch.tensor(
        [[0, 0, 0, 60, 8], [1, 3, 1, 50.4, 7], [0, -5, 2, 30, 5], [1, 20, 0, 26, 8.0]], dtype=torch.float64
    )
    ours, expected = bind(roi_pool, rois, (2, 2)), bind(oracle, rois, (2, 2))
    assert_matches_oracle(ours, expected, (x,), dtype=dtype, device="cpu", backward=True)
    check_every_cpu_isa(ours, (x,), dtype=dtype)


def test_equal_pixels_and_nan_in_long_rows():
    x = torch.zeros(1, 3, 4, 40)
    x[0, 1, 2, 17] = float("nan")
    x[0, 2] = -float("inf")
    x.requires_grad_()
    out = roi_pool(x, torch.tensor([[0, 3.0, 1.0, 36.0, 3.0]]), 1)
    assert out[0, 0] == 0
    assert torch.isnan(out[0, 1])
    assert out[0, 2] == -float("inf")
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.nonzero().tolist() == [[0, 0, 1, 3], [0, 1, 2, 17], [0, 2, 1, 3]]


def test_pixels_of_a_known_map():
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    out = roi_pool(x, torch.tensor([[0, 0.4, 0.6, 2.4, 3.4]]), 2)
    # columns 0 to 2, rows 1 to 3: three pixels in two bins, which share the middle one
    assert out[0, 0].tolist() == [[10.0, 11.0], [14.0, 15.0]]


@pytest.mark.parametrize("channels", [1, 40])
@pytest.mark.parametrize("size", [4, 8])  # the CPU turns the smaller map as a whole
@pytest.mark.parametrize("device", DEVICES)
def test_the_first_of_equal_pixels_gets_the_gradient(device, size, channels):
    x = torch.zeros(1, channels, size, size, device=device, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 1.0, 3.0, 3.0]], device=device)
    (grad,) = torch.autograd.grad(roi_pool(x, rois, 1).sum(), x)
    assert (grad[:, :, 1, 1] == 1).all()
    assert grad.sum() == channels


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    x, rois = make_inputs("across the border")
    check_operator(
        lambda a, r: roi_pool(a, r, (3, 2), 0.9),
        (x, rois),
        op=torch.ops.cv.roi_pool.default,
        op_args=(x, rois, 0.9, 3, 2),
        device=device,
        dynamic_shapes=({0: torch.export.Dim("n"), 2: torch.export.Dim("h")}, {0: torch.export.Dim("k")}),
    )


def test_second_derivative_is_refused():
    x, rois = make_inputs()
    check_second_derivative_is_refused(bind(roi_pool, rois, 2), (x,))


@pytest.mark.parametrize("channels", [5, 70])
def test_every_instruction_set_agrees(channels):
    x, rois = make_inputs("many", channels)
    check_every_cpu_isa(bind(roi_pool, rois, 3), (x,))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    check_every_cpu_isa(bind(roi_pool, rois, 3), (last,))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [3, 70])
def test_gradients_do_not_depend_on_the_number_of_threads(channels, memory_format):
    x, rois = make_inputs("many", channels)
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.rand(len(rois), channels, 3, 3, dtype=torch.float64)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(roi_pool(x, rois, 3), x, grad)[0])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other, results[0])


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_in_channels_last_out(device):
    x, rois = (t.detach().to(device) for t in make_inputs("many", channels=20))
    x.requires_grad_()
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    out, expected = roi_pool(last, rois, (3, 2)), roi_pool(x, rois, (3, 2))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected)
    (grad,) = torch.autograd.grad(out.square().sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


@pytest.mark.parametrize("device", DEVICES)
def test_no_boxes_give_an_empty_output_and_a_zero_gradient(device):
    x, rois = (t.detach().to(device) for t in make_inputs("none"))
    x.requires_grad_()
    out = roi_pool(x, rois, (3, 2))
    assert out.shape == (0, 5, 3, 2)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.shape == x.shape
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [1, 2, 3, 4])
def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(column, value, count, device):
    x, rois = (t.detach().to(device) for t in make_inputs("inside", channels=20))
    x.requires_grad_()
    rois = rois.repeat(count, 1)
    good = roi_pool(x, rois, 2)
    bad = rois.clone()
    bad[0, column] = value
    out = roi_pool(x, bad, 2)
    assert torch.isnan(out[0]).all()
    assert torch.equal(out[1], good[1])
    (grad,) = torch.autograd.grad(out[0].sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("box", "bins"),
    [
        ([-1e9, -1e9, 1e9, 1e9], [[0, 7], [56, 63]]),  # 2e9 + 1 pixels: pixel 0 is the middle one
        ([0, 0, 1e20, 1e20], [[63, 0], [0, 0]]),
        ([1e9, 1e9, 2e9, 2e9], [[0, 0], [0, 0]]),
        ([-1e20, 3, -1e10, 5], [[0, 0], [0, 0]]),
        ([-1e25, -1e25, 7, 7], [[0, 0], [0, 63]]),
    ],
)  # fmt: skip
def test_a_huge_box_is_answered_at_once(box, bins, device):
    x = torch.arange(64.0, device=device).reshape(1, 1, 8, 8).requires_grad_()
    out = roi_pool(x, torch.tensor([[0, *map(float, box)]], device=device), 2)
    assert out[0, 0].tolist() == bins
    out.sum().backward()


@pytest.mark.parametrize("image", [-1.0, 2.0, 1e30])
def test_a_box_on_no_image_is_an_error_on_the_cpu(image):
    x, rois = make_inputs()
    rois[1, 0] = image
    with pytest.raises(RuntimeError, match=r"roi_pool: rois\[1, 0\] is .* but input has 2 images"):
        roi_pool(x, rois, 2)


@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_box_on_no_image_gives_nan_on_cuda(device):
    x, rois = make_inputs()
    rois[1, 0] = 2
    out = roi_pool(x.to(device), rois.to(device), 2)
    assert torch.isnan(out[1]).all()
    assert torch.isfinite(out[0]).all()


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("device", DEVICES)
def test_nan_and_infinity_in_the_map(count, device):
    x = torch.zeros(1, 40, 10, 10)
    x[0, 0, 3, 3] = float("nan")
    x[0, 1] = -float("inf")
    x[0, 2, 4, 4] = float("inf")
    rois = torch.tensor([[0, 2.0, 2.0, 5.0, 5.0], [0, 6.0, 6.0, 9.0, 9.0]]).repeat(count, 1)
    out = roi_pool(x.to(device), rois.to(device), 1).cpu()[..., 0, 0]
    assert torch.isnan(out[0, 0])
    assert out[1, 0] == 0
    assert out[:, 1].tolist() == [-float("inf")] * 2 * count
    assert out[:2, 2].tolist() == [float("inf"), 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_maps_keep_their_values_and_boxes_their_precision(dtype):
    x = torch.randn(1, 4, 6, 600).to(dtype)
    rois = torch.tensor([[0, 500.4, 1.2, 509.4, 4.9]])
    assert torch.equal(roi_pool(x, rois, 2).double(), oracle(x.double(), rois.double(), (2, 2)))
    with torch.autocast("cpu", dtype):
        assert roi_pool(x.float(), rois, 2).dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic, channels_last):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for name in ROIS:
            for dtype in DTYPES:
                x, rois = make_inputs(name, channels=40)
                if channels_last:
                    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
                check_cpu_equals_cuda(bind(roi_pool, rois, (3, 2), 0.9), (x,), dtype=dtype)
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(lambda x, r: roi_pool(x, r, 2), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"input": torch.zeros(1, 1, 3, 3, dtype=torch.uint8)}, TypeError, "dtype, got torch.uint8"),
    ({"input": torch.zeros(1, 3, 3)}, ValueError, r"shape \(N, C, H, W\), got \(1, 3, 3\)"),
    ({"input": torch.zeros(1, 1, 0, 3)}, ValueError, "input must have at least one pixel"),
    ({"rois": torch.zeros(2, 4)}, ValueError, r"rois must have shape \(K, 5\), got \(2, 4\)"),
    ({"rois": torch.zeros(2, 5, dtype=torch.int64)}, TypeError, "rois must have a floating"),
    ({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
    ({"output_size": (1, 2, 3)}, ValueError, "output_size must be one number or"),
    ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be positive and finite, got 0.0"),
    ({"spatial_scale": math.inf}, ValueError, "spatial_scale must be positive and finite, got inf"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    good = {"input": torch.zeros(1, 1, 3, 3), "rois": torch.zeros(1, 5), "output_size": 2}
    with pytest.raises(error, match=text):
        roi_pool(**(good | change))


def test_layer_is_the_function():
    x, rois = make_inputs()
    layer = RoIPool((3, 2), 0.5)
    assert torch.equal(layer(x, rois), roi_pool(x, rois, (3, 2), 0.5))
    assert repr(layer) == "RoIPool(output_size=(3, 2), spatial_scale=0.5)"
    assert RoIPool(7).output_size == (7, 7)
    with pytest.raises(ValueError, match="output_size must be positive"):
        RoIPool(0)
