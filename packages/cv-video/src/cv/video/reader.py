"""A video as a list of frames."""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import cv2

from .cache import Cache
from .decoders import Decoder, VideoError, open_decoder
from .decoders.base import Backend, Frame
from .decoders.opencv import fourcc_of, open_capture

_LEFT_BEHIND: list[Any] = []  # by processes that this one was forked from


class VideoReader:
    """Read a video as if it were a list of frames.

    Frames are arrays of shape (H, W, 3), BGR, uint8 [0, 255], upright (rotation metadata is applied). Frame
    ``i`` is the ``i``-th picture that is shown, the same one however it is reached: in order, by index,
    backwards, or after any mix. Its array is the caller's own: changing it changes nothing here.

    ``len`` is the true number of frames. Containers often state a wrong one, so at the first call the
    packets of the file are counted (or, where those do not tell, the frames are decoded once), and the
    result is kept. Reading in order needs no count.

    With PyAV installed (``pip install cv-video[av]``) frames are decoded through it: access out of order is
    several times as fast, and there are more codecs (AV1) and interlaced video. Without, OpenCV decodes. The
    pixels are the same.

    Several threads may share a reader; they take turns, so indexing is what gives each the frame it means.
    A reader can be copied and pickled, and goes on in a forked process (the workers of a data loader): there
    the file is opened anew, at the same position, with an empty cache and no current frame.

    A damaged video gives the frames before the damage, and those after it that can still be decoded.

    Args:
        filename: Path of the video, or an http, https, rtmp or rtsp URL.
        cache_capacity: How many of the frames used last are kept in memory, in the decoder's form, against
            decoding them again; 0 for none.
        backend: ``'auto'``, ``'av'`` or ``'opencv'``.

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: The file is not a video, or there is no codec for it. An ``OSError``.
        ValueError: ``cache_capacity`` is negative or ``backend`` unknown.

    Example:
        >>> with VideoReader('sample.mp4') as video:
        ...     print(len(video), video.fps, video.resolution)
        ...     for frame in video:
        ...         cv.visualization.imshow(frame)
        ...     last, some = video[-1], video[10:20:2]
    """

    def __init__(
        self, filename: str | os.PathLike[str], cache_capacity: int = 10, *, backend: Backend = "auto"
    ) -> None:
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError(f"filename must be a str or a Path, got {type(filename).__name__}")
        self._filename = os.fspath(filename)
        if cache_capacity < 0:
            raise ValueError(f"cache_capacity must not be negative, got {cache_capacity}")
        if not re.match(r"(https?|rtmp|rtsp)://", self._filename):
            path = Path(self._filename)
            if not self._filename or not path.exists():
                raise FileNotFoundError(f"Video file not found: {self._filename}")
            if path.is_dir():
                raise IsADirectoryError(f"Video file is a folder: {self._filename}")
            # A name such as "concat:a|b" or "-x" must not be anything but a file's to ffmpeg.
            self._filename = os.fspath(path.absolute())
        self._backend = backend
        self._cache_capacity = cache_capacity
        self._position = 0
        self._begin(open_decoder(self._filename, backend))

    def _begin(self, decoder: Decoder | None) -> None:
        self._decoder = decoder
        self._vcap: cv2.VideoCapture | None = None
        self._cache = Cache(self._cache_capacity) if self._cache_capacity else None
        self._current: Any = None  # in the form of the decoder
        self._lock = threading.RLock()
        self._process = os.getpid()

    @property
    def vcap(self) -> cv2.VideoCapture:
        """An OpenCV capture of the file, of the caller's own use: reading from it moves nothing here."""
        self._open_decoder()  # not closed
        if self._vcap is None:
            self._vcap = open_capture(self._filename)
        return self._vcap

    @property
    def opened(self) -> bool:
        """Whether the video is open."""
        return self._decoder is not None

    @property
    def width(self) -> int:
        """Width of the frames in pixels."""
        return self._open_decoder().width

    @property
    def height(self) -> int:
        """Height of the frames in pixels."""
        return self._open_decoder().height

    @property
    def resolution(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def fps(self) -> float:
        """Frames per second; the mean where the rate varies."""
        return self._open_decoder().fps

    @property
    def frame_cnt(self) -> int:
        """True number of frames; the first use may have to count them."""
        with self._locked():
            return self._open_decoder().count()

    @property
    def fourcc(self) -> str:
        """Four character code of the codec, as OpenCV names it."""
        return fourcc_of(self.vcap)

    @property
    def position(self) -> int:
        """Number of the frame that :meth:`read` gives next."""
        return self._position

    def read(self) -> Frame | None:
        """The next frame, or None at the end."""
        with self._locked():
            return self._read(self._position)

    def get_frame(self, frame_id: int) -> Frame | None:
        """Frame ``frame_id``; :meth:`read` goes on after it.

        Raises:
            IndexError: There is no such frame. (Negative numbers are for ``video[-1]``.)
        """
        number = operator.index(frame_id)
        frame = self._read(number) if number >= 0 else None
        if frame is None:
            raise IndexError(f"frame_id must be between 0 and {len(self) - 1}, got {frame_id}")
        return frame

    def current_frame(self) -> Frame | None:
        """The frame that was read last, or None if none has been."""
        self._after_fork()
        with self._lock:
            if self._current is None:
                return None
            return self._open_decoder().to_frame(self._current, keep=True)

    def cvt2frames(
        self,
        frame_dir: str | os.PathLike[str],
        file_start: int = 0,
        filename_tmpl: str = "{:06d}.jpg",
        start: int = 0,
        max_num: int = 0,
        show_progress: bool = True,
        *,
        overwrite: bool = True,
    ) -> None:
        """Write the frames as image files.

        Args:
            frame_dir: Folder to write to; it is made if absent.
            file_start: Number of the first file.
            filename_tmpl: File name with a place for the number; its suffix names the image format.
            start: Number of the first frame.
            max_num: How many frames to write at most; 0 for all.
            show_progress: Whether to show a progress bar.
            overwrite: Whether files that are there already are replaced. If False they are kept, and not
                written again: so a conversion that was interrupted goes on where it stopped. (A file is
                there whole or not at all.)

        Raises:
            ValueError: ``start``, ``file_start`` or ``max_num`` is negative, or ``filename_tmpl`` has no
                place for a number.
            OSError: A file cannot be written.
        """
        from .frames import write_frames

        write_frames(self, frame_dir, file_start, filename_tmpl, start, max_num, show_progress, overwrite)

    def close(self) -> None:
        """Let go of the file and the cached frames. It may be called twice."""
        self._after_fork()
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        if self._vcap is not None:
            self._vcap.release()
            self._vcap = None
        if self._cache is not None:
            self._cache.clear()
        self._current = None

    def __len__(self) -> int:
        return self.frame_cnt

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """A frame by its number, also from the end, or a list of frames by a slice."""
        if isinstance(index, slice):
            return self._slice(range(*index.indices(len(self))))
        number = operator.index(index)
        if number < 0:
            number += len(self)
        frame = self._read(number) if number >= 0 else None
        if frame is None:
            raise IndexError(f"index {index} is out of range for a video of {len(self)} frames")
        return frame

    def __iter__(self) -> Iterator[Frame]:
        """All frames from the first on; several loops may run at once."""
        number = 0
        while (frame := self._read(number)) is not None:
            yield frame
            number += 1
        self._position = number

    def __next__(self) -> Frame:
        """The next frame, as :meth:`read`, but ``StopIteration`` at the end."""
        frame = self.read()
        if frame is None:
            raise StopIteration
        return frame

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._filename!r})"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, opens the file again with."""
        kept = ("_filename", "_backend", "_cache_capacity", "_position")
        return {**{name: getattr(self, name) for name in kept}, "opened": self.opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        opened = state.pop("opened")
        self.__dict__.update(state)
        self._begin(open_decoder(self._filename, self._backend) if opened else None)

    def _after_fork(self) -> None:
        """In a forked process, open the file anew: the decoder's threads stayed behind."""
        if self._process == os.getpid():
            return
        # Letting go of what the other process opened could wait for those threads: it is kept.
        _LEFT_BEHIND.append((self._decoder, self._vcap, self._cache, self._current, self._lock))
        self.__setstate__(self.__getstate__())

    def _open_decoder(self) -> Decoder:
        self._after_fork()
        if self._decoder is None:
            raise VideoError(f"{self._filename} has been closed")
        return self._decoder

    def _slice(self, numbers: range) -> list[Frame]:
        """Frames of a slice; a backward one is decoded forward."""
        forward = numbers if numbers.step > 0 else numbers[::-1]
        frames = [self[number] for number in forward]
        return frames if numbers.step > 0 else frames[::-1]

    def _read(self, number: int) -> Frame | None:
        """Frame ``number``, which becomes the current one, or None past the end."""
        with self._locked():
            return self._read_alone(number)

    def _read_alone(self, number: int) -> Frame | None:
        decoder = self._open_decoder()
        picture = self._cache.get(number) if self._cache is not None else None
        if picture is None:
            picture = decoder.read_next() if number == decoder.position else decoder.read_at(number)
            if picture is None:
                return None
            if self._cache is not None:
                self._cache.put(number, picture)
        self._current = picture
        self._position = number + 1
        # The caller may draw on the frame: what is kept must be something else.
        return decoder.to_frame(picture, keep=True)

    def _locked(self) -> threading.RLock:
        """The lock under which one thread at a time moves the decoder."""
        self._after_fork()
        return self._lock
