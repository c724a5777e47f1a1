"""roi_align_rotated and RoIAlignRotated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import RoIAlignRotated, roi_align, roi_align_rotated
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
from cv_testing.roi_oracle import sample


def oracle(
    x: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    clockwise: bool = False,
) -> Tensor:
    """By definition, one sample at a time: complex numbers turn the frame (y up: i is counterclockwise)."""
    shift = 0.5 if aligned else 0.0
    out = []
    for index, cx, cy, width, height, angle in rois.tolist():
        size = [width * spatial_scale, height * spatial_scale]
        if not aligned:
            size = [max(s, 1.0) for s in size]
        steps = [s / n for s, n in zip(size, reversed(output_size), strict=True)]
        grid = [sampling_ratio or max(math.ceil(s), 0) for s in steps]
        turn = complex(math.cos(angle), -math.sin(angle) if clockwise else math.sin(angle))
        for ph in range(output_size[0]):
            for pw in range(output_size[1]):
                samples = []
                for i in range(grid[1]):
                    for j in range(grid[0]):
                        right = (pw + (j + 0.5) / grid[0]) * steps[0] - size[0] / 2
                        down = (ph + (i + 0.5) / grid[1]) * steps[1] - size[1] / 2
                        at = complex(right, -down) * turn
                        y, x_ = cy * spatial_scale - shift - at.imag, cx * spatial_scale - shift + at.real
                        samples.append(sample(x[int(index)], y, x_))
                out.append(torch.stack(samples).mean(0) if samples else x[0].sum((1, 2)) * 0)
    return torch.stack(out).reshape(len(rois), *output_size, -1).permute(0, 3, 1, 2)


ROIS = {
    "inside": [[0, 6.3, 5.1, 7.4, 4.2, 0.4], [1, 4.2, 4.4, 3.9, 6.2, -1.1]],
    "across the border": [[0, 1.2, 2.3, 9.1, 4.4, 0.8], [1, 11.3, 8.1, 6.2, 8.4, 2.9]],
    "outside": [[1, 40.2, 50.3, 9.1, 5.2, 0.3], [0, -20.3, 1.4, 4.1, 5.2, 1.3]],
    "tiny": [[0, 4.13, 3.21, 0.33, 0.4, 0.2], [1, 2.3, 2.4, 0.9, 5.1, 5.5]],
    "negative size": [[0, 5.3, 4.2, -3.1, 2.4, 0.7]],
    "none": [],
    "many": [[i % 2, 4 + 0.3 * i, 3 + 0.2 * i, 2.2 + 0.2 * i, 5.1 - 0.2 * i, 0.37 * i] for i in range(20)],
}


def make_inputs(
    rois: str = "inside", channels: int = 5, size: tuple[int, int] = (10, 13)
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=rng, dtype=torch.float64).requires_grad_()
    return x, torch.tensor(ROIS[rois], dtype=torch.float64).reshape(-1, 6)


def bind(fn, rois: Tensor, *options):
    """A function of the map alone: the boxes are not rounded with it."""
    return lambda x: fn(x, rois.to(device=x.device), *options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options", [((2, 3), 0.9, 0, True, False), ((2, 1), 1.0, 2, False, True)], ids=["aligned", "old"]
)
@pytest.mark.parametrize("rois", [name for name in ROIS if name not in ("none", "many")])
def test_mean_is_what_the_definition_says(rois, options, dtype, device):
    x, boxes = make_inputs(rois)
    assert_matches_oracle(
        bind(roi_align_rotated, boxes, *options),
        bind(oracle, boxes, *options),
        (x,),
        device=device,
        dtype=dtype,
        backward=True,
    )


number = st.floats(-6, 18, allow_nan=False, width=32)


@settings(max_examples=40, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(
            st.integers(0, 1), number, number, st.floats(0, 9), st.floats(0, 9), st.floats(-7, 7)
        ),
        min_size=1,
        max_size=3,
    ),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bins=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    ratio=st.sampled_from([0, 1, 2]),
    aligned=st.booleans(),
    clockwise=st.booleans(),
)  # fmt: skip
def test_random_boxes_are_pooled_by_definition(boxes, size, bins, ratio, aligned, clockwise):
    # a plane has no edges, so that rounding of a position at a kink or at the map's end cannot matter ...
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=rng, dtype=torch.float64)
    rois = torch.tensor(boxes, dtype=torch.float64) + 1e-7  # ... and positions at its end are moved off it
    rois[:, 0] = rois[:, 0].floor()
    options = (bins, 0.75, ratio, aligned, clockwise)
    expected = oracle(x, rois, *options)
    torch.testing.assert_close(roi_align_rotated(x, rois, *options), expected, rtol=1e-9, atol=1e-9)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(roi_align_rotated(last, rois, *options), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 3])
@pytest.mark.parametrize("count", [2, 700])
def test_without_a_turn_it_is_roi_align(count, ratio, aligned, device):
    # a few boxes take planes, many the turned map and several rounds of taps; 300 channels, two blocks
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, 300, 40, 56, generator=rng).to(device).requires_grad_()
    centre, size = torch.rand(count, 2, generator=rng) * 60 - 5, 2 + torch.rand(count, 2, generator=rng) * 23
    zeros = torch.zeros(count, 1)
    turned = torch.cat([zeros, centre, size, zeros], 1).to(device)
    straight = torch.cat([zeros, centre - size / 2, centre + size / 2], 1).to(device)
    out = roi_align_rotated(x, turned, (3, 4), 0.75, ratio, aligned)
    expected = roi_align(x, straight, (3, 4), 0.75, ratio, "avg", aligned)
    # positions differ in their last bits, and a box that ends on a whole number may get more samples
    same = (out - expected).abs().flatten(1).amax(1) < 1e-3
    assert same.float().mean() > 0.98
    weight = (
        torch.rand(out.shape, generator=torch.Generator().manual_seed(2)).to(device)
        * same[:, None, None, None]
    )
    got, wanted = (torch.autograd.grad(o, x, weight)[0] for o in (out, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("clockwise", [False, True])
def test_a_quarter_turn_turns_the_bins(clockwise):
    x, _ = make_inputs()
    quarter = torch.tensor([[0, 6.0, 5.0, 4.0, 6.0, math.pi / 2]], dtype=torch.float64)
    straight = torch.tensor([[0, 6.0, 5.0, 6.0, 4.0, 0.0]], dtype=torch.float64)
    out = roi_align_rotated(x, quarter, (3, 2), 1.0, 2, True, clockwise)
    # the box's right-hand side points up after a counterclockwise turn, down after a clockwise one
    expected = roi_align_rotated(x, straight, (2, 3), 1.0, 2).rot90(1 if clockwise else -1, (2, 3))
    torch.testing.assert_close(out, expected)


def test_a_plane_is_read_at_the_middle_of_each_bin():
    # f(y, x) = 3 y + x at pixel centres i + 0.5; bilinear sampling is exact on it and so is the mean
    grid = torch.arange(30, dtype=torch.float64) + 0.5
    plane = (3 * grid[:, None] + grid[None, :])[None, None]
    angle = 0.6
    out = roi_align_rotated(
        plane, torch.tensor([[0, 14.0, 15.0, 8.0, 6.0, angle]], dtype=torch.float64), (2, 2)
    )
    u, v = torch.tensor([-2.0, 2.0]).double()[None, :], torch.tensor([-1.5, 1.5]).double()[:, None]
    y = 15 + v * math.cos(angle) - u * math.sin(angle)
    x = 14 + v * math.sin(angle) + u * math.cos(angle)
    torch.testing.assert_close(out[0, 0], 3 * y + x)


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    x, rois = make_inputs("across the border")
    check_operator(
        lambda a, r: roi_align_rotated(a, r, (3, 2), 0.9),
        (x, rois),
        op=torch.ops.cv.roi_align_rotated.default,
        op_args=(x, rois, 0.9, 3, 2, 0, True, False),
        device=device,
        dynamic_shapes=({0: torch.export.Dim("n"), 2: torch.export.Dim("h")}, {0: torch.export.Dim("k")}),
    )


def test_second_derivative_is_refused():
    x, rois = make_inputs()
    check_second_derivative_is_refused(bind(roi_align_rotated, rois, 2), (x,))


@pytest.mark.parametrize("channels", [5, 70])
def test_every_instruction_set_agrees(channels):
    x, rois = make_inputs("many", channels)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    check_every_cpu_isa(bind(roi_align_rotated, rois, 3), (x,))
    check_every_cpu_isa(bind(roi_align_rotated, rois, 3), (last,))


@pytest.mark.parametrize("channels", [3, 70])
def test_gradients_do_not_depend_on_the_number_of_threads(channels):
    x, rois = make_inputs("many", channels)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(roi_align_rotated(x, rois, 3).sum(), x)[0])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other, results[0])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 40])
def test_gradients_of_very_many_samples_are_the_sum_of_their_parts(channels, memory_format):
    # more samples than are kept at a time, and so much work that the map is cut into patches
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(2, channels, 24, 30, generator=rng, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    image = torch.randint(0, 2, (300, 1), generator=rng)
    rois = torch.cat([image, torch.rand(300, 5, generator=rng) * 20], 1)
    weight = torch.randn(300, channels, 3, 3, generator=rng, dtype=torch.float64)

    def gradient(some: slice) -> Tensor:
        return torch.autograd.grad(roi_align_rotated(x, rois[some], 3, 1.0, 16), x, weight[some])[0]

    parts = sum(gradient(slice(first, first + 100)) for first in range(0, 300, 100))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(gradient(slice(0, 300)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0], parts, rtol=1e-9, atol=1e-9)
    assert torch.equal(results[1], results[0])
    assert torch.equal(results[2], results[0])


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_in_channels_last_out(device):
    x, rois = (t.detach().to(device) for t in make_inputs("many", channels=20))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = roi_align_rotated(last, rois, (3, 2))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, roi_align_rotated(x, rois, (3, 2)))
    (grad,) = torch.autograd.grad(out.sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
def test_no_boxes_give_an_empty_output_and_a_zero_gradient(device):
    x, rois = (t.detach().to(device) for t in make_inputs("none"))
    x.requires_grad_()
    out = roi_align_rotated(x, rois, (3, 2))
    assert out.shape == (0, 5, 3, 2)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [1, 2, 3, 4, 5])
def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(column, value, count, device):
    x, rois = (t.detach().to(device) for t in make_inputs("inside", channels=20))
    x.requires_grad_()
    rois = rois.repeat(count, 1)
    good = roi_align_rotated(x, rois, 2)
    rois[0, column] = value
    out = roi_align_rotated(x, rois, 2)
    assert torch.isnan(out[0]).all()
    assert torch.equal(out[1], good[1])
    (grad,) = torch.autograd.grad(out[0].sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, -2.2])
@pytest.mark.parametrize(
    "box", [[4, 4, 2e9, 2e9], [4, 4, 1e20, 1e20], [1e9, 1e9, 1e9, 1e9], [-1e20, 3, 1e10, 5], [4, 4, 1e6, 3]]
)
def test_a_huge_box_is_answered_at_once(box, angle, device):
    x = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    out = roi_align_rotated(x, torch.tensor([[0, *map(float, box), angle]], device=device), 2)
    assert torch.isfinite(out).all()
    out.sum().backward()


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 3.9, 5.5])
def test_a_large_box_counts_the_samples_outside(angle):
    # 400 x 300 pixels in one bin, the map is ones: the mean is the map's share, if all of it is sampled
    x = torch.ones(1, 1, 30, 20, dtype=torch.float64)
    roi = torch.tensor([[0, 12.0, 14.0, 400.0, 300.0, angle]], dtype=torch.float64)
    out = roi_align_rotated(x, roi, 1, 1.0, 2000)
    # positions count up to one pixel outside the centres: (30 + 1) * (20 + 1), some 105 samples by 206
    assert float(out) == pytest.approx(31 * 21 / (400 * 300), rel=0.02)


@pytest.mark.parametrize("image", [-1.0, 2.0, 1e30])
def test_a_box_on_no_image_is_an_error_on_the_cpu(image):
    x, rois = make_inputs()
    rois[1, 0] = image
    with pytest.raises(RuntimeError, match=r"roi_align_rotated: rois\[1, 0\] is .* but input has 2 images"):
        roi_align_rotated(x, rois, 2)


@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_box_on_no_image_gives_nan_on_cuda(device):
    x, rois = make_inputs()
    rois[1, 0] = 2
    out = roi_align_rotated(x.to(device), rois.to(device), 2)
    assert torch.isnan(out[1]).all()
    assert torch.isfinite(out[0]).all()


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic, channels_last):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for name in ROIS:
            x, rois = make_inputs(name, channels=40)
            if channels_last:
                x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            check_cpu_equals_cuda(bind(roi_align_rotated, rois, (3, 2), 0.9), (x,))
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(lambda x, r: roi_align_rotated(x, r, 2), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"input": torch.zeros(1, 3, 3)}, ValueError, r"shape \(N, C, H, W\), got \(1, 3, 3\)"),
    ({"rois": torch.zeros(2, 5)}, ValueError, r"rois must have shape \(K, 6\), got \(2, 5\)"),
    ({"rois": torch.zeros(2, 6, dtype=torch.int64)}, TypeError, "rois must have a floating"),
    ({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
    ({"sampling_ratio": 2**62}, ValueError, "sampling_ratio must be at most 4096, got 4611686018427387904"),
    ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be positive and finite, got 0.0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    good = {"input": torch.zeros(1, 1, 3, 3), "rois": torch.zeros(1, 6), "output_size": 2}
    with pytest.raises(error, match=text):
        roi_align_rotated(**(good | change))


def test_layer_is_the_function():
    x, rois = make_inputs()
    layer = RoIAlignRotated((3, 2), 0.5, 2, False, True)
    assert torch.equal(layer(x, rois), roi_align_rotated(x, rois, (3, 2), 0.5, 2, False, True))
    assert "out_size=(3, 2), spatial_scale=0.5, sample_num=2, aligned=False, clockwise=True" in repr(layer)
    assert (layer.output_size, layer.sampling_ratio) == ((3, 2), 2)
    with pytest.raises(ValueError, match="out_size must be positive, got 0"):
        RoIAlignRotated(0, 1.0)


def test_both_spellings_of_the_arguments_are_taken():
    with (
        pytest.warns(DeprecationWarning, match="sampling_ratio"),
        pytest.warns(DeprecationWarning, match="output_size"),
    ):
        layer = RoIAlignRotated(output_size=5, spatial_scale=0.5, sampling_ratio=2)
    assert (layer.out_size, layer.sample_num) == ((5, 5), 2)
    x, rois = make_inputs()
    with (
        pytest.warns(DeprecationWarning, match="sample_num"),
        pytest.warns(DeprecationWarning, match="out_size"),
    ):
        out = roi_align_rotated(x, rois, out_size=5, spatial_scale=0.5, sample_num=2)
    assert torch.equal(out, layer(x, rois))
