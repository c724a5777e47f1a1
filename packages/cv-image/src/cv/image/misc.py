"""From tensors to images. PyTorch is imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cv.image.normalize import imdenormalize

if TYPE_CHECKING:
    import torch


def tensor2imgs(
    tensor: torch.Tensor,
    mean: tuple[float, ...] = (0, 0, 0),
    std: tuple[float, ...] = (1, 1, 1),
    to_rgb: bool = True,
) -> list[npt.NDArray[np.uint8]]:
    """Convert a batch of normalized images back to images that can be shown or written.

    Args:
        tensor: (N, 3, H, W), as `cv.image.imnormalize` normalized it; on any device.
        mean: Means of the channels.
        std: Standard deviations of the channels.
        to_rgb: Whether the tensor is in RGB order; it is put back to BGR then.

    Returns:
        N images (H, W, 3) uint8, clipped to [0, 255] and cut off.

    Raises:
        AssertionError: If `tensor` is not a tensor of shape (N, 3, H, W), or `mean` or `std` has not three
            values.
        ImportError: If PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("tensor2imgs needs PyTorch: pip install torch") from error
    if not torch.is_tensor(tensor):
        raise AssertionError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise AssertionError(f"tensor must have shape (N, 3, H, W), got {tuple(tensor.shape)}")
    if len(mean) != 3 or len(std) != 3:
        raise AssertionError(f"mean and std must have 3 values, got {mean} and {std}")
    batch = tensor.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    # Normalizing and the way back lose the last bits: without this many values would come back one less.
    almost_none = 2.0**-15
    return [
        np.clip(imdenormalize(img, np.asarray(mean) + almost_none, std, to_rgb), 0, 255).astype(np.uint8)
        for img in batch
    ]
