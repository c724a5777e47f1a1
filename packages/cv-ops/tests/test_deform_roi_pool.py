"""deform_roi_pool and its layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cv.ops import DeformRoIPool, DeformRoIPoolPack, ModulatedDeformRoIPoolPack, deform_roi_pool, roi_align
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

BINS = (2, 3)


def oracle(
    x: Tensor,
    rois: Tensor,
    offset: Tensor,
    output_size: tuple[int, int] = BINS,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """By equations 5 and 6 of Dai et al., one sample at a time; differentiable by autograd."""
    out = []
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * spatial_scale - 0.5 for v in corners)
        bin_h, bin_w = (y2 - y1) / output_size[0], (x2 - x1) / output_size[1]
        grid_h, grid_w = (sampling_ratio or max(math.ceil(b), 0) for b in (bin_h, bin_w))
        for ph in range(output_size[0]):
            for pw in range(output_size[1]):
                move_x = gamma * (x2 - x1) * offset[k, 0, ph, pw]
                move_y = gamma * (y2 - y1) * offset[k, 1, ph, pw]
                samples = [
                    sample(
                        x[int(image)],
                        y1 + (ph + (i + 0.5) / grid_h) * bin_h + move_y,
                        x1 + (pw + (j + 0.5) / grid_w) * bin_w + move_x,
                    )
                    for i in range(grid_h)
                    for j in range(grid_w)
                ]
                out.append(torch.stack(samples).mean(0) if samples else x[0].sum((1, 2)) * 0)
    return torch.stack(out).reshape(len(rois), *output_size, -1).permute(0, 3, 1, 2)


ROIS = {
    "inside": [[0, 1.3, 2.1, 9.4, 7.7], [1, 0.7, 0.9, 4.9, 8.2]],
    "across the border": [[0, -3.2, -2.3, 5.1, 4.4], [1, 8.3, 6.1, 17.2, 14.4]],
    "outside": [[1, 30.2, 40.3, 50.1, 60.2]],
    "tiny": [[0, 4.13, 3.21, 4.33, 3.4]],
    "none": [],
    "many": [[i % 2, 0.31 * i, 0.23 * i, 4.2 + 0.37 * i, 3.3 + 0.29 * i] for i in range(20)],
}


def make_inputs(rois: str = "inside", channels: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 10, 13, generator=rng, dtype=torch.float64).requires_grad_()
    boxes = torch.tensor(ROIS[rois], dtype=torch.float64).reshape(-1, 5)
    # multiples of 1/64: the same in every dtype
    offset = (torch.randn(len(boxes), 2, *BINS, generator=rng, dtype=torch.float64) * 64).round() / 64
    return x, boxes, offset.requires_grad_()


def bind(fn, rois: Tensor, *options):
    """A function of map and offset: the boxes are not rounded with them."""
    return lambda x, offset: fn(x, rois.to(device=x.device), offset, *options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [(BINS, 0.9), (BINS, 1.0, 2, 0.3)], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("rois", ["inside", "across the border", "outside", "tiny"])
def test_mean_is_what_the_paper_defines(rois, options, dtype, device):
    x, boxes, offset = make_inputs(rois)
    assert_matches_oracle(
        bind(deform_roi_pool, boxes, *options),
        bind(oracle, boxes, *options),
        (x, offset),
        device=device,
        dtype=dtype,
        backward=True,
        scale=8.0,  # the gradient of an offset sums over 5 channels times the region's size
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [5, 300])
@pytest.mark.parametrize("empty", [False, True])
def test_without_offsets_it_is_roi_align(empty, channels, device):
    x, rois, _ = (t.detach().to(device) for t in make_inputs("many", channels))
    x.requires_grad_()
    out = deform_roi_pool(x, rois, x.new_zeros(0) if empty else None, (3, 2), 0.8)
    expected = roi_align(x, rois, (3, 2), 0.8)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), x)[0], torch.autograd.grad(expected.square().sum(), x)[0]
    )


def test_an_offset_moves_its_bin_by_a_share_of_the_region():
    x = torch.arange(200, dtype=torch.float64).reshape(1, 1, 10, 20)
    roi = torch.tensor([[0, 4.0, 3.0, 8.0, 5.0]], dtype=torch.float64)
    offset = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    offset[0, 0, 0, 1], offset[0, 1, 0, 0] = 5.0, -5.0  # half a width to the right; half a height up
    moved = deform_roi_pool(x, roi, offset, (1, 2)) - deform_roi_pool(x, roi, None, (1, 2))
    assert moved[0, 0, 0].tolist() == pytest.approx([-20.0, 2.0])


@pytest.mark.parametrize("device", DEVICES)
def test_contract(device):
    x, rois, offset = make_inputs("across the border")
    check_operator(
        lambda a, r, o: deform_roi_pool(a, r, o, BINS, 0.9),
        (x, rois, offset),
        op=torch.ops.cv.deform_roi_pool.default,
        op_args=(x, rois, offset, 0.9, *BINS, 0, 0.1),
        device=device,
    )


def test_second_derivative_is_refused():
    x, rois, offset = make_inputs()
    check_second_derivative_is_refused(bind(deform_roi_pool, rois, BINS), (x, offset))


@pytest.mark.parametrize("channels", [5, 70])
def test_every_instruction_set_agrees(channels):
    x, rois, offset = make_inputs("many", channels)
    check_every_cpu_isa(lambda a, o: deform_roi_pool(a, rois, o, BINS) / 8, (x, offset))


def test_gradients_do_not_depend_on_the_number_of_threads():
    x, rois, offset = make_inputs("many", 70)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            out = deform_roi_pool(x, rois, offset, BINS)
            results.append(torch.autograd.grad(out.sum(), (x, offset)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_in_channels_last_out(device):
    x, rois, offset = (t.detach().to(device) for t in make_inputs("many", 20))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = deform_roi_pool(last, rois, offset, BINS)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, deform_roi_pool(x, rois, offset, BINS))
    (grad,) = torch.autograd.grad(out.sum(), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
def test_no_boxes_give_an_empty_output_and_a_zero_gradient(device):
    x, rois, offset = (t.detach().to(device).requires_grad_() for t in make_inputs("none"))
    out = deform_roi_pool(x, rois, offset, BINS)
    assert out.shape == (0, 5, *BINS)
    grad_x, grad_offset = torch.autograd.grad(out.sum(), (x, offset))
    assert (grad_x == 0).all()
    assert grad_offset.shape == offset.shape


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_boxes_and_offsets_that_are_not_finite(value, device):
    x, rois, offset = (t.detach().to(device).requires_grad_() for t in make_inputs())
    good = deform_roi_pool(x, rois, offset, BINS)
    bad = offset.detach().clone()
    bad[0, 0, 1, 2] = value
    bad.requires_grad_()
    out = deform_roi_pool(x, rois, bad, BINS)
    assert (out[0, :, 1, 2] == 0).all()
    assert torch.equal(out[1], good[1])
    grad_x, grad_offset = torch.autograd.grad(out.sum(), (x, bad))
    assert torch.isfinite(grad_x).all()
    assert (grad_offset[0, :, 1, 2] == 0).all()
    boxes = rois.detach().clone()
    boxes[0, 2] = float("nan")
    out = deform_roi_pool(x, boxes, offset, BINS)
    assert torch.isnan(out[0]).all()
    grad_x, grad_offset = torch.autograd.grad(out[0].sum(), (x, offset))
    assert (grad_x == 0).all()
    assert (grad_offset == 0).all()


def test_a_box_on_no_image_is_an_error_on_the_cpu():
    x, rois, offset = make_inputs()
    rois[1, 0] = 2
    with pytest.raises(RuntimeError, match=r"deform_roi_pool: rois\[1, 0\] is .* but input has 2 images"):
        deform_roi_pool(x, rois, offset, BINS)


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_is_cpu(deterministic, channels_last):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for name in ROIS:
            x, rois, offset = make_inputs(name, channels=40)
            if channels_last:
                x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            check_cpu_equals_cuda(bind(deform_roi_pool, rois, BINS, 0.9), (x, offset), scale=40.0)
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
def test_cuda_runs_on_the_current_stream():
    check_cuda_stream(lambda x, r, o: deform_roi_pool(x, r, o, BINS), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"rois": torch.zeros(2, 4)}, ValueError, r"rois must have shape \(K, 5\), got \(2, 4\)"),
    ({"offset": torch.zeros(1, 2, 2, 3)}, ValueError, r"= \(1, 2, 2, 2\), got \(1, 2, 2, 3\)"),
    ({"offset": torch.zeros(1, 2, 2, 2, dtype=torch.int64)}, TypeError, "offset must have a floating"),
    ({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
    ({"sampling_ratio": 2**62}, ValueError, "sampling_ratio must be at most 4096, got 4611686018427387904"),
    ({"gamma": math.nan}, ValueError, "gamma must be finite, got nan"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text):
    good = {"input": torch.zeros(1, 1, 3, 3), "rois": torch.zeros(1, 5), "offset": None, "output_size": 2}
    with pytest.raises(error, match=text):
        deform_roi_pool(**(good | change))


# --- layers ----------------------------------------------------------------------------------------


def test_layer_is_the_function():
    x, rois, offset = make_inputs()
    layer = DeformRoIPool(BINS, 0.5, 2, 0.2)
    assert torch.equal(layer(x, rois, offset), deform_roi_pool(x, rois, offset, BINS, 0.5, 2, 0.2))
    assert torch.equal(layer(x, rois), deform_roi_pool(x, rois, None, BINS, 0.5, 2))
    assert repr(layer) == "DeformRoIPool(output_size=(2, 3), spatial_scale=0.5, sampling_ratio=2, gamma=0.2)"


@pytest.mark.parametrize(("kind", "share"), [(DeformRoIPoolPack, 1.0), (ModulatedDeformRoIPoolPack, 0.5)])
def test_a_new_pack_pools_without_offsets_and_learns_them(kind, share):
    x, rois, _ = (t.detach().float() for t in make_inputs())
    layer = kind(BINS, 5, 8, 0.9)
    out = layer(x, rois)
    torch.testing.assert_close(out, share * roi_align(x, rois, BINS, 0.9))
    out.square().sum().backward()
    assert layer.offset_fc[-1].weight.grad.abs().sum() > 0
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    pooled = roi_align(x, rois, BINS, 0.9).flatten(1)
    offset = layer.offset_fc(pooled).reshape(-1, 2, *BINS)
    expected = deform_roi_pool(x, rois, offset, BINS, 0.9)
    if kind is ModulatedDeformRoIPoolPack:
        expected = expected * layer.mask_fc(pooled).reshape(-1, 1, *BINS)
    torch.testing.assert_close(layer(x, rois), expected)
    assert layer(x, rois[:0]).shape == (0, 5, *BINS)


def test_state_dicts_have_the_documented_keys():
    linear = [f"offset_fc.{i}.{p}" for i in (0, 2, 4) for p in ("weight", "bias")]
    assert list(DeformRoIPoolPack(BINS, 5, 8).state_dict()) == linear
    masks = [f"mask_fc.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")]
    assert list(ModulatedDeformRoIPoolPack(BINS, 5, 8).state_dict()) == linear + masks


def test_pack_names_wrong_channels():
    x, rois, _ = make_inputs()
    with pytest.raises(ValueError, match="input must have 4 channels, got 5"):
        DeformRoIPoolPack(BINS, 4, 8)(x, rois)
    with pytest.raises(ValueError, match="must be positive, got 0 and 8"):
        DeformRoIPoolPack(BINS, 0, 8)
