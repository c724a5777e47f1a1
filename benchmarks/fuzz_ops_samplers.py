"""Valid arguments of every operator and layer, for ``fuzz_ops.py`` to spoil.

Sizes are small: what matters is every kind of argument, thousands of times. A sampler gives a function and
its arguments. ``SAMPLERS`` has the public functions, the layers (built in the call, so that the arguments of
their constructors are spoiled too) and, under the name of each function with ``native:`` before it, one of
the compiled operators that it calls, forward or backward: what a C++ program calls without the checks in
Python.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cv import ops

Call = tuple[Callable[..., Any], list[Any]]
Sampler = Callable[[random.Random], Call]


def maps(chance: random.Random, channels: int | None = None, batch: int | None = None) -> Tensor:
    n = chance.randrange(1, 4) if batch is None else batch
    shape = (n, channels or chance.randrange(1, 20), chance.randrange(1, 14), chance.randrange(1, 14))
    return torch.randn(shape).requires_grad_(chance.random() < 0.5)


def boxes(chance: random.Random, size: float = 20.0) -> Tensor:
    low = torch.rand(chance.randrange(0, 12), 2) * size
    return torch.cat([low, low + torch.rand(low.shape) * size], 1)


def rotated(chance: random.Random, count: int | None = None) -> Tensor:
    n = chance.randrange(0, 12) if count is None else count
    return torch.cat([torch.rand(n, 4) * 20, torch.randn(n, 1) * 3], 1)


def rois(chance: random.Random, batch: int) -> Tensor:
    b = boxes(chance, 12.0)
    return torch.cat([torch.randint(0, batch, (len(b), 1)).float(), b], 1)


def size(chance: random.Random) -> Any:
    return chance.choice([1, 2, 7, (2, 3), (5, 1)])


def _pair_of_boxes(chance: random.Random) -> Call:
    a, b = boxes(chance), boxes(chance)
    return ops.bbox_overlaps, [a, b, chance.choice(["iou", "iof"]), False, chance.choice([0, 1])]


def _pair_of_rotated(chance: random.Random) -> Call:
    return ops.box_iou_rotated, [rotated(chance), rotated(chance), chance.choice(["iou", "iof"]), False]


def quadrilaterals(chance: random.Random, count: int | None = None) -> Tensor:
    return torch.rand(chance.randrange(0, 12) if count is None else count, 8) * 20


def _box_iou_quadri(chance: random.Random) -> Call:
    mode = chance.choice(["iou", "iof"])
    return ops.box_iou_quadri, [quadrilaterals(chance), quadrilaterals(chance), mode, False]


def _convex_iou(chance: random.Random) -> Call:
    return ops.convex_iou, [torch.rand(chance.randrange(0, 12), 18) * 20, quadrilaterals(chance)]


def _convex_giou(chance: random.Random) -> Call:
    count = chance.randrange(0, 12)
    return ops.convex_giou, [torch.rand(count, 18) * 20, quadrilaterals(chance, count)]


def _diff_iou_rotated(chance: random.Random) -> Call:
    count = chance.randrange(0, 12)
    pairs = [rotated(chance, count)[None].requires_grad_(chance.random() < 0.5) for _ in range(2)]
    return ops.diff_iou_rotated_2d, pairs


def _active_rotated_filter(chance: random.Random) -> Call:
    shape = (chance.choice([1, 2, 4]), chance.choice([1, 3]), chance.choice([1, 3]))
    weight = torch.randn(chance.randrange(0, 4), chance.randrange(0, 4), *shape)
    rotations = torch.stack([torch.randperm(shape[0] * shape[1] * shape[2]) for _ in range(4)], 1) + 1
    indices = rotations.reshape(*shape, 4).to(chance.choice([torch.int32, torch.int64, torch.uint8]))
    return ops.active_rotated_filter, [weight.requires_grad_(chance.random() < 0.5), indices]


def _chamfer_distance(chance: random.Random) -> Call:
    batch = chance.randrange(0, 4)
    sets = [torch.rand(batch, chance.randrange(1, 70), 2) for _ in range(2)]
    return ops.chamfer_distance, [t.requires_grad_(chance.random() < 0.5) for t in sets]


def _rotated_feature_align(chance: random.Random) -> Call:
    x = maps(chance)
    b = rotated(chance, len(x) * x.shape[2] * x.shape[3])
    return ops.rotated_feature_align, [x, b, chance.choice([1.0, 0.25]), chance.choice([1, 5])]


def _min_area_polygons(chance: random.Random) -> Call:
    return ops.min_area_polygons, [torch.rand(chance.randrange(0, 12), 18) * 20]


def _points_in_polygons(chance: random.Random) -> Call:
    return ops.points_in_polygons, [torch.rand(chance.randrange(0, 99), 2) * 20, quadrilaterals(chance)]


def _nms(chance: random.Random) -> Call:
    b = boxes(chance)
    return ops.nms, [b, torch.rand(len(b)), chance.random(), chance.choice([0, 1]), 0, -1]


def _soft_nms(chance: random.Random) -> Call:
    b = boxes(chance)
    method = chance.choice(["linear", "gaussian", "naive"])
    return ops.soft_nms, [b, torch.rand(len(b)), 0.3, 0.5, 1e-3, method, chance.choice([0, 1])]


def _batched_nms(chance: random.Random) -> Call:
    b = boxes(chance)
    cfg = {"type": chance.choice(["nms", "soft_nms"]), "iou_threshold": 0.5}
    return ops.batched_nms, [b, torch.rand(len(b)), torch.randint(0, 3, (len(b),)), cfg, False]


def _nms_match(chance: random.Random) -> Call:
    b = boxes(chance)
    return ops.nms_match, [torch.cat([b, torch.rand(len(b), 1)], 1), 0.5]


def _boxes_in_space(chance: random.Random) -> Tensor:
    return torch.rand(chance.randrange(0, 12), 7) * 10


def _boxes_iou3d(chance: random.Random) -> Call:
    return ops.boxes_iou3d, [_boxes_in_space(chance), _boxes_in_space(chance)]


def _nms_bev(chance: random.Random) -> Call:
    b = _boxes_in_space(chance)[:, :5]
    sizes = [chance.choice([None, 3]), chance.choice([None, 3])]
    return ops.nms_bev, [b, torch.rand(len(b)), 0.5, *sizes]


def _nms_quadri(chance: random.Random) -> Call:
    b = quadrilaterals(chance)
    labels = chance.choice([None, torch.randint(0, 3, (len(b),))])
    return ops.nms_quadri, [b, torch.rand(len(b)), 0.5, labels]


def _nms_rotated(chance: random.Random) -> Call:
    b = rotated(chance)
    labels = chance.choice([None, torch.randint(0, 3, (len(b),))])
    return ops.nms_rotated, [b, torch.rand(len(b)), 0.5, labels]


def _roi(function: Callable[..., Any], *rest: Any) -> Any:
    def sampler(chance: random.Random) -> Call:
        x = maps(chance)
        return function, [x, rois(chance, len(x)), size(chance), chance.choice([1.0, 0.5]), *rest]

    return sampler


def _roi_align_rotated(chance: random.Random) -> Call:
    x = maps(chance)
    b = rotated(chance)
    r = torch.cat([torch.randint(0, len(x), (len(b), 1)).float(), b], 1)
    return ops.roi_align_rotated, [x, r, size(chance), 1.0, chance.choice([0, 2]), True, False]


def _riroi_align_rotated(chance: random.Random) -> Call:
    x, b = maps(chance, 2 * chance.choice([4, 8])), rotated(chance)
    r = torch.cat([torch.randint(0, len(x), (len(b), 1)).float(), b], 1)
    orientations = chance.choice([1, 4, 8])
    return ops.riroi_align_rotated, [x, r, size(chance), 1.0, chance.choice([0, 2]), orientations, False]


def _deform_conv(chance: random.Random) -> Call:
    groups, x = 1, maps(chance, channels=4)
    weight = torch.randn(6, 4, 3, 3).requires_grad_()
    offset = torch.randn(len(x), 18, *x.shape[2:]) * 2
    return ops.deform_conv2d, [x, offset, weight, 1, 1, 1, groups, 1]


def _modulated(chance: random.Random) -> Call:
    x = maps(chance, channels=4)
    weight, bias = torch.randn(6, 2, 3, 3).requires_grad_(), torch.randn(6)
    offset, mask = torch.randn(len(x), 36, *x.shape[2:]), torch.rand(len(x), 18, *x.shape[2:])
    return ops.modulated_deform_conv2d, [x, offset, mask, weight, bias, 1, 1, 1, 2, 2]


def _attention(chance: random.Random) -> Call:
    shapes = torch.tensor([[6, 5], [3, 2]])
    starts = torch.tensor([0, 30])
    n, heads, dim, queries, points = 2, 2, chance.choice([4, 8, 5]), chance.randrange(0, 6), 3
    value = torch.randn(n, 36, heads, dim).requires_grad_()
    places = torch.rand(n, queries, heads, 2, points, 2)
    weights = torch.rand(n, queries, heads, 2, points)
    return ops.multi_scale_deformable_attn, [value, shapes, starts, places, weights]


def _focal(function: Callable[..., Any]) -> Any:
    def sampler(chance: random.Random) -> Call:
        n, c = chance.randrange(0, 9), chance.randrange(1, 9)
        x = torch.randn(n, c).requires_grad_()
        weight = chance.choice([None, torch.rand(c)])
        return function, [
            x,
            torch.randint(0, c, (n,)),
            2.0,
            0.25,
            weight,
            chance.choice(["mean", "sum", "none"]),
        ]

    return sampler


def _carafe(function: Callable[..., Any]) -> Any:
    def sampler(chance: random.Random) -> Call:
        x = maps(chance, channels=chance.choice([4, 8]))
        n, _, h, w = x.shape
        return function, [x, torch.rand(n, 18, 2 * h, 2 * w), 3, 2, 2]

    return sampler


def _border_align(chance: random.Random) -> Call:
    x = maps(chance, channels=8)
    low = torch.rand(len(x), x.shape[2] * x.shape[3], 2) * 10
    b = torch.cat([low, low + torch.rand(low.shape) * 10], -1)
    return ops.border_align, [x, b, chance.choice([1, 3, 10])]


def _tin_shift(chance: random.Random) -> Call:
    n, t, c, hw = 2, chance.randrange(1, 6), 6, chance.randrange(1, 9)
    return ops.tin_shift, [torch.randn(n, t, c, hw).requires_grad_(), torch.randint(-3, 4, (n, 3)).int()]


def _psa_mask(chance: random.Random) -> Call:
    h, w = chance.randrange(1, 6), chance.randrange(1, 6)
    x = torch.randn(2, 15, h, w).requires_grad_()
    return ops.psa_mask, [x, chance.choice(["collect", "distribute"]), (3, 5)]


def _upfirdn2d(chance: random.Random) -> Call:
    return ops.upfirdn2d, [maps(chance), torch.randn(3, 4), chance.choice([1, 2, (2, 1)]), 1, (2, 3, 3, 2)]


def _bias(chance: random.Random) -> Call:
    x = maps(chance)
    return ops.fused_bias_leakyrelu, [x, torch.randn(x.shape[1]).requires_grad_(), 0.2, 1.4]


def _corner_pool(chance: random.Random) -> Call:
    return ops.corner_pool, [maps(chance), chance.choice(["top", "bottom", "left", "right"])]


def _correlation(chance: random.Random) -> Call:
    a = maps(chance)
    return ops.correlation, [
        a,
        torch.randn(a.shape),
        chance.choice([1, 3]),
        chance.choice([1, 4]),
        1,
        1,
        1,
        1,
    ]


def _deform_roi_pool(chance: random.Random) -> Call:
    x = maps(chance)
    r = rois(chance, len(x))
    offset = chance.choice([None, torch.randn(len(r), 2, 3, 3)])
    return ops.deform_roi_pool, [x, r, offset, (3, 3), 1.0, chance.choice([0, 2]), 0.1]


def _masked_conv2d(chance: random.Random) -> Call:
    x = maps(chance, channels=4, batch=1)
    mask = (torch.rand(1, *x.shape[2:]) > 0.5).float()
    return ops.masked_conv2d, [x.detach(), mask, torch.randn(5, 4, 3, 3), torch.randn(5), 1]


def _text(chance: random.Random) -> tuple[Tensor, Tensor]:
    h, w = chance.randrange(1, 14), chance.randrange(1, 14)
    mask = (torch.rand(h, w) > 0.4).to(torch.uint8)
    return mask, torch.randint(0, 3, (h, w)).int() * mask


def _pixel_group(chance: random.Random) -> Call:
    mask, label = _text(chance)
    h, w = mask.shape
    contour = (torch.rand(h, w) > 0.5).to(torch.uint8)
    return ops.pixel_group, [torch.rand(h, w), mask.bool(), torch.rand(h, w, 4), label, contour, 3, 0.8]


def _contour_expand(chance: random.Random) -> Call:
    mask, label = _text(chance)
    return ops.contour_expand, [mask[None].repeat(2, 1, 1), label, 0, 3]


def _point_sample(chance: random.Random) -> Call:
    x = maps(chance)
    return ops.point_sample, [x, torch.rand(len(x), 5, 2), chance.choice([True, False])]


def _grid_sample(chance: random.Random) -> Call:
    x = maps(chance)
    return ops.bilinear_grid_sample, [x, torch.rand(len(x), 3, 4, 2) * 3 - 1.5, chance.choice([True, False])]


def _arrays(sampler: Sampler) -> Sampler:
    """The same call on numpy arrays."""

    def arrays(chance: random.Random) -> Call:
        function, args = sampler(chance)
        return function, [a.detach().numpy() if isinstance(a, Tensor) else a for a in args]

    return arrays


def _batched_rotated(chance: random.Random) -> Call:
    b = rotated(chance)
    cfg = {"type": "nms_rotated", "iou_threshold": 0.5, "max_num": 3, "score_threshold": 0.1}
    return ops.batched_nms, [
        b,
        torch.rand(len(b)),
        torch.randint(0, 3, (len(b),)),
        cfg,
        chance.random() < 0.5,
    ]


def _relative_points(chance: random.Random) -> Call:
    r = rois(chance, 2)
    image = chance.choice([(9, 7), torch.zeros(1, 1, 9, 7)])
    return ops.rel_roi_point_to_rel_img_point, [r, torch.rand(len(r), 4, 2), image, 0.5]


def layer(
    build: Callable[..., nn.Module], options: list[Any], inputs: Callable[[random.Random], list[Any]]
) -> Sampler:
    """Builds the layer and calls it: its ``options`` are spoiled as well as its ``inputs``."""

    def call(*args: Any) -> Any:
        return build(*args[: len(options)])(*args[len(options) :])

    return lambda chance: (call, [*options, *inputs(chance)])


def _map_and_rois(chance: random.Random) -> list[Any]:
    x = maps(chance, channels=4)
    return [x, rois(chance, len(x))]


def _map(chance: random.Random) -> list[Any]:
    return [maps(chance, channels=8)]


def _attention_layer(chance: random.Random) -> list[Any]:
    query, value = torch.randn(5, 2, 8), torch.randn(36, 2, 8)
    points = torch.rand(2, 5, 2, chance.choice([2, 4]))
    shapes, starts = torch.tensor([[6, 5], [3, 2]]), torch.tensor([0, 30])
    return [query, None, value, None, None, torch.rand(2, 36) > 0.8, points, shapes, starts]


def _two_maps(chance: random.Random) -> list[Any]:
    n = chance.randrange(1, 4)
    return [maps(chance, 8, n), maps(chance, 8, n), chance.choice([None, (5, 6)])]


def _deform_layer(taps: int) -> Callable[[random.Random], list[Any]]:
    def inputs(chance: random.Random) -> list[Any]:
        x = maps(chance, channels=8)
        shape = (len(x), -1, *x.shape[2:])
        n = len(x) * x.shape[2] * x.shape[3]
        return [x, torch.randn(18 * n).view(shape), *([torch.rand(9 * n).view(shape)] if taps == 3 else [])]

    return inputs


class _Recorder(TorchDispatchMode):
    """Keeps the calls of compiled operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "cv":
            self.calls.append((func, list(args)))
        return func(*args, **(kwargs or {}))


