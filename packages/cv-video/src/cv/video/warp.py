"""Warping an image by a flow field."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STRIP = 32_000  # pixels at a time, so that what is in between stays in the cache of a processor
_STRIPS_A_BLOCK = 4  # pixels at the edges are looked at once a block
_DEPTHS = {
    np.dtype(np.uint8): cv2.CV_8U,
    np.dtype(np.uint16): cv2.CV_16U,
    np.dtype(np.int16): cv2.CV_16S,
    np.dtype(np.float32): cv2.CV_32F,
    np.dtype(np.float64): cv2.CV_64F,
}
_REMAP_MAX = 2**15 - 1  # cv2.remap counts rows and columns in 16 bits


def flow_warp(img: Array, flow: Array, filling_value: float = 0, interpolate_mode: str = "nearest") -> Array:
    """Fetch each pixel from where the flow points.

    ``out[y, x] = img[y + v, x + u]`` with ``u, v = flow[y, x]``. A place counts as inside the image if it has
    a pixel to its right and one below: ``0 <= x + u < W - 1`` and ``0 <= y + v < H - 1``; elsewhere, and
    where the flow is NaN, the result is ``filling_value``.

    It works on strips of rows, on as many threads as OpenCV may use (:func:`cv2.setNumThreads`).

    Args:
        img: Image of shape (H, W) or (H, W, C), any number of channels, any real dtype. Fastest for up to
            four channels of uint8, uint16, int16, float32 or float64 and sides below 32767.
        flow: Flow of shape (H, W, 2), in pixels: to the right, down.
        filling_value: For pixels that come from outside.
        interpolate_mode: ``'nearest'`` (halves go to the even neighbour, as :func:`numpy.rint`) or
            ``'bilinear'`` (computed in float32, or float64 for float64 and wide integers; integer images are
            rounded to the nearest).

    Returns:
        The warped image, of the shape and dtype of ``img``.

    Raises:
        ValueError: The shapes do not fit.
        NotImplementedError: Another ``interpolate_mode``.
    """
    if interpolate_mode not in ("nearest", "bilinear"):
        raise NotImplementedError(
            f"interpolate_mode must be 'nearest' or 'bilinear', got {interpolate_mode!r}"
        )
    if img.ndim not in (2, 3):
        raise ValueError(f"img must have shape (H, W) or (H, W, C), got {img.shape}")
    if flow.ndim != 3 or flow.shape != (*img.shape[:2], 2):
        raise ValueError(f"flow must have shape {(*img.shape[:2], 2)} to fit img, got {flow.shape}")
    if flow.dtype not in (np.float32, np.float64):
        flow = flow.astype(np.float32 if flow.dtype == np.float16 else np.float64)
    height, width = img.shape[:2]
    channels = img.shape[2] if img.ndim == 3 else 1
    fill = np.full((), filling_value, dtype=img.dtype)
    if min(height, width) < 2 or channels == 0:
        return np.full(img.shape, fill)

    out = np.empty(img.shape, dtype=img.dtype)
    if img.dtype in _DEPTHS and channels <= 4 and max(height, width) < _REMAP_MAX:
        shape: tuple[int, ...] = (height, width, channels) if channels > 1 else (height, width)
        kind: type[_Warp] = _WarpByRemap
    else:
        shape = (height, width, channels)
        kind = _WarpByTake
    source = np.ascontiguousarray(img.reshape(shape))
    _in_blocks(kind(source, flow, fill, interpolate_mode, out.reshape(shape)))
    return out


class _Warp:
    """One call of :func:`flow_warp`, block by block."""

    def __init__(self, source: Array, flow: Array, fill: Array, mode: str, out: Array) -> None:
        self.source, self.flow, self.fill, self.out = source, flow, fill, out
        self.height, self.width = source.shape[:2]
        self.nearest = mode == "nearest"
        # Nearest has less in between, and calls of OpenCV that take so short that their number counts.
        self.rows = max((2 * _STRIP if self.nearest else _STRIP) // self.width, 1)
        self.block_rows = self.rows
        # Weights and sums: float32 has room for 16 bits, and for its own kind.
        wide = source.dtype.itemsize > 4 or source.dtype in (np.int32, np.uint32)
        self.precision = np.dtype(np.float64 if wide else np.float32)

    def block(self, top: int) -> None:
        """Compute ``block_rows`` rows of the result from ``top`` on."""
        raise NotImplementedError

    def _is_inside(self, flow: Array, x: Array, y: Array) -> Array:
        """The rule itself, in float64: float32 would lose the fraction far right. False for NaN."""
        x, y = flow[..., 0] + x.astype(np.float64), flow[..., 1] + y.astype(np.float64)
        inside: Array = (x >= 0) & (x < self.width - 1) & (y >= 0) & (y < self.height - 1)
        return inside


class _WarpByRemap(_Warp):
    """Fetch with ``cv2.remap`` at whole places, which is exact, and interpolate in floating point.

    ``cv2.remap`` would interpolate by itself, but rounds places to 1/32 of a pixel (until OpenCV 4.11), and
    takes them in float32. OpenCV's arithmetic with a ``dtype`` converts in small blocks on the way, so that
    no converted copy is ever made. Places far outside saturate at the ends of int16.
    """

    def __init__(self, source: Array, flow: Array, fill: Array, mode: str, out: Array) -> None:
        super().__init__(source, flow, fill, mode, out)
        # Rounding the sum wants float64: a half must not arise from float32. Floors are whole numbers, which
        # both add exactly.
        self.flow_type = np.promote_types(flow.dtype, self.precision)
        grid_type = np.dtype(np.float64) if self.nearest else self.flow_type
        self.grid = np.empty((min(self.rows, self.height), self.width, 2), grid_type)
        self.grid[..., 0] = np.arange(self.width)
        self.grid[..., 1] = np.arange(len(self.grid))[:, None]
        self.down = np.tile(np.array([0, 1], np.int16), self.width)  # one row below, for a row of places
        self.is_integer = source.dtype.kind in "iu"
        self.block_rows = self.rows * _STRIPS_A_BLOCK

    def block(self, top: int) -> None:
        end = min(top + self.block_rows, self.height)
        sure = np.empty((end - top, self.width), np.uint8)
        for row in range(top, end, self.rows):
            self._strip(row, min(row + self.rows, end), sure[row - top :])
        self._fill(top, sure)

    def _strip(self, top: int, end: int, sure: Array) -> None:
        """Rows from ``top`` to ``end``; ``sure`` becomes 255 where a pixel comes well from the inside."""
        flow = np.ascontiguousarray(self.flow[top:end], dtype=self.flow_type)
        out = self.out[top:end]
        with np.errstate(all="ignore"):  # NaN and infinity end as places outside
            if self.nearest:
                places = self._places(flow, top)
                self._fetch(self.source, places, out)
            else:
                whole = np.floor(flow)
                places = self._places(whole, top)
                share = np.subtract(flow, whole, out=whole).astype(self.precision, copy=False)
                self._mix(places, share, out)
        cv2.inRange(places, (1, 1, 0, 0), (self.width - 3, self.height - 3, 0, 0), sure[: len(flow)])

    def _places(self, flow: Array, top: int) -> Array:
        """Where to fetch from, rounded to whole numbers, (rows, W, 2) int16."""
        places = np.asarray(cv2.add(flow, self.grid[: len(flow)], dtype=cv2.CV_16S))
        # What was saturated may wrap round here, and stays outside: no image has so many rows.
        rows = places.reshape(len(flow), -1)
        np.add(rows, self.down * np.int16(top), out=rows)
        return places

    def _fetch(self, source: Array, places: Array, out: Array | None = None) -> Array:
        fill = (float(self.fill),) * 4
        return cv2.remap(  # type: ignore[call-overload, no-any-return]
            source, places, None, cv2.INTER_NEAREST, out, cv2.BORDER_CONSTANT, fill
        )

    def _mix(self, places: Array, share: Array, out: Array) -> None:
        """Fetch the four neighbours, shifting the image instead of the places, and write their mean."""
        to_right, down = (self._for_channels(plane) for plane in cv2.split(share))
        above, below = self.source[:-1], self.source[1:]
        upper = self._between(self._fetch(above[:, :-1], places), self._fetch(above[:, 1:], places), to_right)
        lower = self._between(self._fetch(below[:, :-1], places), self._fetch(below[:, 1:], places), to_right)
        np.multiply(lower, down, out=lower)
        np.multiply(upper, np.subtract(1, down, out=down), out=upper)
        if self.is_integer:
            cv2.add(upper, lower, dst=out, dtype=_DEPTHS[out.dtype])  # rounds to the nearest
        else:
            np.add(upper, lower, out=out)

    def _between(self, first: Array, second: Array, share: Array) -> Array:
        """``first * (1 - share) + second * share``."""
        depth = _DEPTHS[self.precision]
        mixed = cv2.multiply(second, share, dtype=depth)
        part = cv2.multiply(first, np.subtract(1, share), dtype=depth)
        return np.add(mixed, part, out=mixed)

    def _for_channels(self, plane: Array) -> Array:
        channels = 1 if self.source.ndim == 2 else self.source.shape[2]
        return cv2.merge([plane] * channels) if channels > 1 else plane

    def _fill(self, top: int, sure: Array) -> None:
        """Fill what comes from outside.

        Whole places tell inside from outside except at the edges. So the rule is asked where they are not
        well inside, most often for few pixels.
        """
        y, x = np.divmod(np.flatnonzero(sure == 0), self.width)
        y += top
        outside = ~self._is_inside(self.flow[y, x], x, y)
        self.out[y[outside], x[outside]] = self.fill


class _WarpByTake(_Warp):
    """Fetch with :meth:`numpy.ndarray.take`: any dtype, size and number of channels."""

    def block(self, top: int) -> None:
        flow = self.flow[top : top + self.rows]
        out = self.out[top : top + len(flow)]
        column, row = np.arange(self.width), np.arange(top, top + len(flow))[:, None]
        inside = self._is_inside(flow, column, row)
        x, y = flow[..., 0] + column.astype(np.float64), flow[..., 1] + row.astype(np.float64)
        x[~inside] = 0
        y[~inside] = 0
        warped = self._take(np.rint(x), np.rint(y)) if self.nearest else self._mix(x, y)
        out[...] = np.where(inside[..., None], warped, self.fill)

    def _mix(self, x: Array, y: Array) -> Array:
        left, above = np.floor(x), np.floor(y)
        to_right = (x - left)[..., None].astype(self.precision)
        down = (y - above)[..., None].astype(self.precision)

        def row(line: Array) -> Array:
            first, second = self._take(left, line), self._take(left + 1, line)
            between: Array = first * (1 - to_right) + second * to_right
            return between

        mixed = row(above) * (1 - down) + row(above + 1) * down
        if self.source.dtype.kind in "iu":
            mixed = np.rint(mixed)
        return mixed.astype(self.source.dtype)

    def _take(self, x: Array, y: Array) -> Array:
        places = y.astype(np.int64) * self.width + x.astype(np.int64)
        taken: Array = self.source.reshape(-1, self.source.shape[2]).take(places, axis=0)
        return taken


def _in_blocks(warp: _Warp) -> None:
    """Run all blocks, on several threads if there are several: numpy and OpenCV free Python's lock."""
    tops = range(0, warp.height, warp.block_rows)
    workers = min(max(cv2.getNumThreads(), 1), len(tops))
    if workers == 1:
        for top in tops:
            warp.block(top)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(warp.block, tops):
            pass
