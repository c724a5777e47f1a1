"""Reading a feature map at points, and coordinates of points: of a region, of an image, relative or absolute.

Source: Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, section 3.1. Points are
(x, y). *Relative* coordinates are in [0, 1] over the region or image, *absolute* ones in its pixels; pixel i
covers [i, i + 1). Everything here is made of PyTorch's own operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_floating, check_tensors
from ._roi import bins_of, check_map_and_rois


def bilinear_grid_sample(im: Tensor, grid: Tensor, align_corners: bool = False) -> Tensor:
    """``torch.nn.functional.grid_sample`` (bilinear, zeros outside) from gathers, for exporters that lack it.

    Args:
        im: (N, C, H, W) of a floating dtype.
        grid: (N, H_out, W_out, 2): x, y in [-1, 1] over the map.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels, or else their outer edges.

    Returns:
        (N, C, H_out, W_out).

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape does not fit.
    """
    check_floating(im=im, grid=grid)
    if im.dim() != 4 or im.shape[2] == 0 or im.shape[3] == 0:
        raise ValueError(f"im must have shape (N, C, H, W) with at least one pixel, got {tuple(im.shape)}")
    if grid.dim() != 4 or grid.shape[3] != 2 or grid.shape[0] != im.shape[0]:
        raise ValueError(f"grid must have shape ({im.shape[0]}, H, W, 2), got {tuple(grid.shape)}")
    n, channels, height, width = im.shape
    pixels = im.reshape(n, channels, height * width)
    y = _to_pixels(grid[..., 1].reshape(n, -1), height, align_corners)
    x = _to_pixels(grid[..., 0].reshape(n, -1), width, align_corners)
    top, left = y.floor(), x.floor()
    out = pixels.new_zeros((n, channels, y.shape[1]))
    for row, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            read = pixels.gather(2, index[:, None, :].expand(-1, channels, -1))
            out = out + torch.where(inside[:, None], read * (weight_y * weight_x)[:, None], 0)
    return out.reshape(n, channels, grid.shape[1], grid.shape[2])


def _to_pixels(position: Tensor, size: int, align_corners: bool) -> Tensor:
    """From [-1, 1] to pixel centres; further out than two pixels is no other than that."""
    scaled = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    return scaled.clamp(-2, size + 1)


def normalize(grid: Tensor) -> Tensor:
    """Coordinates in [-1, 1] as coordinates in [0, 1]."""
    return (grid + 1) / 2


def denormalize(grid: Tensor) -> Tensor:
    """Coordinates in [0, 1] as coordinates in [-1, 1]."""
    return grid * 2 - 1


def generate_grid(num_grid: int, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """The centres of a regular grid over [0, 1] x [0, 1].

    Args:
        num_grid: How often it is repeated.
        size: (height, width).
        device: Of the result.

    Returns:
        (num_grid, height * width, 2) float32, x before y, row by row.
    """
    ys, xs = ((torch.arange(n, device=device, dtype=torch.float32) + 0.5) / n for n in size)
    grid = torch.stack((xs[None, :].expand(*size), ys[:, None].expand(*size)), -1)
    return grid.reshape(1, -1, 2).expand(num_grid, -1, -1)


def rel_roi_point_to_abs_img_point(rois: Tensor, rel_roi_points: Tensor) -> Tensor:
    """Points relative to regions as absolute points of the image.

    Args:
        rois: (N, 4), x1, y1, x2, y2, or (N, 5) with an index before them.
        rel_roi_points: (N, P, 2) in [0, 1].

    Returns:
        (N, P, 2).

    Raises:
        ValueError: If a shape does not fit.
    """
    check_tensors(rois=rois, rel_roi_points=rel_roi_points)
    if rois.dim() != 2 or rois.shape[1] not in (4, 5):
        raise ValueError(f"rois must have shape (N, 4) or (N, 5), got {tuple(rois.shape)}")
    if rel_roi_points.dim() != 3 or rel_roi_points.shape[2] != 2 or len(rel_roi_points) != len(rois):
        raise ValueError(
            f"rel_roi_points must have shape ({len(rois)}, P, 2), got {tuple(rel_roi_points.shape)}"
        )
    corners = rois[:, -4:].unsqueeze(1)
    return corners[..., :2] + rel_roi_points * (corners[..., 2:] - corners[..., :2])


def get_shape_from_feature_map(x: Tensor) -> Tensor:
    """(1, 1, 2) float32: width and height of a (N, C, H, W) map."""
    height, width = x.shape[2:]
    return torch.tensor([width, height], dtype=torch.float32, device=x.device).view(1, 1, 2)


def abs_img_point_to_rel_img_point(
    abs_img_points: Tensor, img: tuple[int, int] | Tensor, spatial_scale: float = 1.0
) -> Tensor:
    """Absolute points of an image as relative ones.

    Args:
        abs_img_points: (N, P, 2).
        img: (height, width) of image or feature map, or a (N, C, H, W) map of that size.
        spatial_scale: Size of the map over size of the image; multiplies the points.

    Returns:
        (N, P, 2), in [0, 1] inside the image.

    Raises:
        ValueError: If ``img`` is neither of the two.
    """
    if isinstance(img, Tensor):
        if img.dim() != 4:
            raise ValueError(f"img must have shape (N, C, H, W), got {tuple(img.shape)}")
        size = get_shape_from_feature_map(img).to(abs_img_points)
    else:
        if len(img) != 2:
            raise ValueError(f"img must be (height, width) or a map, got {img}")
        size = abs_img_points.new_tensor([img[1], img[0]]).view(1, 1, 2)
    return abs_img_points / size * spatial_scale


def rel_roi_point_to_rel_img_point(
    rois: Tensor, rel_roi_points: Tensor, img: tuple[int, int] | Tensor, spatial_scale: float = 1.0
) -> Tensor:
    """Points relative to regions as points relative to the image, to give to :func:`point_sample`.

    Args:
        rois: (N, 4), x1, y1, x2, y2, or (N, 5) with an index before them.
        rel_roi_points: (N, P, 2) in [0, 1].
        img: (height, width) of image or feature map, or a (N, C, H, W) map of that size.
        spatial_scale: Size of the map over size of the image; multiplies the points.

    Returns:
        (N, P, 2), in [0, 1] inside the image.

    Raises:
        ValueError: If a shape does not fit.
    """
    absolute = rel_roi_point_to_abs_img_point(rois, rel_roi_points)
    return abs_img_point_to_rel_img_point(absolute, img, spatial_scale)


def point_sample(
    input: Tensor,  # noqa: A002 (documented name)
    points: Tensor,
    align_corners: bool = False,
    **kwargs: Any,
) -> Tensor:
    """``grid_sample`` at points relative to the map, in [0, 1] x [0, 1].

    Args:
        input: (N, C, H, W).
        points: (N, P, 2) or (N, H_grid, W_grid, 2): x, y.
        align_corners: See ``torch.nn.functional.grid_sample``.
        **kwargs: For the same function: ``mode``, ``padding_mode``.

    Returns:
        (N, C, P) or (N, C, H_grid, W_grid).

    Raises:
        TypeError: If an argument is not a tensor of a floating dtype.
        ValueError: If a shape is wrong.
    """
    check_floating(input=input, points=points)
    if input.dim() != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {tuple(input.shape)}")
    if points.dim() not in (3, 4) or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (N, P, 2) or (N, H, W, 2), got {tuple(points.shape)}")
    grid = points.unsqueeze(2) if points.dim() == 3 else points
    out = F.grid_sample(input, denormalize(grid), align_corners=align_corners, **kwargs)
    return out.squeeze(3) if points.dim() == 3 else out


class SimpleRoIAlign(nn.Module):
    """RoIAlign with one sample in the middle of each bin, outside the map zero.

    Args:
        output_size: Bins, one number or (height, width).
        spatial_scale: Size of the map over size of the image.
        aligned: True reads pixels at their centres; False is the older convention (``align_corners``).

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, aligned: bool = True
    ) -> None:
        super().__init__()
        self.output_size = bins_of(output_size)
        self.spatial_scale = float(spatial_scale)
        self.aligned = aligned

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pools ``rois`` from ``features``.

        Args:
            features: (N, C, H, W).
            rois: (K, 5): batch index, x1, y1, x2, y2 in image pixels, in any order.

        Returns:
            (K, C, output height, output width), in the order of ``rois``. A box on no image of the batch
            gives zeros.

        Raises:
            TypeError: If an argument is not a tensor of a floating dtype.
            ValueError: If a shape is wrong.
        """
        check_map_and_rois(features, rois, 5, self.spatial_scale)
        grid = generate_grid(len(rois), self.output_size, rois.device).to(rois.dtype)
        points = rel_roi_point_to_rel_img_point(rois, grid, features, self.spatial_scale).to(features.dtype)
        sample = _sample_traced if torch.compiler.is_compiling() else _sample_regions
        out = sample(features, rois.detach()[:, 0], points, not self.aligned)
        return out.reshape(len(rois), features.shape[1], *self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, aligned={self.aligned}"


def _sample_regions(features: Tensor, image: Tensor, points: Tensor, align_corners: bool) -> Tensor:
    """``points`` (K, P, 2) of the images that ``image`` (K,) names, as (K, C, P), one call for each image."""
    named, lengths = torch.unique_consecutive(image, return_counts=True)
    images = named.tolist()
    if len(set(images)) < len(images):
        order = image.argsort(stable=True)
        out = _sample_regions(features, image[order], points[order], align_corners)
        return torch.empty_like(out).index_copy_(0, order, out)
    parts = []
    for index, part in zip(images, torch.split(points, lengths.tolist()), strict=True):
        if 0 <= index < len(features) and index % 1 == 0:
            at = int(index)
            sampled = point_sample(features[at : at + 1], part[None], align_corners=align_corners)[0]
            parts.append(sampled.transpose(0, 1))
        else:  # zeros, through which backward runs
            none = features[:0].sum()
            parts.append(none.expand(len(part), features.shape[1], part.shape[1]))
    if not parts:
        return features.new_zeros(0, features.shape[1], points.shape[1]) + features[:0].sum()
    return torch.cat(parts)


def _sample_traced(features: Tensor, image: Tensor, points: Tensor, align_corners: bool) -> Tensor:
    """The same without a look at data: every image is asked for the points of all regions on it."""
    out = features.new_zeros((len(image), features.shape[1], points.shape[1]))
    out = out + features[:0].sum()  # backward runs, and gives zeros, where no image is named
    for index in range(len(features)):
        mine = (image == index).nonzero()[:, 0]
        sampled = point_sample(features[index, None], points[mine][None], align_corners=align_corners)
        out = out.index_copy(0, mine, sampled[0].transpose(0, 1))
    return out
