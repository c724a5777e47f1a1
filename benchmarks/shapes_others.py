"""Shapes of losses, filters, pooling and normalisation, for ``bench_shapes.py``."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from bench_corner_pool import composed as composed_corner_pool
from bench_fused_bias_leakyrelu import composed as composed_bias
from bench_psa_mask import source_table
from bench_sigmoid_focal_loss import composed as composed_sigmoid
from bench_softmax_focal_loss import composed as composed_softmax
from bench_text_kernels import text_maps
from bench_tin_shift import composed as composed_shift
from bench_upfirdn2d import composed as composed_filter
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler, layout

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _logits(draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    classes = draw.choice([1, 2, 3, draw.log(1, 100), draw.log(1, 2000)])
    rows = draw.log(1, max(1, 1_000_000 // classes))
    return torch.randn(rows, classes, requires_grad=True), torch.randint(0, classes, (rows,))


def _sigmoid_focal_loss(draw: Draw) -> Case:
    logits, target = _logits(draw)
    gamma = draw.choice([2.0, 2.0, 1.0, 0.0, 1.5])
    one_hot = F.one_hot(target, logits.shape[1]).float()
    calls = {
        "cv": lambda: ops.sigmoid_focal_loss(logits, target, gamma),
        "composed": lambda: composed_sigmoid(logits, target, gamma),
    }
    if TV is not None:  # from a one-hot target, which it is given
        calls["torchvision"] = lambda: TV.sigmoid_focal_loss(logits, one_hot, gamma=gamma, reduction="mean")
    return Case(f"{layout(logits)}, gamma {gamma}", calls, (logits,))


def _softmax_focal_loss(draw: Draw) -> Case:
    logits, target = _logits(draw)
    gamma = draw.choice([2.0, 2.0, 1.0, 0.0, 1.5])
    calls = {
        "cv": lambda: ops.softmax_focal_loss(logits, target, gamma),
        "composed": lambda: composed_softmax(logits, target, gamma),
    }
    return Case(f"{layout(logits)}, gamma {gamma}", calls, (logits,))


def _upfirdn2d(draw: Draw) -> Case:
    n, channels, height, width = draw.log(1, 4), draw.log(1, 128), draw.log(1, 128), draw.log(1, 128)
    x = draw.map(n, channels, height, width).requires_grad_()
    up, down, taps = draw.choice([1, 1, 2, 3]), draw.choice([1, 1, 2, 3]), draw.choice([1, 2, 3, 4, 4, 6, 12])
    row = torch.rand(taps)
    kernel = torch.outer(row, row) if draw.random() < 0.7 else torch.rand(taps, taps)
    pad = (taps // 2, taps - 1 - taps // 2 + down)
    calls = {
        "cv": lambda: ops.upfirdn2d(x, kernel, up, down, pad),
        "composed": lambda: composed_filter(x, kernel, up, down, pad),
    }
    if MM is not None:
        calls["mmcv"] = lambda: MM.upfirdn2d(x, kernel, up, down, pad)
    return Case(f"{layout(x)}, {taps} taps, up {up}, down {down}", calls, (x,))


def _fused_bias_leakyrelu(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 16), draw.log(1, 512), draw.log(1, 128), draw.log(1, 32)).requires_grad_()
    if draw.random() < 0.3:
        x = torch.randn(draw.log(1, 2000), draw.log(1, 1000), requires_grad=True)
    bias = torch.randn(x.shape[1], requires_grad=True)
    calls = {"cv": lambda: ops.fused_bias_leakyrelu(x, bias), "composed": lambda: composed_bias(x, bias)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.fused_bias_leakyrelu(x, bias)
    return Case(layout(x), calls, (x, bias))


def _corner_pool(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 4), draw.log(1, 128), draw.log(1, 128), draw.log(1, 128)).requires_grad_()
    mode = draw.choice(["bottom", "left", "right", "top"])
    calls = {"cv": lambda: ops.corner_pool(x, mode), "composed": lambda: composed_corner_pool(x, mode)}
    if MM is not None:
        calls["mmcv"] = functools.partial(MM.CornerPool(mode), x)
    return Case(f"{layout(x)}, {mode}", calls, (x,))


def _psa_mask(draw: Draw) -> Case:
    n, height, width = draw.log(1, 4), draw.log(1, 30), draw.log(1, 30)
    size, kind = (2 * height - 1, 2 * width - 1), draw.choice(["collect", "distribute"])
    x = draw.map(n, size[0] * size[1], height, width).requires_grad_()
    table = source_table(kind, height, width, x.device).flatten()
    calls = {
        "cv": lambda: ops.psa_mask(x, kind, size),
        "composed": lambda: x.flatten(1).index_select(1, table).reshape(n, height * width, height, width),
    }
    if MM is not None:
        calls["mmcv"] = functools.partial(MM.PSAMask(kind, size), x.contiguous())
    return Case(f"{layout(x)}, {kind}", calls, (x,))


def _tin_shift(draw: Draw) -> Case:
    groups = draw.choice([1, 2, 4, 8])
    n, times, channels, pixels = draw.log(1, 8), draw.log(1, 16), groups * draw.log(1, 32), draw.log(1, 3136)
    x = torch.randn(n, times, channels, pixels, requires_grad=True)
    shift = torch.randint(-times, times + 1, (n, groups))
    calls = {"cv": lambda: ops.tin_shift(x, shift), "composed": lambda: composed_shift(x, shift)}
    return Case(f"{layout(x)}, {groups} groups", calls, (x,))


def _criss_cross_attention(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 2), draw.log(1, 256), draw.log(1, 64), draw.log(1, 64)).requires_grad_()
    ours = ops.CrissCrossAttention(x.shape[1])
    ours.gamma.scale.data.fill_(0.5)
    calls = {"cv": lambda: ours(x)}
    if MM is not None and x.shape[1] >= 8:
        theirs = MM.CrissCrossAttention(x.shape[1])
        theirs.load_state_dict(ours.state_dict())
        calls["mmcv"] = lambda: theirs(x)
    return Case(layout(x), calls, (x,))


def _point_sample(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 4), draw.log(1, 256), draw.log(1, 128), draw.log(1, 128)).requires_grad_()
    points, align = torch.rand(len(x), draw.log(1, 5000), 2), draw.random() < 0.5
    calls = {
        "cv": lambda: ops.point_sample(x, points, align),
        "composed": lambda: F.grid_sample(x, points[:, :, None] * 2 - 1, align_corners=align).squeeze(3),
    }
    if MM is not None:
        calls["mmcv"] = lambda: MM.point_sample(x, points, align)
    return Case(f"{layout(x)}, {points.shape[1]} points", calls, (x,))


def _rel_roi_point_to_rel_img_point(draw: Draw) -> Case:
    rois = draw.rois(draw.log(1, 1000), 2, 100.0, 100.0)
    points, size = torch.rand(len(rois), draw.log(1, 800), 2), (100, 200)
    calls = {"cv": lambda: ops.rel_roi_point_to_rel_img_point(rois, points, size, 0.25)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.rel_roi_point_to_rel_img_point(rois, points, size, 0.25)
    return Case(layout(points), calls)


def _sync_bn_eval(draw: Draw) -> Case:
    x = draw.map(draw.log(1, 8), draw.log(1, 256), draw.log(1, 64), draw.log(1, 64)).requires_grad_()
    ours, theirs = ops.SyncBatchNorm(x.shape[1]).eval(), torch.nn.BatchNorm2d(x.shape[1]).eval()
    return Case(layout(x), {"cv": lambda: ours(x), "composed": lambda: theirs(x)}, (x,))


def _contour_expand(draw: Draw) -> Case:
    size, kernels = draw.log(130, 800), draw.log(1, 9)
    masks, labels = text_maps(size, kernels)
    calls = {"cv": lambda: ops.contour_expand(masks, labels, 1, int(labels.max()) + 1)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.contour_expand(masks, labels, 1, int(labels.max()) + 1)
    return Case(f"{size} x {size}, {kernels} kernels", calls)


def _pixel_group(draw: Draw) -> Case:
    size, channels, noise = draw.log(48, 800), draw.choice([1, 4, 4, 8]), draw.choice([0.0, 0.0, 0.1, 0.5])
    masks, labels = text_maps(size, 7)
    kept = torch.rand(size, size).numpy() >= noise
    mask, labels = masks[0] * kept, labels * kept
    embedding, score = torch.rand(size, size, channels).numpy() * 0.3, torch.rand(size, size).numpy()
    rest = (embedding, labels, (labels > 0).astype("uint8"), int(labels.max()) + 1, draw.choice([0.2, 0.8]))
    calls = {"cv": lambda: ops.pixel_group(score, mask, *rest)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.pixel_group(score, mask > 0, *rest)
    return Case(f"{size} x {size}, {channels} channels, noise {noise}", calls)


SAMPLERS: dict[str, Sampler] = {
    "contour_expand": _contour_expand,
    "corner_pool": _corner_pool,
    "criss_cross_attention": _criss_cross_attention,
    "fused_bias_leakyrelu": _fused_bias_leakyrelu,
    "pixel_group": _pixel_group,
    "point_sample": _point_sample,
    "psa_mask": _psa_mask,
    "rel_roi_point_to_rel_img_point": _rel_roi_point_to_rel_img_point,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
    "softmax_focal_loss": _softmax_focal_loss,
    "sync_bn_eval": _sync_bn_eval,
    "tin_shift": _tin_shift,
    "upfirdn2d": _upfirdn2d,
}
