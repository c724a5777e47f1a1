"""roi_align and RoIAlign."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import RoIAlign, roi_align
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_close,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
    check_second_derivative_is_refused,
)

MODES = ["avg", "max"]


def oracle(
    x: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = "avg",
    aligned: bool = True,
) -> Tensor:
    """RoIAlign by its definition, one sample at a time (He et al., ICCV 2017, section 3)."""
    shift = 0.5 if aligned else 0.0
    out = []
    for roi in rois.tolist():
        image = x[int(roi[0])]
        x1, y1, x2, y2 = (v * spatial_scale - shift for v in roi[1:])
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / output_size[0], width / output_size[1]
        grid_h = sampling_ratio or max(math.ceil(bin_h), 0)
        grid_w = sampling_ratio or max(math.ceil(bin_w), 0)
        for ph in range(output_size[0]):
            for pw in range(output_size[1]):
                samples = [
                    sample(image, y1 + (ph + i) * bin_h, x1 + (pw + j) * bin_w)
                    for i in ((n + 0.5) / grid_h for n in range(grid_h))
                    for j in ((n + 0.5) / grid_w for n in range(grid_w))
                ]
                stacked = torch.stack(samples) if samples else image.sum((1, 2))[None] * 0
                out.append(stacked.mean(0) if pool_mode == "avg" else stacked.amax(0))
    return torch.stack(out).reshape(len(rois), *output_size, -1).permute(0, 3, 1, 2)


def sample(image: Tensor, y: float, x: float) -> Tensor:
    """image (C, H, W) at one position: the border repeats for one pixel, then zero."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.sum((1, 2)) * 0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = image[:, top, left] * (1 - (x - left)) + image[:, top, right] * (x - left)
    below = image[:, bottom, left] * (1 - (x - left)) + image[:, bottom, right] * (x - left)
    return above * (1 - (y - top)) + below * (y - top)


ROIS = {
    "inside": [[0, 1.3, 2.1, 9.4, 7.7], [1, 0.2, 0.4, 4.9, 8.2]],
    "across the border": [[0, -3.2, -2.3, 5.1, 4.4], [1, 8.3, 6.1, 17.2, 14.4]],
    "outside": [[1, 30.2, 40.3, 50.1, 60.2], [0, -20.3, 1.4, -10.1, 5.2]],
    "tiny": [[0, 4.13, 3.21, 4.33, 3.4], [1, 2.3, 2.4, 2.9, 7.1]],
    "whole map": [[0, 0.1, 0.1, 12.9, 9.9], [1, -5.2, -4.3, 18.4, 15.3]],
    "corners swapped": [[0, 7.3, 6.2, 3.1, 2.4]],
    "none": [],
    "many": [[i % 2, 0.31 * i, 0.23 * i, 4.2 + 0.37 * i, 3.3 + 0.29 * i] for i in range(20)],
}


def make_inputs(
    rois: str = "inside", channels: int = 5, size: tuple[int, int] = (10, 13)
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=rng, dtype=torch.float64).requires_grad_()
    return x, torch.tensor(ROIS[rois], dtype=torch.float64).reshape(-1, 5)


def bind(fn, rois: Tensor, *options, **named):
    """A function of the map alone: the boxes are not rounded with it."""
    return lambda x: fn(x, rois.to(device=x.device), *options, **named)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("rois", [name for name in ROIS if name != "none"])
def test_mean_is_what_the_paper_defines(rois, ratio, aligned, dtype, device):
    x, boxes = make_inputs(rois)
    options = ((3, 2), 0.9, ratio, "avg", aligned)
    assert_matches_oracle(
        bind(roi_align, boxes, *options),
        bind(oracle, boxes, *options),
        (x,),
        device=device,
        dtype=dtype,
        backward=True,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [5, 40])
@pytest.mark.parametrize("rois", ["inside", "across the border", "tiny", "many"])
def test_greatest_is_what_the_paper_defines(rois, channels, dtype, device):
    x, boxes = make_inputs(rois, channels)
    options = ((2, 3), 1.1, 0, "max", True)
    ours, theirs = bind(roi_align, boxes, *options), bind(oracle, boxes, *options)
    # Gradients only where no rounding can change which sample is the greatest.
    backward = dtype in (torch.float64, torch.float32)
    assert_matches_oracle(ours, theirs, (x,), device=device, dtype=dtype, backward=backward)


