"""Colours by name, in BGR."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt


class Color(Enum):
    """Common colours as (blue, green, red), each 0 to 255."""

    red = (0, 0, 255)
    green = (0, 255, 0)
    blue = (255, 0, 0)
    cyan = (255, 255, 0)
    yellow = (0, 255, 255)
    magenta = (255, 0, 255)
    white = (255, 255, 255)
    black = (0, 0, 0)


ColorLike = Color | str | tuple[int, int, int] | int | npt.NDArray[Any]


def color_val(color: ColorLike) -> tuple[int, int, int]:
    """Turn any way to name a colour into BGR.

    Args:
        color: A `Color` or its name; (blue, green, red); one number for all three; or an array of three.

    Returns:
        (blue, green, red), each 0 to 255.

    Raises:
        TypeError: If it is something else, such as a list or a float.
        AssertionError: If it has not three values, or one is out of 0 to 255.
        ValueError: If there is no colour of that name.
    """
    if isinstance(color, str):
        if color not in Color.__members__:
            raise ValueError(f"color must be one of {list(Color.__members__)}, got {color!r}")
        return Color[color].value
    if isinstance(color, Color):
        return color.value
    if isinstance(color, (int, np.integer)) and not isinstance(color, bool):
        return _checked((color, color, color))
    if isinstance(color, (tuple, np.ndarray)):
        return _checked(color)
    raise TypeError(f"color must be a Color, str, tuple, int or ndarray, got {type(color).__name__}")


def _checked(values: Any) -> tuple[int, int, int]:
    if np.shape(values) != (3,) or not all(0 <= value <= 255 for value in values):
        raise AssertionError(f"color must be three values from 0 to 255, got {values!r}")
    blue, green, red = (int(value) for value in values)
    return blue, green, red
