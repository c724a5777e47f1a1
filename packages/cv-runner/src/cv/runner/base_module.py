"""``BaseModule`` and its containers under the path that existing code imports them from."""

from cv.cnn.module import BaseModule, ModuleDict, ModuleList, Sequential

__all__ = ["BaseModule", "ModuleDict", "ModuleList", "Sequential"]