def _native(sampler: Sampler) -> Sampler:
    """One of the compiled operators that a valid call and its gradient use."""

    def native(chance: random.Random) -> Call:
        function, args = sampler(chance)
        args = [
            a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
            for a in args
        ]
        with _Recorder() as recorder:
            outputs = function(*args)
            outputs = [outputs] if isinstance(outputs, Tensor) else outputs
            wanted = [t.float().sum() for t in outputs if isinstance(t, Tensor) and t.requires_grad]
            if wanted:
                sum(wanted[1:], wanted[0]).backward()
        if not recorder.calls:  # nothing to do for empty input
            return function, args
        op, op_args = chance.choice(recorder.calls)
        return op, [a.detach() if isinstance(a, Tensor) else a for a in op_args]

    return native


FUNCTIONS: dict[str, Sampler] = {
    "active_rotated_filter": _active_rotated_filter,
    "bbox_overlaps": _pair_of_boxes,
    "batched_nms": _batched_nms,
    "bilinear_grid_sample": _grid_sample,
    "border_align": _border_align,
    "box_iou_quadri": _box_iou_quadri,
    "box_iou_rotated": _pair_of_rotated,
    "boxes_iou3d": _boxes_iou3d,
    "batched_nms of rotated": _batched_rotated,
    "carafe": _carafe(ops.carafe),
    "carafe_naive": _carafe(ops.carafe_naive),
    "chamfer_distance": _chamfer_distance,
    "contour_expand": _contour_expand,
    "convex_giou": _convex_giou,
    "convex_iou": _convex_iou,
    "corner_pool": _corner_pool,
    "correlation": _correlation,
    "deform_conv2d": _deform_conv,
    "deform_roi_pool": _deform_roi_pool,
    "diff_iou_rotated_2d": _diff_iou_rotated,
    "fused_bias_leakyrelu": _bias,
    "masked_conv2d": _masked_conv2d,
    "min_area_polygons": _min_area_polygons,
    "modulated_deform_conv2d": _modulated,
    "multi_scale_deformable_attn": _attention,
    "nms": _nms,
    "nms_bev": _nms_bev,
    "nms_match": _nms_match,
    "nms_quadri": _nms_quadri,
    "nms_rotated": _nms_rotated,
    "pixel_group": _pixel_group,
    "point_sample": _point_sample,
    "points_in_polygons": _points_in_polygons,
    "psa_mask": _psa_mask,
    "rel_roi_point_to_rel_img_point": _relative_points,
    "riroi_align_rotated": _riroi_align_rotated,
    "roi_align": _roi(ops.roi_align, 0, "avg", True),
    "roi_align of maxima": _roi(ops.roi_align, 0, "max", False),
    "roi_align_rotated": _roi_align_rotated,
    "roi_pool": _roi(ops.roi_pool),
    "rotated_feature_align": _rotated_feature_align,
    "sigmoid_focal_loss": _focal(ops.sigmoid_focal_loss),
    "soft_nms": _soft_nms,
    "softmax_focal_loss": _focal(ops.softmax_focal_loss),
    "tin_shift": _tin_shift,
    "upfirdn2d": _upfirdn2d,
}

