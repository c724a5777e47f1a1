"""point_sample, SimpleRoIAlign, bilinear_grid_sample and the conversions of points."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cv.ops import (
    SimpleRoIAlign,
    bilinear_grid_sample,
    point_sample,
    rel_roi_point_to_rel_img_point,
    roi_align,
)
from cv.ops.point_sample import (
    abs_img_point_to_rel_img_point,
    denormalize,
    generate_grid,
    get_shape_from_feature_map,
    normalize,
    rel_roi_point_to_abs_img_point,
)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6)])
def test_bilinear_grid_sample_is_grid_sample(size, align_corners, rng):
    im = torch.randn(2, 3, *size, generator=rng, dtype=torch.float64).requires_grad_()
    grid = (torch.rand(2, 6, 4, 2, generator=rng, dtype=torch.float64) * 4 - 2).requires_grad_()
    ours = bilinear_grid_sample(im, grid, align_corners)
    theirs = F.grid_sample(im, grid, align_corners=align_corners)
    torch.testing.assert_close(ours, theirs)
    weight = torch.rand(ours.shape, generator=rng, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad(o, (im, grid), weight) for o in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_bilinear_grid_sample_far_outside_is_zero():
    grid = torch.tensor([[[[1e30, 0.0], [float("inf"), 0.0], [0.0, -float("inf")], [0.0, 0.0]]]])
    assert bilinear_grid_sample(torch.ones(1, 1, 3, 3), grid).flatten().tolist() == [0, 0, 0, 1]


def test_bilinear_grid_sample_exports_without_grid_sample():
    class Module(torch.nn.Module):
        def forward(self, im, grid):
            return bilinear_grid_sample(im, grid)

    args = (torch.rand(1, 2, 4, 5), torch.rand(1, 3, 3, 2))
    program = torch.export.export(Module(), args)
    assert "grid_sampler" not in str(program.graph)
    torch.testing.assert_close(program.module()(*args), F.grid_sample(*args, align_corners=False))


@pytest.mark.parametrize("align_corners", [False, True])
def test_point_sample_reads_points_in_both_shapes(align_corners, rng):
    x, points = torch.randn(2, 3, 6, 8, generator=rng), torch.rand(2, 12, 2, generator=rng)
    expected = F.grid_sample(x, points.view(2, 3, 4, 2) * 2 - 1, align_corners=align_corners)
    torch.testing.assert_close(point_sample(x, points.view(2, 3, 4, 2), align_corners), expected)
    assert torch.equal(point_sample(x, points, align_corners), expected.flatten(2))
    nearest = point_sample(x, points, align_corners, mode="nearest")
    assert torch.isin(nearest, x).all()
    with pytest.raises(ValueError, match=r"points must have shape .* got \(2, 12, 3\)"):
        point_sample(x, torch.zeros(2, 12, 3))


def test_points_of_regions_are_points_of_the_image():
    rois = torch.tensor([[1.0, 10, 20, 30, 60], [0, 0, 0, 4, 4]])
    points = torch.tensor([[[0.0, 0.0], [1, 1], [0.5, 0.25]], [[0.0, 0.0], [1, 1], [0.5, 0.25]]])
    absolute = rel_roi_point_to_abs_img_point(rois, points)
    assert absolute.tolist() == [[[10, 20], [30, 60], [20, 30]], [[0, 0], [4, 4], [2, 1]]]
    assert torch.equal(rel_roi_point_to_abs_img_point(rois[:, 1:], points), absolute)
    relative = rel_roi_point_to_rel_img_point(rois, points, (100, 50))
    torch.testing.assert_close(relative[0], torch.tensor([[0.2, 0.2], [0.6, 0.6], [0.4, 0.3]]))
    feature_map = torch.zeros(1, 2, 25, 25)
    scaled = rel_roi_point_to_rel_img_point(rois, points, feature_map, 0.25)
    torch.testing.assert_close(scaled[0], torch.tensor([[0.1, 0.2], [0.3, 0.6], [0.2, 0.3]]))
    assert get_shape_from_feature_map(torch.zeros(1, 2, 25, 30)).tolist() == [[[30, 25]]]
    with pytest.raises(ValueError, match=r"rois must have shape \(N, 4\) or \(N, 5\), got \(2, 3\)"):
        rel_roi_point_to_abs_img_point(rois[:, :3], points)
    with pytest.raises(ValueError, match=r"rel_roi_points must have shape \(2, P, 2\), got \(1, 3, 2\)"):
        rel_roi_point_to_abs_img_point(rois, points[:1])
    with pytest.raises(ValueError, match=r"img must be \(height, width\) or a map, got \(1, 2, 3\)"):
        abs_img_point_to_rel_img_point(absolute, (1, 2, 3))


def test_grids():
    grid = generate_grid(2, (1, 2), "cpu")
    assert grid.tolist() == [[[0.25, 0.5], [0.75, 0.5]]] * 2
    assert torch.equal(normalize(denormalize(grid)), grid)
    assert denormalize(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_simple_roi_align_is_roi_align_with_one_sample(dtype, rng):
    x = torch.randn(2, 3, 12, 16, generator=rng).to(dtype)
    # images in mixed order: the result is in the order of the boxes
    rois = torch.tensor([[1, 2.0, 3.0, 20.0, 18.0], [0, 4.0, 2.0, 28.0, 21.0], [1, 9.0, 8.0, 15.0, 20.0]])
    ours = SimpleRoIAlign((2, 3), 0.5)(x, rois)
    assert ours.dtype == dtype
    tolerance = 1e-2 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(ours, roi_align(x, rois, (2, 3), 0.5, 1), rtol=tolerance, atol=tolerance)


def test_simple_roi_align_of_boxes_in_any_order_and_beside_the_batch(rng):
    x = torch.randn(3, 4, 9, 7, generator=rng, dtype=torch.float64).requires_grad_()
    corner = torch.rand(40, 2, generator=rng, dtype=torch.float64) * 4
    image = torch.randint(-1, 5, (40, 1), generator=rng)  # -1, 3 and 4 are no images of the batch
    rois = torch.cat([image, corner, corner + 2], 1)
    layer = SimpleRoIAlign(2, 1.0)
    out, weight = layer(x, rois), torch.randn(40, 4, 2, 2, generator=rng, dtype=torch.float64)
    one_by_one = [layer(x, roi[None]) if 0 <= roi[0] < 3 else x.new_zeros(1, 4, 2, 2) for roi in rois]
    torch.testing.assert_close(out, torch.cat(one_by_one))
    assert (out[(image[:, 0] < 0) | (image[:, 0] > 2)] == 0).all()
    got, wanted = (torch.autograd.grad(o, x, weight)[0] for o in (out, torch.cat(one_by_one)))
    torch.testing.assert_close(got, wanted)


def test_simple_roi_align_in_the_older_convention_and_without_boxes(rng):
    x = torch.randn(1, 2, 6, 8, generator=rng)
    rois = torch.tensor([[0, 0.0, 0.0, 8.0, 6.0]])
    layer = SimpleRoIAlign(2, 1.0, aligned=False)
    expected = F.grid_sample(x, torch.tensor([[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]])[None],
                             align_corners=True)  # fmt: skip
    torch.testing.assert_close(layer(x, rois), expected)
    assert layer(x, rois[:0]).shape == (0, 2, 2, 2)
    assert repr(layer) == "SimpleRoIAlign(output_size=(2, 2), spatial_scale=1.0, aligned=False)"
    with pytest.raises(ValueError, match=r"rois must have shape \(K, 5\), got \(1, 4\)"):
        layer(x, rois[:, 1:])


@pytest.mark.parametrize(
    "rois", [torch.zeros(0, 5), torch.tensor([[7.0, 0, 0, 2, 2]])], ids=["none", "outside"]
)
def test_simple_roi_align_of_no_image_has_a_zero_gradient(rois):
    x = torch.full((2, 3, 4, 4), float("nan")).requires_grad_()
    out = SimpleRoIAlign(2, 1.0)(x, rois)
    assert (out == 0).all()
    out.sum().backward()
    assert (x.grad == 0).all()