coordinate = st.floats(-8, 24, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(st.integers(0, 1), *[coordinate] * 4), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bins=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    scale=st.sampled_from([0.25, 1.0, 1.5]),
    ratio=st.sampled_from([0, 1, 3]),
    mode=st.sampled_from(MODES),
    aligned=st.booleans(),
)  # fmt: skip
def test_random_boxes_are_pooled_as_the_paper_defines(boxes, size, bins, scale, ratio, mode, aligned):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rois = torch.tensor(boxes, dtype=torch.float64)
    options = (bins, scale, ratio, mode, aligned)
    expected = oracle(x, rois, *options)
    torch.testing.assert_close(roi_align(x, rois, *options), expected, rtol=1e-9, atol=1e-9)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(roi_align(last, rois, *options), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 600])
def test_few_and_many_boxes_on_a_larger_map(count, mode, device):
    # one box takes planes, many take the turned map and several rounds of weights; 150 channels, two blocks
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 150, 40, 30, generator=rng, dtype=torch.float64).to(device).requires_grad_()
    corner = torch.rand(count, 2, generator=rng) * torch.tensor([28.0, 38.0])
    image = torch.randint(0, 2, (count, 1), generator=rng)
    rois = torch.cat([image, corner, corner + torch.rand(count, 2, generator=rng) * 12], 1)
    out = roi_align(x, rois.to(device), 2, 1.0, 0, mode)
    few = torch.linspace(0, count - 1, min(count, 12)).long()
    expected = oracle(x.detach().cpu(), rois.double()[few], (2, 2), 1.0, 0, mode)
    # boxes are float32 here, so samples near a cell's edge may differ by rounding of their position
    torch.testing.assert_close(out[few].detach().cpu(), expected, rtol=1e-4, atol=1e-4)
    (grad,) = torch.autograd.grad(out.sum(), x)
    inside = roi_align(
        torch.ones_like(x[:, :1]), rois.to(device), 2, 1.0, 0, "avg"
    ).sum()  # weights inside the map
    if mode == "avg":
        torch.testing.assert_close(grad.sum(), inside * 150)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_contract(mode, device):
    x, rois = make_inputs("across the border", channels=3)
    op = torch.ops.cv.roi_align.default if mode == "avg" else torch.ops.cv.roi_align_max.default
    check_operator(
        lambda x, r: roi_align(x, r, (2, 3), 0.8, 2, mode),
        (x, rois),
        op=op,
        op_args=(x, rois, 0.8, 2, 3, 2, True),
        device=device,
        dynamic_shapes=[{}, {0: torch.export.Dim("boxes", min=1)}],
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_backward_operators_pass_opcheck(channels, channels_last):
    _, rois = make_inputs("across the border")
    grad = torch.randn(2, channels, 2, 3, dtype=torch.float64)
    samples = torch.zeros(2, channels, 2, 3, dtype=torch.int32)
    numbers = (0.8, 2, 3, 2, True, 2, channels, 10, 13, channels_last, False)
    for op, args in (
        (torch.ops.cv.roi_align_backward.default, (grad, rois, *numbers)),
        (torch.ops.cv.roi_align_max_backward.default, (grad, rois, samples, *numbers)),
    ):
        assert set(torch.library.opcheck(op, args).values()) == {"SUCCESS"}


@pytest.mark.parametrize("mode", MODES)
def test_second_derivative_is_refused(mode):
    x, rois = make_inputs()
    check_second_derivative_is_refused(bind(roi_align, rois, 2, 1.0, 0, mode), (x,))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [5, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set_agrees(channels, dtype, mode):
    x, rois = make_inputs("many", channels)
    check_every_cpu_isa(bind(roi_align, rois, (3, 2), 1.0, 0, mode), (x,), dtype=dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [5, 70])
def test_gradients_do_not_depend_on_the_number_of_threads(channels, mode):
    x, rois = make_inputs("many", channels)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(roi_align(x, rois, 3, pool_mode=mode).sum(), x)[0])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other, results[0])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 70])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_very_many_boxes_are_the_sum_of_their_parts(mode, channels, memory_format):
    # more boxes than weights are kept of at a time, and so much work that the map is cut into patches
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(2, channels, 24, 30, generator=rng, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    corner = torch.rand(2500, 2, generator=rng) * 24 - 2
    image = torch.randint(0, 2, (2500, 1), generator=rng)
    rois = torch.cat([image, corner, corner + torch.rand(2500, 2, generator=rng) * 9], 1)
    weight = torch.randn(2500, channels, 2, 3, generator=rng, dtype=torch.float64)

    def gradient(some: slice) -> Tensor:
        out = roi_align(x, rois[some], (2, 3), 1.0, 0, mode)
        return torch.autograd.grad(out, x, weight[some])[0]

    parts = sum(gradient(slice(first, first + 500)) for first in range(0, 2500, 500))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(gradient(slice(0, 2500)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0], parts, rtol=1e-9, atol=1e-9)
    assert torch.equal(results[1], results[0])
    assert torch.equal(results[2], results[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_channels_last_in_channels_last_out(mode, device):
    x, rois = (t.detach().to(device) for t in make_inputs("many", channels=20))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = roi_align(last, rois, (3, 2), pool_mode=mode)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, roi_align(x, rois, (3, 2), pool_mode=mode))
    (grad,) = torch.autograd.grad(out.sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_no_boxes_give_an_empty_output_and_a_zero_gradient(mode, device):
    x, rois = (t.detach().to(device) for t in make_inputs("none"))
    x.requires_grad_()
    out = roi_align(x, rois, (3, 2), pool_mode=mode)
    assert out.shape == (0, 5, 3, 2)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.shape == x.shape
    assert (grad == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_map_stays_constant_inside(mode):
    x = torch.full((1, 3, 12, 12), 2.5)
    rois = torch.tensor([[0, 1.0, 2.0, 9.0, 11.0]])
    torch.testing.assert_close(roi_align(x, rois, 4, pool_mode=mode), torch.full((1, 3, 4, 4), 2.5))


def test_a_plane_is_read_at_the_middle_of_each_bin():
    # f(y, x) = 3 y + x at pixel centres i + 0.5; bilinear sampling is exact on it and so is the mean
    grid = torch.arange(16, dtype=torch.float64) + 0.5
    plane = (3 * grid[:, None] + grid[None, :])[None, None]
    out = roi_align(plane, torch.tensor([[0, 2.0, 3.0, 10.0, 9.0]], dtype=torch.float64), (3, 4))
    y, x = torch.tensor([4.0, 6.0, 8.0]), torch.tensor([3.0, 5.0, 7.0, 9.0])
    torch.testing.assert_close(out[0, 0], (3 * y[:, None] + x[None, :]).double())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [1, 2, 3, 4])
def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(column, value, mode, device):
    x, rois = (t.detach().to(device) for t in make_inputs("inside", channels=20))
    x.requires_grad_()
    good = roi_align(x, rois, 2, pool_mode=mode)
    bad = rois.clone()
    bad[0, column] = value
    out = roi_align(x, bad, 2, pool_mode=mode)
    assert torch.isnan(out[0]).all()
    assert torch.equal(out[1], good[1])
    (grad,) = torch.autograd.grad(out[0].sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "box", [[-1e9, -1e9, 1e9, 1e9], [0, 0, 1e20, 1e20], [1e9, 1e9, 2e9, 2e9], [-1e20, 3, -1e10, 5]]
)
def test_a_huge_box_is_answered_at_once(box, mode, device):
    x = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    out = roi_align(x, torch.tensor([[0, *map(float, box)]], device=device), 2, pool_mode=mode)
    assert torch.isfinite(out).all()
    out.sum().backward()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("image", [-1.0, 2.0, 1e30])
def test_a_box_on_no_image_is_an_error_on_the_cpu(image, mode):
    x, rois = make_inputs()
    rois[1, 0] = image
    with pytest.raises(RuntimeError, match=r"rois\[1, 0\] is .* but input has 2 images"):
        roi_align(x, rois, 2, pool_mode=mode)


@pytest.mark.parametrize("device", DEVICES[1:])
@pytest.mark.parametrize("mode", MODES)
def test_a_box_on_no_image_gives_nan_on_cuda(mode, device):
    x, rois = make_inputs()
    rois[1, 0] = 2
    out = roi_align(x.to(device), rois.to(device), 2, pool_mode=mode)
    assert torch.isnan(out[1]).all()
    assert torch.isfinite(out[0]).all()


def test_nan_in_the_map_reaches_only_the_boxes_that_read_it():
    x = torch.zeros(1, 2, 10, 10)
    x[0, 0, 3, 3] = float("nan")
    rois = torch.tensor([[0, 2.0, 2.0, 5.0, 5.0], [0, 6.0, 6.0, 9.0, 9.0]])
    for mode in MODES:
        out = roi_align(x, rois, 1, pool_mode=mode)
        assert torch.isnan(out).flatten().tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_boxes_keep_their_precision_beside_a_half_map(dtype):
    x = torch.randn(1, 4, 6, 600).to(dtype)
    rois = torch.tensor([[0, 500.3, 1.2, 509.7, 4.9]])
    expected = oracle(x.double(), rois.double(), (2, 2))
    assert_close(roi_align(x, rois, 2), expected, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_leaves_map_and_boxes_as_they_are(dtype):
    x, rois = (t.detach().float() for t in make_inputs())
    with torch.autocast("cpu", dtype):
        assert roi_align(x, rois, 2).dtype == torch.float32
        assert roi_align(x.to(dtype), rois, 2).dtype == dtype


@pytest.mark.cuda
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic, channels_last, mode):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for name in ROIS:
            x, rois = make_inputs(name, channels=40)
            if channels_last:
                x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            check_cpu_equals_cuda(bind(roi_align, rois, (3, 2), 0.9, 0, mode), (x,))
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(lambda x, r: roi_align(x, r, 2), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"input": torch.zeros(1, 1, 3, 3, dtype=torch.uint8)}, TypeError, "dtype, got torch.uint8"),
    ({"input": torch.zeros(1, 3, 3)}, ValueError, r"shape \(N, C, H, W\), got \(1, 3, 3\)"),
    ({"input": torch.zeros(1, 1, 0, 3)}, ValueError, "input must have at least one pixel"),
    ({"rois": torch.zeros(2, 4)}, ValueError, r"rois must have shape \(K, 5\), got \(2, 4\)"),
    ({"rois": torch.zeros(2, 5, dtype=torch.int64)}, TypeError, "rois must have a floating"),
    ({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
    ({"sampling_ratio": 2**62}, ValueError, "sampling_ratio must be at most 4096, got 4611686018427387904"),
    ({"output_size": (1, 2, 3)}, ValueError, "output_size must be one number or"),
    ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be positive and finite, got 0.0"),
    ({"spatial_scale": math.inf}, ValueError, "spatial_scale must be positive and finite, got inf"),
    ({"pool_mode": "median"}, ValueError, "pool_mode must be 'avg' or 'max', got 'median'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    good = {"input": torch.zeros(1, 1, 3, 3), "rois": torch.zeros(1, 5), "output_size": 2}
    with pytest.raises(error, match=text):
        roi_align(**(good | change))


# --- layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_layer_is_the_function(mode):
    x, rois = make_inputs()
    layer = RoIAlign((3, 2), 0.5, 2, mode, aligned=False)
    assert torch.equal(layer(x, rois), roi_align(x, rois, (3, 2), 0.5, 2, mode, False))
    assert "output_size=(3, 2), spatial_scale=0.5, sampling_ratio=2" in repr(layer)
    assert RoIAlign(7).output_size == (7, 7)


def test_layer_takes_old_argument_names():
    with (
        pytest.warns(DeprecationWarning, match="sample_num"),
        pytest.warns(DeprecationWarning, match="out_size"),
    ):
        layer = RoIAlign(out_size=5, sample_num=2)
    assert (layer.output_size, layer.sampling_ratio) == ((5, 5), 2)


def test_layer_refuses_bad_modes():
    with pytest.raises(ValueError, match="pool_mode must be 'avg' or 'max', got 'sum'"):
        RoIAlign(2, pool_mode="sum")
    with pytest.raises(ValueError, match="pool_mode must be 'avg' with use_torchvision, got 'max'"):
        RoIAlign(2, pool_mode="max", use_torchvision=True)


def test_torchvision_is_asked_for_by_name_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    x, rois = make_inputs()
    with pytest.raises(ImportError, match="pip install torchvision"):
        RoIAlign(2, use_torchvision=True)(x, rois)
