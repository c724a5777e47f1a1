"""Optical flow in colours (Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011).

The direction is the hue, the length the saturation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cv.image import ImageDecodeError
from cv.image._arrays import is_natural
from cv.image.codecs.flo import read_flo
from cv.visualization.display import imshow

# How finely the eye tells hues apart in each range, red to yellow to green to cyan to blue to magenta to red.
_BINS = (15, 6, 4, 11, 13, 6)


def flowshow(flow: npt.NDArray[Any] | str | os.PathLike[str], win_name: str = "", wait_time: int = 0) -> None:
    """Show optical flow.

    Args:
        flow: (H, W, 2) flow, or the path of a `.flo` file.
        win_name: Title of the window.
        wait_time: Same as `imshow`.

    Raises:
        NoDisplayError: If there is no display.
        ImageDecodeError: If the file is not a `.flo` file.
    """
    if not isinstance(flow, np.ndarray):
        path = Path(flow)
        try:
            flow = read_flo(path.read_bytes())
        except ImageDecodeError as error:
            raise ImageDecodeError(f"cannot read flow {str(path)!r}: {error}") from error
    rgb = flow2rgb(flow)
    imshow(np.ascontiguousarray(np.rint(rgb[..., ::-1] * 255).astype(np.uint8)), win_name, wait_time)


def flow2rgb(
    flow: npt.NDArray[Any], color_wheel: npt.NDArray[Any] | None = None, unknown_thr: float = 1e6
) -> npt.NDArray[np.floating[Any]]:
    """Convert optical flow to colours.

    The longest vector of the field has full saturation.

    Args:
        flow: (H, W, 2), x to the right and y down, in any unit.
        color_wheel: (n, 3) RGB in [0, 1] of n directions; None is `make_color_wheel()`.
        unknown_thr: Vectors with a component above this, or NaN, are unknown and drawn black.

    Returns:
        (H, W, 3) RGB in [0, 1], float32 (float64 for float64 flow).

    Raises:
        AssertionError: If `flow` or `color_wheel` has another shape.
    """
    if np.ndim(flow) != 3 or flow.shape[2] != 2:
        raise AssertionError(f"flow must have shape (H, W, 2), got {np.shape(flow)}")
    wheel = make_color_wheel() if color_wheel is None else np.asarray(color_wheel)
    if wheel.ndim != 2 or wheel.shape[1] != 3:
        raise AssertionError(f"color_wheel must have shape (n, 3), got {wheel.shape}")
    real = np.float64 if flow.dtype == np.float64 else np.float32
    wheel = wheel.astype(real)
    with np.errstate(invalid="ignore"):
        unknown = ~((np.abs(flow) <= unknown_thr).all(axis=2))
    dx, dy = (np.where(unknown, 0, flow[..., axis]).astype(real) for axis in (0, 1))
    length = np.hypot(dx, dy)
    longest = length.max(initial=0)
    if longest > np.finfo(real).eps:
        length /= longest
    # Position on the wheel: the angle of the opposite vector, from -pi to pi, over all bins.
    position = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)
    left = np.floor(position).astype(np.intp)
    weight = (position - left)[..., None].astype(real)
    rgb: npt.NDArray[np.floating[Any]] = (1 - weight) * wheel[left] + weight * wheel[(left + 1) % len(wheel)]
    rgb = 1 - length[..., None] * (1 - rgb)
    rgb[unknown] = 0
    return rgb


def make_color_wheel(bins: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
    """Build a colour wheel.

    Args:
        bins: Number of colours in each of six ranges: red to yellow, yellow to green, green to cyan, cyan to
            blue, blue to magenta, magenta to red. None is (15, 6, 4, 11, 13, 6).

    Returns:
        (sum of bins, 3) RGB in [0, 1].

    Raises:
        AssertionError: If `bins` is not six positive integers.
    """
    counts = _BINS if bins is None else tuple(bins)
    if len(counts) != 6 or not all(is_natural(count) and count for count in counts):
        raise AssertionError(f"bins must be six positive integers, got {bins!r}")
    corners = np.array(
        [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float64
    )
    return np.concatenate(
        [
            start + (end - start) * (np.arange(count) / count)[:, None]
            for start, end, count in zip(corners[:-1], corners[1:], counts, strict=True)
        ]
    )
