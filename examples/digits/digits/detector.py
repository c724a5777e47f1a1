"""A two-stage detector: dense class-agnostic proposals, then RoIAlign and a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cv.cnn import MODELS, BaseModule, ConvModule, ModuleList
from cv.ops import RoIAlign, batched_nms, bbox_overlaps, nms, sigmoid_focal_loss

Detections = list[NDArray[np.float32]]


@MODELS.register_module()
class SmallBackbone(BaseModule):
    """Convolutions at stride 2, 4 and 8; the two coarser maps are merged at stride 4.

    Args:
        channels: of the three stages; the last two are alike.
        norm_cfg: normalisation of every convolution.
        last_conv_cfg: the convolution at stride 8, by its name in the registry.
    """

    def __init__(
        self,
        channels: list[int],
        norm_cfg: dict[str, Any],
        last_conv_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)  # every ConvModule initialises itself
        first, second, third = channels
        self.stem = ConvModule(3, first, 5, stride=2, padding=2, norm_cfg=norm_cfg)
        self.fine = ModuleList(
            [
                ConvModule(first, second, 3, stride=2, padding=1, norm_cfg=norm_cfg),
                ConvModule(second, second, 3, padding=1, norm_cfg=norm_cfg),
            ]
        )
        self.coarse = ModuleList(
            [
                ConvModule(second, third, 3, stride=2, padding=1, norm_cfg=norm_cfg),
                ConvModule(third, third, 3, padding=1, conv_cfg=last_conv_cfg, norm_cfg=norm_cfg),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Image ``(N, 3, H, W)`` to features ``(N, C, H / 4, W / 4)``."""
        x = self.stem(x)
        for layer in self.fine:
            x = layer(x)
        y = x
        for layer in self.coarse:
            y = layer(y)
        return x + F.interpolate(y, size=x.shape[-2:], mode="nearest")


