"""AlexNet (Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from cv.cnn.builder import MODELS
from cv.cnn.init.pretrained import load_pretrained

__all__ = ["AlexNet"]


@MODELS.register_module()
class AlexNet(nn.Module):
    """AlexNet, with the parameter names of torchvision's.

    Args:
        num_classes: Number of classes. -1: no classifier, the network is a backbone.
    """

    def __init__(self, num_classes: int = -1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        if num_classes > 0:
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, num_classes),
            )

    def init_weights(self, pretrained: str | None = None) -> None:
        """Load a checkpoint, or leave the weights as torch initialised them.

        Args:
            pretrained: File or URI, such as ``"torchvision://alexnet"``.

        Raises:
            TypeError: ``pretrained`` is neither a str nor None.
        """
        load_pretrained(self, pretrained)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to logits ``(N, num_classes)``, or to features ``(N, 256, H/32, W/32)``."""
        x = self.features(x)
        if self.num_classes > 0:
            x = self.classifier(self.avgpool(x).flatten(1))
        return x
