"""Shapes of the operators on boxes, for ``bench_shapes.py``."""

from __future__ import annotations

import math

import torch
from bench_bbox_overlaps import composed as composed_overlaps
from bench_box_iou_rotated import composed as composed_rotated
from bench_nms_rotated import composed as composed_nms_rotated
from bench_soft_nms import composed as composed_soft_nms
from bench_soft_nms import composed_match
from op_timing import mmcv_ops, torchvision_ops
from shapes_draw import Case, Draw, Sampler
from torch import Tensor

from cv import ops

TV, MM = torchvision_ops(), mmcv_ops()


def _scene(draw: Draw, count: int) -> tuple[str, Tensor]:
    """Boxes spread, around few objects, the same many times, without area, or most inside of one."""
    kind = draw.choice(["spread", "clustered", "duplicates", "degenerate", "one over all"])
    size = draw.choice([100.0, 1000.0])
    boxes = draw.boxes(count, size, size)
    if kind == "clustered":
        objects = draw.boxes(draw.log(1, 30), size, size)
        boxes = objects[torch.randint(0, len(objects), (count,))] + torch.randn(count, 4) * size / 100
        boxes = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), boxes.view(-1, 2, 2).amax(1)], 1)
    elif kind == "duplicates":
        boxes = boxes[torch.randint(0, max(1, count // draw.log(2, 100)), (count,))]
    elif kind == "degenerate":
        flat = torch.rand(count) < 0.5
        boxes[flat, 2] = boxes[flat, 0]
    elif kind == "one over all":
        boxes[count // 2] = torch.tensor([0.0, 0.0, size, size])
    return f"{count} boxes, {kind}, in {size:.0f} x {size:.0f}", boxes


def _scores(draw: Draw, count: int) -> tuple[str, Tensor]:
    kind = draw.choice(["", "", ", scores sorted", ", scores equal", ", scores in tenths"])
    scores = torch.rand(count)
    if kind.endswith("sorted"):
        scores = scores.sort(descending=True).values
    elif kind.endswith("equal"):
        scores = torch.full((count,), 0.5)
    elif kind.endswith("tenths"):
        scores = (scores * 10).ceil() / 10
    return kind, scores


def _nms(draw: Draw) -> Case:
    count = draw.log(1, 20000)
    (what, boxes), (kind, scores) = _scene(draw, count), _scores(draw, count)
    threshold, offset = draw.choice([0.0, 0.3, 0.5, 0.7, 1.0]), draw.choice([0, 0, 0, 1])
    calls = {"cv": lambda: ops.nms(boxes, scores, threshold, offset)}
    if TV is not None and offset == 0:
        calls["torchvision"] = lambda: TV.nms(boxes, scores, threshold)
    if MM is not None:
        calls["mmcv"] = lambda: MM.nms(boxes, scores, threshold, offset)
    return Case(f"{what}{kind}, threshold {threshold}, offset {offset}", calls)


def _batched_nms(draw: Draw) -> Case:
    count, classes = draw.log(1, 20000), draw.log(1, 1000)
    (what, boxes), (kind, scores) = _scene(draw, count), _scores(draw, count)
    labels, threshold = torch.randint(0, classes, (count,)), draw.choice([0.3, 0.5, 0.7])
    config = {"type": "nms", "iou_threshold": threshold}
    calls = {"cv": lambda: ops.batched_nms(boxes, scores, labels, config)}
    if TV is not None:
        calls["torchvision"] = lambda: TV.batched_nms(boxes, scores, labels, threshold)
    if MM is not None:
        calls["mmcv"] = lambda: MM.batched_nms(boxes, scores, labels, config)
    return Case(f"{what}{kind}, {classes} classes, threshold {threshold}", calls)


def _soft_nms(draw: Draw) -> Case:
    count = draw.log(1, 2000)
    (what, boxes), (kind, scores) = _scene(draw, count), _scores(draw, count)
    method = draw.choice(["linear", "gaussian", "naive"])
    calls = {"cv": lambda: ops.soft_nms(boxes, scores, method=method)}
    if method != "naive" and count < 300:
        calls["composed"] = lambda: composed_soft_nms(boxes, scores, method)
    if MM is not None:
        calls["mmcv"] = lambda: MM.soft_nms(boxes, scores, method=method)
    return Case(f"{what}{kind}, {method}", calls)


def _nms_match(draw: Draw) -> Case:
    count = draw.log(1, 5000)
    (what, boxes), (kind, scores) = _scene(draw, count), _scores(draw, count)
    dets, threshold = torch.cat([boxes, scores[:, None]], 1), draw.choice([0.3, 0.5, 0.7])
    calls = {"cv": lambda: ops.nms_match(dets, threshold)}
    if MM is not None:
        calls["mmcv"] = lambda: MM.nms_match(dets, threshold)
    elif threshold == 0.5:
        calls["composed"] = lambda: composed_match(dets)
    return Case(f"{what}{kind}, threshold {threshold}", calls)


def _turned(draw: Draw, boxes: Tensor) -> tuple[str, Tensor]:
    """(K, 5) centre, sides and angle of (K, 4) corners."""
    kind = draw.choice(["any angle", "upright", "quarters"])
    angle = (torch.rand(len(boxes), 1) - 0.5) * math.pi
    if kind != "any angle":
        angle = torch.zeros_like(angle) if kind == "upright" else (angle * 2).round() * math.pi / 2
    low, high = boxes[:, :2], boxes[:, 2:]
    return f", {kind}", torch.cat([(low + high) / 2, high - low, angle], 1)


def _nms_rotated(draw: Draw) -> Case:
    count = draw.log(1, 1000)
    (what, boxes), (kind, scores) = _scene(draw, count), _scores(draw, count)
    angles, rotated = _turned(draw, boxes)
    threshold = draw.choice([0.1, 0.3, 0.5, 1.0])
    calls = {"cv": lambda: ops.nms_rotated(rotated, scores, threshold)}
    calls["composed"] = lambda: composed_nms_rotated(rotated, scores, threshold)
    if MM is not None:
        calls["mmcv"] = lambda: MM.nms_rotated(rotated, scores, threshold)
    return Case(f"{what}{angles}{kind}, threshold {threshold}", calls)


def _pair(draw: Draw, most: int) -> tuple[str, Tensor, Tensor, bool]:
    aligned = draw.random() < 0.3
    (what, a), (other, b) = _scene(draw, draw.log(1, most)), _scene(draw, draw.log(1, most))
    if aligned:
        b = b[torch.arange(len(a)) % len(b)]
        other = "aligned"
    return f"{what}; {other}", a, b, aligned


def _bbox_overlaps(draw: Draw) -> Case:
    what, a, b, aligned = _pair(draw, 3000)
    mode, offset = draw.choice(["iou", "iof"]), draw.choice([0, 0, 1])
    calls = {"cv": lambda: ops.bbox_overlaps(a, b, mode, aligned, offset)}
    if mode == "iou" and offset == 0 and not aligned:
        calls["composed"] = lambda: composed_overlaps(a, b)
        if TV is not None:
            calls["torchvision"] = lambda: TV.box_iou(a, b)
    if MM is not None:
        calls["mmcv"] = lambda: MM.bbox_overlaps(a, b, mode, aligned, offset)
    return Case(f"{what}, {mode}, offset {offset}", calls)


def _box_iou_rotated(draw: Draw) -> Case:
    what, a, b, aligned = _pair(draw, 500)
    (angles, a), (_, b) = _turned(draw, a), _turned(draw, b)
    mode = draw.choice(["iou", "iof"])
    calls = {"cv": lambda: ops.box_iou_rotated(a, b, mode, aligned)}
    if mode == "iou" and not aligned and len(a) * len(b) < 20_000:
        calls["composed"] = lambda: composed_rotated(a, b)
    if MM is not None:
        calls["mmcv"] = lambda: MM.box_iou_rotated(a, b, mode, aligned)
    return Case(f"{what}{angles}, {mode}", calls)


SAMPLERS: dict[str, Sampler] = {
    "batched_nms": _batched_nms,
    "bbox_overlaps": _bbox_overlaps,
    "box_iou_rotated": _box_iou_rotated,
    "nms": _nms,
    "nms_match": _nms_match,
    "nms_rotated": _nms_rotated,
    "soft_nms": _soft_nms,
}
