"""What a decoder must do, and which one is used."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Backend = Literal["auto", "av", "opencv"]


class VideoError(OSError, ValueError):
    """A file is not a video that can be read, or its codec is missing.

    It is an ``OSError`` and a ``ValueError``, so that either ``except`` clause catches it.
    """


class Decoder(Protocol):
    """Frame-exact access to one video stream."""

    width: int
    height: int
    fps: float

    @property
    def position(self) -> int:
        """Number of the frame that :meth:`read_next` gives."""

    def read_next(self) -> Any:
        """The next picture, in the decoder's own form, or None at the end."""

    def read_at(self, index: int) -> Any:
        """Picture ``index`` (not negative), or None if the video has no such picture."""

    def to_frame(self, picture: Any, keep: bool) -> Frame:
        """A picture as an array of shape (H, W, 3), BGR, uint8; not the picture's own memory if ``keep``."""

    def count(self) -> int:
        """The true number of frames."""

    def close(self) -> None:
        """Let go of the file."""


def open_decoder(filename: str, backend: Backend) -> Decoder:
    """Open a file with the decoder asked for; ``'auto'`` takes PyAV if it is installed.

    Both give the same pixels: they are the same library underneath, and convert colours alike.

    Raises:
        VideoError: The file is no video, or its codec is missing.
        ImportError: ``'av'`` is asked for and not installed.
    """
    if backend not in ("auto", "av", "opencv"):
        raise ValueError(f"backend must be 'auto', 'av' or 'opencv', got {backend!r}")
    if backend != "opencv":
        av = _import_av()
        if av is not None:
            from .pyav import PyAVDecoder

            return PyAVDecoder(filename)
        if backend == "av":
            raise ImportError("backend 'av' needs PyAV: pip install cv-video[av]", name="av")
    from .opencv import OpenCVDecoder

    return OpenCVDecoder(filename)


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        return None
    return av


class FrameIndex:
    """The frames of a video in the order they are shown, known by their time stamps.

    Args:
        times: One stamp a frame. Stamps that are None or occur twice cannot be used to recognise a frame.
    """

    def __init__(self, times: list[Any]) -> None:
        self.times = times
        self._numbers: dict[Any, int | None] = {}
        for number, time in enumerate(times):
            self._numbers[time] = None if time is None or time in self._numbers else number

    def __len__(self) -> int:
        return len(self.times)

    def number(self, time: Any) -> int | None:
        """Number of the frame with this stamp, or None if the stamp does not tell."""
        return self._numbers.get(time)

    def recognisable(self, number: int) -> bool:
        """Whether the stamp of this frame is its own."""
        return self._numbers.get(self.times[number]) == number
