"""The Middlebury `.flo` format: one optical flow field per file.

All numbers are little-endian: the float32 tag 202021.25 (the bytes ``PIEH``), int32 width, int32 height,
then width * height pairs (u, v) of float32, row by row. Source:
https://vision.middlebury.edu/flow/code/flow-code/README.txt
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from cv.image.errors import ImageDecodeError

_TAG = b"PIEH"
_HEADER = struct.Struct("<4sii")
_MAX_SIDE = 99999  # the limit in the format's own reference reader


def read_flo(data: bytes) -> npt.NDArray[np.float32]:
    """Decode the content of a `.flo` file.

    Args:
        data: The whole file.

    Returns:
        Flow of shape (H, W, 2), float32, in pixels; channel 0 is u (to the right), channel 1 is v (down).

    Raises:
        ImageDecodeError: If the tag, the size or the length is not what the format prescribes. It is an
            `OSError` and a `ValueError`.
    """
    if len(data) < _HEADER.size:
        raise ImageDecodeError(f"not a .flo file: {len(data)} bytes, the header alone has {_HEADER.size}")
    tag, width, height = _HEADER.unpack_from(data)
    if tag != _TAG:
        raise ImageDecodeError(f"not a .flo file: it must begin with {_TAG!r}, got {tag!r}")
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise ImageDecodeError(
            f"corrupt .flo file: width and height must be 1 to {_MAX_SIDE}, got {width} x {height}"
        )
    expected = _HEADER.size + width * height * 8
    if len(data) != expected:
        kind = "truncated" if len(data) < expected else "corrupt"
        raise ImageDecodeError(
            f"{kind} .flo file: {width} x {height} takes {expected} bytes, got {len(data)}"
        )
    flow = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).reshape(height, width, 2)
    return flow.astype(np.float32)  # a writable copy in native byte order


def write_flo(flow: npt.NDArray[Any]) -> bytes:
    """Encode a flow field as the content of a `.flo` file.

    Args:
        flow: Flow of shape (H, W, 2), any real dtype, in pixels; stored as float32.

    Returns:
        The whole file as bytes.

    Raises:
        TypeError: If `flow` is not an array of real numbers.
        ValueError: If its shape is not (H, W, 2) with sides of 1 to 99999.
    """
    flow = _check_flow(flow)
    height, width = flow.shape[:2]
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise ValueError(f"flow must have sides of 1 to {_MAX_SIDE}, got shape {flow.shape}")
    return _HEADER.pack(_TAG, width, height) + flow.astype("<f4").tobytes()


def _check_flow(flow: object) -> npt.NDArray[Any]:
    if not isinstance(flow, np.ndarray):
        raise TypeError(f"flow must be an ndarray, got {type(flow).__name__}")
    if flow.dtype.kind not in "fiu":
        raise TypeError(f"flow must hold real numbers, got dtype {flow.dtype}")
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must have shape (H, W, 2), got {flow.shape}")
    return flow
