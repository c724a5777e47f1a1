"""Scenes: scanned digits, scaled, rotated and inked onto crops of photographs.

The digits are scikit-learn's 1,797 scans (8 x 8 pixels, 17 grey levels); the photographs ship with
scikit-image. Each digit and each photograph belongs to one split only: ``train`` is learned from, ``val``
chooses the checkpoint, ``test`` is looked at once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

import cv.image
from cv.parallel import DataContainer
from cv.runner.train import DATASETS

from .metrics import average_precision

CLASSES = tuple("0123456789")
PHOTOGRAPHS = {
    "train": ("astronaut.png", "camera.png", "motorcycle_left.png", "brick.png", "grass.png"),
    "val": ("chelsea.png", "gravel.png"),
    "test": ("coffee.png", "rocket.jpg"),
}
# Which scans: of every eight, the first and the fifth are for testing, the second for validation.
REMAINDERS = {"train": (2, 3, 5, 6, 7), "val": (1,), "test": (0, 4)}
MEAN, STD = np.array([120.0, 120.0, 120.0]), np.array([60.0, 60.0, 60.0])
Split = Literal["train", "val", "test"]


@dataclass
class Digit:
    """One digit cut out for pasting.

    Attributes:
        ink: how much ink each pixel holds, ``(h, w)`` float32 [0, 1].
        label: 0 to 9.
        box: the inked part within ``ink``: x1, y1, x2, y2 in pixels, ends exclusive.
    """

    ink: NDArray[np.float32]
    label: int
    box: NDArray[np.float32]


class DigitSource:
    """Draws random digits and backgrounds of one split."""

    def __init__(self, split: Split) -> None:
        scans = load_digits()
        mine = np.isin(np.arange(len(scans.target)) % 8, REMAINDERS[split])
        self.images = (scans.images[mine] / 16.0).astype(np.float32)
        self.labels = scans.target[mine]
        folder = Path(skimage.__file__).parent / "data"
        self.photographs = [cv.image.imread(folder / name) for name in PHOTOGRAPHS[split]]

    def background(self, rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
        """A random part of a random photograph, ``(height, width, 3)`` BGR uint8."""
        photograph = self.photographs[rng.integers(len(self.photographs))]
        least = max(width / photograph.shape[1], height / photograph.shape[0])
        photograph = cv.image.imrescale(photograph, max(least, rng.uniform(0.4, 1.0)) + 1e-3)
        x = rng.integers(photograph.shape[1] - width + 1)
        y = rng.integers(photograph.shape[0] - height + 1)
        part = cv.image.imcrop(photograph, np.array([x, y, x + width - 1, y + height - 1]))
        return cv.image.adjust_brightness(part, rng.uniform(0.6, 1.2))

    def digit(self, rng: np.random.Generator) -> Digit:
        """A random digit, 20 to 44 pixels high, turned by up to 15 degrees."""
        index = rng.integers(len(self.labels))
        size = int(rng.integers(20, 45))
        ink = cv.image.imresize(self.images[index], (size, size), interpolation="bicubic")
        ink = cv.image.imrotate(ink, rng.uniform(-15, 15), auto_bound=True).clip(0.0, 1.0)
        rows, columns = np.nonzero(ink > 0.3)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32)
        return Digit(ink, int(self.labels[index]), box)


def paste(image: NDArray[np.uint8], digit: Digit, x: int, y: int, colour: NDArray[np.float32]) -> None:
    """Ink ``digit`` into ``image`` (changed in place) with its upper left corner at ``(x, y)``."""
    height, width = digit.ink.shape
    part = image[y : y + height, x : x + width]
    ink = digit.ink[..., None]
    part[:] = np.rint(part * (1.0 - ink) + colour * ink).astype(np.uint8)


def ink_colour(rng: np.random.Generator, background: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A random BGR colour that is bright on a dark background and dark on a bright one."""
    colour = rng.uniform(170, 255, 3) if background.mean() < 110 else rng.uniform(0, 70, 3)
    return colour.astype(np.float32)


@DATASETS.register_module()
class DigitScenes(Dataset[dict[str, Any]]):
    """Scenes of one to five digits that do not overlap; scene ``i`` is always the same picture.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        length: how many scenes there are.
        image_size: width and height in pixels.
    """

    CLASSES = CLASSES

    def __init__(self, split: Split, length: int, image_size: int) -> None:
        self.split, self.length, self.image_size = split, length, image_size
        self.source = DigitSource(split)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, boxes, labels = self.scene(index)
        pixels = cv.image.imnormalize(image, MEAN, STD, to_rgb=True)
        item = {
            "img": DataContainer(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), stack=True),
            "img_metas": DataContainer({"index": index}, cpu_only=True),
        }
        if self.split == "train":
            item["gt_bboxes"] = DataContainer(torch.from_numpy(boxes))
            item["gt_labels"] = DataContainer(torch.from_numpy(labels))
        return item

    def scene(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """Picture ``(S, S, 3)`` BGR uint8, boxes ``(G, 4)`` as x1, y1, x2, y2, labels ``(G,)``."""
        rng = np.random.default_rng([index, tuple(PHOTOGRAPHS).index(self.split)])
        image = self.source.background(rng, self.image_size, self.image_size)
        taken: list[tuple[int, int, int, int]] = []
        boxes, labels = [], []
        for _ in range(rng.integers(1, 6)):
            digit = self.source.digit(rng)
            place = free_place(rng, taken, digit.ink.shape, self.image_size)
            if place is None:
                continue
            x, y = place
            height, width = digit.ink.shape
            paste(image, digit, x, y, ink_colour(rng, image[y : y + height, x : x + width]))
            taken.append((x, y, x + width, y + height))
            boxes.append(digit.box + np.array([x, y, x, y], dtype=np.float32))
            labels.append(digit.label)
        return image, np.stack(boxes), np.array(labels, dtype=np.int64)

    def evaluate(self, results: list[list[NDArray[np.float32]]], logger: Any = None) -> dict[str, float]:
        """AP at IoU 0.5 of ``results``: per scene, per class, ``(n, 5)`` arrays x1, y1, x2, y2, score."""
        truth = [self.scene(index)[1:] for index in range(len(self))]
        return {"AP50": average_precision(results, truth, iou=0.5)}


def free_place(
    rng: np.random.Generator, taken: list[tuple[int, int, int, int]], shape: tuple[int, ...], size: int
) -> tuple[int, int] | None:
    """A random corner where ``shape`` covers nothing that is taken; None if twenty tries find none."""
    height, width = shape
    for _ in range(20):
        x, y = (int(v) for v in rng.integers(0, (size - width + 1, size - height + 1)))
        if all(x >= x2 or x + width <= x1 or y >= y2 or y + height <= y1 for x1, y1, x2, y2 in taken):
            return x, y
    return None
