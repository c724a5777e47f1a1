"""Drawing the shapes of ``bench_shapes.py``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Call
from torch import Tensor


class Draw(random.Random):
    """A seeded source of sizes."""

    def log(self, low: int, high: int) -> int:
        """A whole number from low to high, evenly in its logarithm."""
        return round(math.exp(self.uniform(math.log(low), math.log(high))))

    def map(self, n: int, channels: int, height: int, width: int) -> Tensor:
        """A random map (N, C, H, W) in either layout."""
        x = torch.randn(n, channels, height, width)
        return x.contiguous(memory_format=self.choice([torch.contiguous_format, torch.channels_last]))

    def boxes(self, count: int, width: float, height: float) -> Tensor:
        """(K, 4) corners inside of the image; sides from 1 % of it to all of it, or small ones only."""
        size = torch.tensor([width, height])
        largest = self.choice([1.0, 0.1])
        extent = size * largest * 0.01 ** torch.rand(count, 2)
        corner = torch.rand(count, 2) * (size - extent)
        return torch.cat([corner, corner + extent], 1)

    def rois(self, count: int, images: int, width: float, height: float) -> Tensor:
        """(K, 5): the image of the batch, then corners."""
        images_of = torch.randint(0, images, (count, 1)).float()
        return torch.cat([images_of, self.boxes(count, width, height)], 1)


@dataclass(frozen=True)
class Case:
    """One shape: what it is, our call first and its peers, the tensors whose gradients are taken."""

    what: str
    calls: dict[str, Call]
    inputs: tuple[Tensor, ...] = ()


Sampler = Callable[[Draw], Case]


def layout(x: Tensor) -> str:
    """Shape and memory format in words."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return " x ".join(map(str, x.shape)) + (", channels last" if last else "")
