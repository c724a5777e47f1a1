"""border_align and BorderAlign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cv.ops import BorderAlign, border_align
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


def oracle(x: Tensor, boxes: Tensor, pool_size: int) -> Tensor:
    """By definition, one sample at a time (Qiu et al., ECCV 2020, section 3.2)."""
    groups = x.chunk(4, 1)
    images = []
    for n, image_boxes in enumerate(boxes.tolist()):
        rows = []
        for x1, y1, x2, y2 in image_boxes:
            ends = [
                ((x1, y1), (x2, y1)), ((x1, y1), (x1, y2)), ((x2, y2), (x1, y2)), ((x2, y2), (x2, y1))
            ]  # fmt: skip
            borders = []
            for group, (a, b) in zip(groups, ends, strict=True):
                shares = [i / pool_size for i in range(pool_size + 1)]
                samples = [
                    sample(group[n], a[1] + s * (b[1] - a[1]), a[0] + s * (b[0] - a[0])) for s in shares
                ]
                borders.append(torch.stack(samples).max(0).values)
            rows.append(torch.stack(borders, -1))
        images.append(torch.stack(rows, 1))
    return torch.stack(images)


def make_inputs(channels: int = 3, boxes: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4 * channels, 8, 11, generator=rng, dtype=torch.float64).requires_grad_()
    corner = torch.rand(2, boxes, 2, generator=rng, dtype=torch.float64) * 9 - 2.5
    return x, torch.cat([corner, corner + torch.rand(2, boxes, 2, generator=rng, dtype=torch.float64) * 7], 2)


def bind(boxes: Tensor, pool_size: int, fn=border_align):
    """A function of the map alone: the boxes are not rounded with it."""
    return lambda x: fn(x, boxes.to(device=x.device), pool_size)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "pool_size"), [(3, 4), (3, 1), (40, 3)])
def test_greatest_sample_is_what_the_paper_defines(channels, pool_size, dtype, device):
    x, boxes = make_inputs(channels, 20 if channels == 3 else 3)
    # Gradients only where no rounding can change which sample is the greatest.
    assert_matches_oracle(
        bind(boxes, pool_size),
        bind(boxes, pool_size, oracle),
        (x,),
        dtype=dtype,
        device=device,
        backward=dtype in (torch.float64, torch.float32),
        scale=4.0,
    )


def test_borders_of_a_known_map():
    x = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(1, 4, 1, 1)
    out = border_align(x, torch.tensor([[[0.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]]]), 2)
    assert out.shape == (1, 1, 2, 4)
    assert out[0, 0].tolist() == [[2.0, 4.0, 6.0, 6.0], [5.0] * 4]


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    x, boxes = make_inputs()
    check_operator(
        lambda a, b: border_align(a, b, 3),
        (x, boxes),
        op=torch.ops.cv.border_align.default,
        op_args=(x, boxes, 3),
        device=device,
    )


def test_second_derivative_is_refused():
    x, boxes = make_inputs()
    check_second_derivative_is_refused(bind(boxes, 3), (x,))


@pytest.mark.parametrize("channels", [3, 70])
def test_every_instruction_set_agrees(channels):
    x, boxes = make_inputs(channels)
    check_every_cpu_isa(bind(boxes, 3), (x,))


def test_gradients_do_not_depend_on_the_number_of_threads():
    x, boxes = make_inputs(70)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(border_align(x, boxes, 3).sum(), x)[0])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other, results[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_channels_last_map_has_a_channels_last_gradient(device):
    x, boxes = (t.detach().to(device) for t in make_inputs(20))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = border_align(last, boxes, 3)
    torch.testing.assert_close(out, border_align(x, boxes, 3))
    (grad,) = torch.autograd.grad(out.sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
def test_empty_input(shape, device):
    x = torch.zeros(shape[0], 8, 3, 3, device=device, requires_grad=True)
    out = border_align(x, torch.zeros(*shape, 4, device=device), 2)
    assert out.shape == (shape[0], 2, shape[1], 4)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(value, device):
    x, boxes = (t.detach().to(device) for t in make_inputs())
    x.requires_grad_()
    good = border_align(x, boxes, 3)
    bad = boxes.clone()
    bad[0, 0, 2] = value
    out = border_align(x, bad, 3)
    assert torch.isnan(out[0, :, 0]).all()
    assert torch.equal(out[:, :, 1:], good[:, :, 1:])
    (grad,) = torch.autograd.grad(out[0, :, 0].sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_huge_boxes_and_values_that_are_not_finite(device):
    x = torch.full((1, 4, 4, 4), -float("inf"), device=device, requires_grad=True)
    # between pixels: a weight of zero times infinity would be NaN
    boxes = torch.tensor([[[0.5, 0.5, 1.5, 1.5], [-1e20, -1e20, 1e20, 1e20]]], device=device)
    out = border_align(x, boxes, 1)
    assert (out[0, 0, 0] == -float("inf")).all()
    assert (out[0, 0, 1] == 0).all()  # samples outside the map are zero
    nan = x.detach().clone()
    nan[0, 0, 1, 1] = float("nan")
    assert torch.isnan(border_align(nan, boxes, 1)[0, 0, 0]).tolist() == [True, False, False, False]


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic, channels_last):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        x, boxes = make_inputs(40, 50)
        if channels_last:
            x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        check_cpu_equals_cuda(bind(boxes, 3), (x,), scale=10.0)
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(lambda x, b: border_align(x, b, 3), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"input": torch.zeros(1, 5, 3, 3)}, ValueError, r"divisible by 4, got \(1, 5, 3, 3\)"),
    ({"input": torch.zeros(1, 4, 0, 3)}, ValueError, "input must have at least one pixel"),
    ({"boxes": torch.zeros(2, 9, 4)}, ValueError, r"\(N, K, 4\) with N = 1, got \(2, 9, 4\)"),
    ({"boxes": torch.zeros(1, 9, 4, dtype=torch.int64)}, TypeError, "boxes must have a floating"),
    ({"pool_size": 0}, ValueError, "pool_size must be positive and below"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    good = {"input": torch.zeros(1, 4, 3, 3), "boxes": torch.zeros(1, 9, 4), "pool_size": 2}
    with pytest.raises(error, match=text):
        border_align(**(good | change))


def test_layer_is_the_function():
    x, boxes = make_inputs()
    layer = BorderAlign(3)
    assert torch.equal(layer(x, boxes), border_align(x, boxes, 3))
    assert repr(layer) == "BorderAlign(pool_size=3)"
    with pytest.raises(ValueError, match="pool_size must be positive"):
        BorderAlign(0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("coordinate", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_any_coordinate_that_is_not_finite_makes_the_whole_box_nan(coordinate, value, device):
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 2]]], device=device)
    boxes[0, 0, coordinate] = value
    out = border_align(torch.ones(1, 4, 3, 3, device=device), boxes, 2)
    assert out[0, 0, 0].isnan().all()
    assert (out[0, 0, 1] == 1).all()