ARRAYS = ("nms", "soft_nms", "nms_match", "nms_quadri", "nms_rotated", "pixel_group", "contour_expand")

LAYERS: dict[str, Sampler] = {
    "BorderAlign": layer(ops.BorderAlign, [3], lambda c: _border_align(c)[1][:2]),
    "CARAFE": layer(ops.CARAFE, [3, 2, 2], lambda c: _carafe(ops.carafe)(c)[1][:2]),
    "CARAFEPack": layer(ops.CARAFEPack, [8, 2, 3, 2, 3, 1, 4], _map),
    "ConcatCell": layer(lambda i, o: ops.ConcatCell(i, o), [8, 8], _two_maps),
    "CornerPool": layer(ops.CornerPool, ["top"], _map),
    "Correlation": layer(ops.Correlation, [3, 2, 1, 1, 1, 2], lambda c: _correlation(c)[1][:2]),
    "CrissCrossAttention": layer(ops.CrissCrossAttention, [8], _map),
    "DeformConv2d": layer(ops.DeformConv2d, [8, 4, 3, 1, 1, 1, 2], _deform_layer(2)),
    "DeformConv2dPack": layer(ops.DeformConv2dPack, [8, 4, 3, 2, 1, 1, 1, 2], _map),
    "DeformRoIPool": layer(ops.DeformRoIPool, [(2, 3), 1.0, 0, 0.1], _map_and_rois),
    "DeformRoIPoolPack": layer(ops.DeformRoIPoolPack, [(2, 3), 4, 8, 1.0, 0, 0.1], _map_and_rois),
    "FusedBiasLeakyReLU": layer(ops.FusedBiasLeakyReLU, [8, 0.2, 1.4], _map),
    "GlobalPoolingCell": layer(lambda i, o: ops.GlobalPoolingCell(i, o), [8, 8], _two_maps),
    "MaskedConv2d": layer(ops.MaskedConv2d, [4, 5, 3, 1, 1], lambda c: _masked_conv2d(c)[1][:2]),
    "ModulatedDeformConv2d": layer(ops.ModulatedDeformConv2d, [8, 4, 3, 1, 1, 1, 2], _deform_layer(3)),
    "ModulatedDeformConv2dPack": layer(ops.ModulatedDeformConv2dPack, [8, 4, 3, 2, 1, 1, 1, 2], _map),
    "ModulatedDeformRoIPoolPack": layer(
        ops.ModulatedDeformRoIPoolPack, [(2, 3), 4, 8, 1.0, 0, 0.1], _map_and_rois
    ),
    "MultiScaleDeformableAttention": layer(
        ops.MultiScaleDeformableAttention, [8, 2, 2, 3, 64, 0.1, False], _attention_layer
    ),
    "PSAMask": layer(ops.PSAMask, ["collect", (3, 5)], lambda c: _psa_mask(c)[1][:1]),
    "RiRoIAlignRotated": layer(
        ops.RiRoIAlignRotated, [(2, 3), 0.5, 2, 4, True], lambda c: _riroi_align_rotated(c)[1][:2]
    ),
    "RoIAlign": layer(ops.RoIAlign, [(2, 3), 0.5, 2, "max", True], _map_and_rois),
    "RoIAlignRotated": layer(
        ops.RoIAlignRotated, [(2, 3), 0.5, 2, True, True], lambda c: _roi_align_rotated(c)[1][:2]
    ),
    "RoIPool": layer(ops.RoIPool, [(2, 3), 0.5], _map_and_rois),
    "SAConv2d": layer(ops.SAConv2d, [8, 4, 3, 1, 1, 1, 1, True, True], _map),
    "SigmoidFocalLoss": layer(
        ops.SigmoidFocalLoss, [2.0, 0.25, None, "mean"], lambda c: _focal(None)(c)[1][:2]
    ),
    "SimpleRoIAlign": layer(ops.SimpleRoIAlign, [(2, 3), 0.5, True], _map_and_rois),
    "SoftmaxFocalLoss": layer(
        ops.SoftmaxFocalLoss, [2.0, 0.25, None, "mean"], lambda c: _focal(None)(c)[1][:2]
    ),
    "SumCell": layer(lambda i, o: ops.SumCell(i, o), [8, 8], _two_maps),
    "SyncBatchNorm": layer(ops.SyncBatchNorm, [8, 1e-5, 0.1, True, True], _map),
    "TINShift": layer(ops.TINShift, [], lambda c: _tin_shift(c)[1]),
}

#: Those that are made of torch's own operators have none of ours below them.
COMPOSED = ("bilinear_grid_sample", "masked_conv2d", "point_sample", "rel_roi_point_to_rel_img_point")

SAMPLERS: dict[str, Sampler] = {
    **FUNCTIONS,
    **{f"{name} of arrays": _arrays(FUNCTIONS[name]) for name in ARRAYS},
    **LAYERS,
    **{f"native:{name}": _native(sampler) for name, sampler in FUNCTIONS.items() if name not in COMPOSED},
}