@MODELS.register_module()
class ProposalHead(BaseModule):
    """Says for every cell how likely a digit is centred there, and how far its sides are away.

    Args:
        in_channels: channels of the features.
        stride: pixels of the image per cell.
        keep: proposals kept per image.
        nms: keyword arguments of :func:`cv.ops.nms`.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        keep: int,
        nms: dict[str, Any],
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or dict(
                type="Normal",
                layer="Conv2d",
                std=0.01,
                override=dict(type="Normal", name="score", std=0.01, bias_prob=0.01),
            )
        )
        self.stride, self.keep, self.nms_cfg = stride, keep, nms
        self.conv = ConvModule(in_channels, in_channels, 3, padding=1, norm_cfg=dict(type="BN"))
        self.score = nn.Conv2d(in_channels, 1, 1)
        self.sides = nn.Conv2d(in_channels, 4, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, C, h, w)`` to logits ``(N, h * w)`` and boxes ``(N, h * w, 4)`` in pixels."""
        x = self.conv(features)
        sides = self.sides(x).exp().clamp(max=64.0) * self.stride
        sides = sides.flatten(2).transpose(1, 2)
        centres = self.centres(features)
        return self.score(x).flatten(1), torch.cat(
            [centres - sides[..., :2], centres + sides[..., 2:]], dim=-1
        )

    def centres(self, features: Tensor) -> Tensor:
        """Centres of the cells, ``(h * w, 2)`` as x, y in pixels."""
        h, w = features.shape[-2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        return ((torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * self.stride).to(features)

    def loss(self, features: Tensor, logits: Tensor, boxes: Tensor, truth: list[Tensor]) -> dict[str, Tensor]:
        """Focal loss of the logits, IoU loss of the boxes of the cells that belong to a digit."""
        centres = self.centres(features)
        owners = torch.stack([owner_of(centres, gt) for gt in truth])
        positive = owners >= 0
        count = positive.sum().clamp(min=1)
        background_is_last = (~positive).long().flatten()  # class 0 is "digit", 1 the background
        score = sigmoid_focal_loss(logits.reshape(-1, 1), background_is_last, 2.0, 0.25, None, "sum") / count
        wanted = torch.cat([gt[owner[owner >= 0]] for gt, owner in zip(truth, owners, strict=True)])
        return {
            "loss_proposal_score": score,
            "loss_proposal_box": -paired_iou(boxes[positive], wanted).clamp(min=1e-3).log().sum() / count,
        }

    @torch.no_grad()
    def propose(self, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The best boxes of each image, ``(n, 4)``, clipped to ``size`` (height, width)."""
        proposals = []
        for scores, candidates in zip(logits.sigmoid(), boxes, strict=True):
            top = scores.topk(min(8 * self.keep, len(scores)))
            clipped = clip(candidates[top.indices], size)
            kept = nms(clipped, top.values, **self.nms_cfg)[1][: self.keep]
            proposals.append(clipped[kept])
        return proposals


@MODELS.register_module()
class RoIHead(BaseModule):
    """Names what a proposal holds and corrects its sides.

    Args:
        in_channels: channels of the features.
        num_classes: classes without the background.
        roi_layer: keyword arguments of :class:`cv.ops.RoIAlign`.
        score_threshold: detections below it are dropped.
        nms: configuration of :func:`cv.ops.batched_nms`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        roi_layer: dict[str, Any],
        score_threshold: float,
        nms: dict[str, Any],
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        # The last layers start near zero: no name is likelier than another, no side is moved.
        last = [dict(type="Normal", name=name, std=0.01) for name in ("name", "correction")]
        super().__init__(init_cfg or dict(type="Kaiming", layer=["Conv2d", "Linear"], override=last))
        self.num_classes, self.score_threshold, self.nms_cfg = num_classes, score_threshold, nms
        self.align = RoIAlign(**roi_layer)
        self.conv = ConvModule(in_channels, 64, 3, norm_cfg=dict(type="BN"))
        self.hidden = nn.Linear(64 * (roi_layer["output_size"] - 2) ** 2, 128)
        self.name = nn.Linear(128, num_classes + 1)  # the last one is the background
        self.correction = nn.Linear(128, 4)

    def forward(self, features: Tensor, proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits ``(K, classes + 1)`` and corrections ``(K, 4)`` of all proposals of the batch."""
        indices = [torch.full((len(p), 1), float(i)).to(p) for i, p in enumerate(proposals)]
        rois = torch.cat([torch.cat(pair, dim=1) for pair in zip(indices, proposals, strict=True)])
        x = F.relu(self.hidden(self.conv(self.align(features, rois)).flatten(1)))
        return self.name(x), self.correction(x)

    def loss(
        self, features: Tensor, proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """Cross entropy of the names, smooth L1 of the corrections of proposals that hold a digit."""
        proposals = [torch.cat([p, gt]) for p, gt in zip(proposals, boxes, strict=True)]
        logits, corrections = self(features, proposals)
        names, wanted = [], []
        for proposal, gt, label in zip(proposals, boxes, labels, strict=True):
            overlap, owner = bbox_overlaps(proposal, gt).max(dim=1)
            names.append(torch.where(overlap >= 0.5, label[owner], self.num_classes))
            wanted.append(encode(proposal, gt[owner]))
        name = torch.cat(names)
        holds = name < self.num_classes
        correction = F.smooth_l1_loss(corrections[holds], torch.cat(wanted)[holds], beta=0.1)
        return {"loss_name": F.cross_entropy(logits, name), "loss_correction": correction}

    @torch.no_grad()
    def detect(self, features: Tensor, proposals: list[Tensor], size: tuple[int, int]) -> list[Detections]:
        """Per image and class the detections ``(n, 5)``: x1, y1, x2, y2, score."""
        logits, corrections = self(features, proposals)
        counts = [len(p) for p in proposals]
        return [
            self._detect_one(clip(decode(p, d), size), s)
            for p, d, s in zip(
                proposals, corrections.split(counts), logits.softmax(1).split(counts), strict=True
            )
        ]

    def _detect_one(self, boxes: Tensor, scores: Tensor) -> Detections:
        box, label = (scores[:, :-1] > self.score_threshold).nonzero(as_tuple=True)
        found, kept = batched_nms(boxes[box], scores[box, label], label, self.nms_cfg)
        names = label[kept]
        return [found[names == c].cpu().numpy() for c in range(self.num_classes)]


@MODELS.register_module()
class DigitDetector(BaseModule):
    """Backbone, proposals and classifier, with the methods that the runner and the test loop call."""

    CLASSES = tuple("0123456789")  # the runner writes it into every checkpoint

    def __init__(
        self,
        backbone: dict[str, Any],
        proposals: dict[str, Any],
        classifier: dict[str, Any],
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)
        self.proposals = MODELS.build(proposals)
        self.classifier = MODELS.build(classifier)

    def forward(self, img: Tensor, return_loss: bool = True, **data: Any) -> Any:
        """Losses by name with ``return_loss``, else detections per image and class."""
        features = self.backbone(img)
        logits, boxes = self.proposals(features)
        size = (img.shape[-2], img.shape[-1])
        proposals = self.proposals.propose(logits, boxes, size)
        if not return_loss:
            return self.classifier.detect(features, proposals, size)
        truth = data["gt_bboxes"]
        return {
            **self.proposals.loss(features, logits, boxes, truth),
            **self.classifier.loss(features, proposals, truth, data["gt_labels"]),
        }

    def train_step(self, data: dict[str, Any], optimizer: object) -> dict[str, Any]:
        """One batch: the loss to minimise, what to log, and how many samples it stands for."""
        losses = self(**data)
        total = sum(losses.values())
        log = {name: float(value.detach()) for name, value in {**losses, "loss": total}.items()}
        return {"loss": total, "log_vars": log, "num_samples": len(data["img"])}


# --- boxes, all (n, 4) as x1, y1, x2, y2 in pixels -------------------------------------------------------


def owner_of(centres: Tensor, boxes: Tensor) -> Tensor:
    """For each cell the box in whose middle half it lies (the smallest if several), -1 for none."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = (boxes[:, 2:] - boxes[:, :2]) / 4
    inside = ((centres[:, None] - middle).abs() < reach).all(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    smallest, owner = torch.where(inside, area, torch.inf).min(dim=1)
    return torch.where(smallest.isinf(), -1, owner)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of ``a[i]`` and ``b[i]``, differentiable."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    areas = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1)
    return overlap / (areas - overlap)


def encode(boxes: Tensor, wanted: Tensor) -> Tensor:
    """How far the sides of ``wanted`` lie from those of ``boxes``, as parts of the boxes' own size."""
    return (wanted - boxes) / _sizes(boxes)


def decode(boxes: Tensor, correction: Tensor) -> Tensor:
    """The inverse of :func:`encode`."""
    return boxes + correction * _sizes(boxes)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes within an image of ``size`` (height, width)."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def _sizes(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0).repeat(1, 2)
