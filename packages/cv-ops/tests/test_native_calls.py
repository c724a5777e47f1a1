"""Compiled operators called directly, as a C++ program does: nothing in Python has looked at the arguments.

What they refuse is a RuntimeError with a text, and comes before any work.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cv import ops  # noqa: F401 - loads the operators

HUGE = 2**62
NUMBERS = (1.0, 2, 2)  # spatial_scale, pooled_h, pooled_w
SIZE = (1, 3, 4, 4)  # of a map
cv: Any = torch.ops.cv


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


# --- regions: a backward pass gets the numbers, and the size of the map, from its caller -----------


def _roi_align(scale, height, width, samples, size):
    rest = (scale, height, width, samples, True, *size, False, False)
    cv.roi_align_backward(zeros(1, 3, 2, 2), zeros(1, 5), *rest)


def _roi_align_max(scale, height, width, samples, size):
    rest = (scale, height, width, samples, True, *size, False, False)
    cv.roi_align_max_backward(zeros(1, 3, 2, 2), zeros(1, 5), zeros(1, 3, 2, 2).int(), *rest)


def _roi_align_rotated(scale, height, width, samples, size):
    rest = (scale, height, width, samples, True, False, *size, False, False)
    cv.roi_align_rotated_backward(zeros(1, 3, 2, 2), zeros(1, 6), *rest)


def _deform_roi_pool(scale, height, width, samples, size):
    rest = (scale, height, width, samples, 0.1, *size, False, False)
    cv.deform_roi_pool_backward(zeros(1, 3, 2, 2), zeros(1, 5), None, *rest)


_REGIONS = [_roi_align, _roi_align_max, _roi_align_rotated, _deform_roi_pool]


@pytest.mark.parametrize("call", _REGIONS)
def test_backward_of_regions_runs(call):
    call(*NUMBERS, 2, SIZE)
    call(*NUMBERS, 2, (0, 3, 4, 4))
    call(*NUMBERS, 2, (1, 3, 0, 4))


@pytest.mark.parametrize("call", _REGIONS)
@pytest.mark.parametrize("samples", [4097, 2**31, HUGE])
def test_more_samples_than_end_in_time(call, samples):
    with pytest.raises(RuntimeError, match="sampling_ratio must be at most 4096"):
        call(*NUMBERS, samples, SIZE)


@pytest.mark.parametrize("call", _REGIONS)
@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0, 2, 2), "spatial_scale must be positive and finite"),
        ((float("nan"), 2, 2), "spatial_scale must be positive and finite"),
        ((float("inf"), 2, 2), "spatial_scale must be positive and finite"),
        ((1.0, 0, 2), "output_size must be positive"),
        ((1.0, 2, -1), "output_size must be positive"),
        ((1.0, HUGE, 2), "grad must have the shape of the output"),
    ],
)
def test_numbers_of_regions(call, numbers, text):
    with pytest.raises(RuntimeError, match=text):
        call(*numbers, 2, SIZE)


@pytest.mark.parametrize("call", _REGIONS)
@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((1, 3, HUGE, 9), r"multiply to more than 2\^63"),
        ((1, 3, 2**16, 2**15), r"fewer than 2\^31 pixels"),
        ((HUGE, 3, 4, 4), r"multiply to more than 2\^63|cannot allocate .* \(4611686018427387904, 3"),
        ((1, 3, -1, 4), r"cannot allocate a tensor of shape \(1, 3, -1, 4\)"),
        ((-1, 3, 4, 4), r"cannot allocate a tensor of shape \(-1, 3, 4, 4\)"),
    ],
)
def test_sizes_of_maps(call, size, text):
    with pytest.raises(RuntimeError, match=text):
        call(*NUMBERS, 2, size)


@pytest.mark.parametrize("op", ["roi_align", "deform_roi_pool"])
def test_forward_refuses_more_samples_than_end_in_time(op):
    args = (zeros(1, 1, 4, 4), zeros(1, 5), *NUMBERS, 4097, True)
    if op == "deform_roi_pool":
        args = (*args[:2], None, *NUMBERS, 4097, 0.1)
    with pytest.raises(RuntimeError, match="sampling_ratio must be at most 4096"):
        getattr(cv, op)(*args)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_output_beyond_memory_in_either_layout(layout):
    """The map has an odd width, so that the products overflow if nobody looks."""
    x = torch.zeros(1, 3, 4, 5).to(memory_format=layout)
    with pytest.raises(RuntimeError, match=r"multiply to more than 2\^63"):
        cv.roi_align(x, zeros(1, 5), 1.0, HUGE, 3, 2, True)


# --- other operators ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(HUGE, 4), (2, HUGE), (HUGE + 1, HUGE + 1)])
def test_masks_of_any_size(size):
    with pytest.raises(RuntimeError, match=r"multiply to more than 2\^63|mask_h \* mask_w channels"):
        cv.psa_mask(zeros(1, 15, 3, 4), *size, False)
    with pytest.raises(RuntimeError, match=r"multiply to more than 2\^63"):
        cv.psa_mask_backward(zeros(1, 12, 3, 4), *size, False)


@pytest.mark.parametrize("place", range(6))
def test_options_of_correlation(place):
    options = [1, 1, 1, 0, 1, 1]
    options[place] = HUGE
    maps = (zeros(1, 2, 5, 5), zeros(1, 2, 5, 5))
    with pytest.raises(RuntimeError, match=r"sizes must be below 2\^30"):
        cv.correlation(*maps, *options)
    with pytest.raises(RuntimeError, match=r"sizes must be below 2\^30"):
        cv.correlation_backward(zeros(1, 3, 3, 5, 5), *maps, *options)


def test_a_window_larger_than_the_padded_maps():
    maps = (zeros(1, 2, 5, 5), zeros(1, 2, 5, 5))
    with pytest.raises(RuntimeError, match="kernel_size must not be larger than the padded maps"):
        cv.correlation_backward(zeros(1, 3, 3, 0, 0), *maps, 2**29, 1, 1, 2, 1, 1)


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("value", [HUGE, -HUGE, 0])
def test_numbers_of_upfirdn2d(place, value):
    numbers = [1, 1, 1, 1, 2, 2, 2, 2]  # up x y, down x y, pads
    numbers[place] = value
    args = (zeros(1, 1, 5, 5), zeros(3, 4), *numbers, True)
    if place >= 4 and value == 0:
        assert cv.upfirdn2d(*args).numel() > 0
    else:
        with pytest.raises(
            RuntimeError, match=r"multiply to more than 2\^63|(pad|down) is too large|must be positive"
        ):
            cv.upfirdn2d(*args)


@pytest.mark.parametrize("far", [2**31, 2**50])
def test_upfirdn2d_does_not_walk_to_a_sample_that_is_not_there(far):
    kernel = torch.rand(3, 4)
    one, row = torch.rand(1, 1, 1, 1), torch.rand(1, 1, 1, 7)
    assert torch.equal(cv.upfirdn2d(row, kernel, 1, 1, far, far, 1, 1, 1, 1, True),  # one output
                       cv.upfirdn2d(row, kernel, 1, 1, 100, 100, 1, 1, 1, 1, True))  # fmt: skip
    up = cv.upfirdn2d(one, kernel, far, far, 1, 1, 2, 7 - far, 2, 2 - far, True)  # one sample
    assert up.shape == (1, 1, 2, 6)
    assert torch.equal(up, cv.upfirdn2d(one, kernel, 100, 100, 1, 1, 2, -93, 2, -98, True))
    both = cv.upfirdn2d(one, kernel, far, far, far, far, 2, far, 2, far, True)
    assert torch.equal(both, cv.upfirdn2d(one, kernel, 100, 100, 100, 100, 2, 100, 2, 100, True))


@pytest.mark.parametrize("scale", [HUGE, 2**40])
def test_scale_of_carafe(scale):
    with pytest.raises(RuntimeError, match=r"multiply to more than 2\^63|masks must have shape"):
        cv.carafe(zeros(1, 4, 3, 5), zeros(1, 9, 6, 10), 3, 1, scale)


@pytest.mark.parametrize("groups", [HUGE, 2**40])
def test_groups_of_deform_conv2d(groups):
    """No channels: any number of groups divides them."""
    x, weight, offset = zeros(1, 0, 4, 4), zeros(2, 0, 3, 3), zeros(1, 18, 4, 4)
    with pytest.raises(RuntimeError, match=r"multiply to more than 2\^63|offset must have shape"):
        cv.deform_conv2d(x, offset, None, weight, None, 1, 1, 1, 1, 1, 1, 1, groups)


@pytest.mark.parametrize("regions", [-1, 2**24 + 1, HUGE])
def test_regions_of_pixel_group(regions):
    maps = (zeros(2, 3), zeros(2, 3).byte(), zeros(2, 3, 4), zeros(2, 3).int(), zeros(2, 3).byte())
    with pytest.raises(RuntimeError, match=r"must not be negative, and at most 2\^24"):
        cv.pixel_group(*maps, regions, 0.8)


# --- None, which the dispatcher lets pass for a tensor ---------------------------------------------


@pytest.mark.parametrize(
    ("op", "shape", "rest"),
    [
        ("active_rotated_filter", (1, 1, 8, 3, 3), ()),
        ("box_iou_quadri", (1, 8), (0, False)),
        ("box_iou_rotated", (1, 5), (0, False)),
        ("chamfer_distance", (1, 3, 2), ()),
        ("convex_giou", (1, 18), ()),
        ("convex_iou", (1, 18), ()),
        ("mix_orientations", (1, 8, 2, 2), (8, False, False)),
        ("nms_match", (1, 4), (None, 0.5)),
        ("nms_quadri", (1, 8), (None, 0.5, 0.1, 3)),
        ("nms_rotated", (1, 5), (None, 0.5, 0.1, 3)),
        ("points_in_polygons", (1, 2), ()),
        ("roi_align", (1, 3, 4, 4), (*NUMBERS, 2, True)),
        ("rotated_feature_align", (1, 3, 4, 4), (1.0, 1)),
        ("tin_shift", (1, 2, 4, 3), (False,)),
    ],
)
def test_none_is_no_tensor(op, shape, rest):
    with pytest.raises(TypeError, match=rf"{op}.*: \w+ must be a tensor, got None"):
        getattr(cv, op)(torch.zeros(shape, device="meta"), None, *rest)
    with pytest.raises(RuntimeError, match=r"\w+"):  # torch's own, for a tensor that is not defined
        getattr(cv, op)(torch.zeros(shape), None, *rest)


@pytest.mark.parametrize("place", range(4))
def test_shapes_without_data_refuse_factors_of_zero(place):
    factors = [1, 1, 1, 1]
    factors[place] = 0
    with pytest.raises(ValueError, match=r"(up|down) must be positive, got"):
        cv.upfirdn2d(torch.zeros(1, 1, 5, 5, device="meta"), zeros(3, 4), *factors, 1, 1, 1, 1, True)
