"""Frames through OpenCV alone, frame-exact where ``cv2.VideoCapture`` is not.

OpenCV's own jump to a frame number divides time stamps by a mean frame rate, so it can land elsewhere. Here
the time stamp of each frame is kept, a jump aims before the frame wanted, the stamp found there says where it
landed, and the rest is read; behind the frame wanted, it aims earlier. If that fails, or the stamps cannot be
relied on, reading begins again at the first frame.
"""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

from .base import Frame, FrameIndex, VideoError
from .interlaced import may_be_interlaced

_CHECKED = 24  # frames at the start and the end that are decoded to check an index made from packets
# OpenCV lands up to 16 frames before the one it is asked for, and decodes them: reading on is cheaper.
_READ_ON = 16
_COMPARED = 8  # pictures, for whether they are converted at all
_WAIT_FOR_KEY_FRAMES = ("h264", "hevc", "mpg1", "mpg2")


class OpenCVDecoder:
    """See :class:`cv.video.decoders.base.Decoder`."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._index: FrameIndex | None = None
        self._decoded = False  # whether the index was made by decoding all frames
        self._capture = open_capture(filename)
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._may_jump = _begins_at_key_frames(filename, self._capture)
        self._position = 0
        self._at_end = False
        self._read_to_end: int | None = None  # how many frames came out when the end was reached first
        self._grabbed = self._capture.grab()  # OpenCV's zero of time is the first frame it sees
        if not self._grabbed:
            self._capture.release()
            raise VideoError(
                f"{filename} has no frame that OpenCV can decode (no codec for it, or damaged); "
                "PyAV brings more codecs: pip install cv-video[av]"
            )
        if may_be_interlaced(fourcc_of(self._capture), _header(self._capture)) and _never_changes(filename):
            self._capture.release()
            raise VideoError(
                f"{filename} may be interlaced, and this OpenCV does not convert its pictures; "
                "PyAV does: pip install cv-video[av]"
            )

    @property
    def position(self) -> int:
        """Number of the frame that :meth:`read_next` gives."""
        return self._position

    def read_next(self) -> Frame | None:
        """The next picture, or None at the end."""
        if not self._grab():
            if self._read_to_end is None:
                self._read_to_end = self._position
            return None
        self._grabbed = False
        self._position += 1
        ok, image = self._capture.retrieve()
        return np.asarray(image, dtype=np.uint8) if ok else None

    def read_at(self, index: int) -> Frame | None:
        """Picture ``index``, or None if there is none."""
        if not 0 <= index - self._position <= _READ_ON:
            if index >= self.count():
                return None
            self._seek(index)
        while self._position < index:
            if not self._skip():
                return None
        if not self._grab():
            return None
        if self._is_frame(index):
            return self.read_next()
        # The packets misled us: count the frames by decoding them, then read the frame in order.
        self._index = self._by_decoding()
        if index >= len(self._index):
            return None
        self._restart()
        while self._position < index and self._skip():
            pass
        return self.read_next()

    def to_frame(self, picture: Frame, keep: bool) -> Frame:
        """The picture, which OpenCV has made an array already."""
        return picture.copy() if keep else picture

    def count(self) -> int:
        """The true number of frames."""
        if self._index is None:
            times = _times_of_packets(self._filename)
            self._index = self._by_decoding() if times is None else FrameIndex(times)
        if self._read_to_end is not None and len(self._index) > self._read_to_end and not self._decoded:
            self._index = self._by_decoding()  # damage: the packets promised more
        return len(self._index)

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()
        self._grabbed = False

    def _by_decoding(self) -> FrameIndex:
        self._decoded = True
        return FrameIndex(_times_by_decoding(self._filename))

    def _is_frame(self, index: int) -> bool:
        """Whether the frame grabbed last may be this one, by its time stamp."""
        if self._index is None or not self._index.recognisable(index):
            return True
        return bool(_time(self._capture) == self._index.times[index])

    def _grab(self) -> bool:
        """Have the frame at the present position decoded."""
        if not self._grabbed and not self._at_end:
            self._grabbed = self._capture.grab()
            self._at_end = not self._grabbed  # where that is damage, a second call would pass over it
        return self._grabbed

    def _skip(self) -> bool:
        if not self._grab():
            return False
        self._grabbed = False
        self._position += 1
        return True

    def _restart(self) -> None:
        self._capture.release()
        self._capture = open_capture(self._filename)
        self._grabbed, self._at_end, self._position = False, False, 0

    def _seek(self, index: int) -> None:
        """Place the capture at frame ``index`` or before."""
        assert self._index is not None
        here = self._position
        if not self._may_jump or not self._index.recognisable(index):
            if here > index:
                self._restart()
            return
        aim = round(self._index.times[index] / 1e9 * self.fps) - 1
        for step in (0, 4, 16, 64, 256):  # variable frame rates and long groups need more
            if aim - step < 1:
                break
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, aim - step)
            self._grabbed = self._capture.grab()
            self._at_end = False
            found = self._index.number(_time(self._capture)) if self._grabbed else None
            # A stamp of zero is also what OpenCV gives for none.
            if found is not None and 0 < found <= index:
                self._position = found
                return
        self._restart()


def open_capture(filename: str) -> cv2.VideoCapture:
    """OpenCV's capture of a file.

    Raises:
        VideoError: It cannot be opened.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the exception says it
    try:
        capture = cv2.VideoCapture(filename, cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        if os.path.isfile(filename):  # noqa: PTH113 (the name may be a URL)
            with open(filename, "rb"):  # noqa: PTH123 (no permission: its own error)
                pass
        raise VideoError(f"{filename} is not a video that can be read")
    return capture


def fourcc_of(capture: cv2.VideoCapture) -> str:
    """Four character code of the codec, as OpenCV names it."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    return "".join(chr((code >> 8 * place) & 255) for place in range(4))


def _time(capture: cv2.VideoCapture) -> int:
    """Time stamp of the frame grabbed last, in nanoseconds after the first: whole numbers compare exactly."""
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)


def _header(capture: cv2.VideoCapture) -> bytes:
    """The codec's extra data."""
    place = capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)
    ok, data = capture.retrieve(flag=int(place)) if place > 0 else (False, None)
    return np.asarray(data).tobytes() if ok else b""


def _never_changes(filename: str) -> bool:
    """Whether the first pictures are all the same, as are those that OpenCV 4.13 and later do not write."""
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 13):
        return False
    capture = open_capture(filename)
    pictures = [image for ok, image in (capture.read() for _ in range(_COMPARED)) if ok]
    capture.release()
    return all(np.array_equal(pictures[0], picture) for picture in pictures[1:])


def _begins_at_key_frames(filename: str, capture: cv2.VideoCapture) -> bool:
    """Whether decoding after a jump begins with a key frame.

    MPEG transport and program streams have no index, so a jump lands anywhere. Some decoders wait for the
    next key frame there; others give grey pictures with the remains of movement until then.
    """
    try:
        with open(filename, "rb") as file:  # noqa: PTH123 (the name may be a URL)
            head = file.read(197)
    except OSError:
        return True
    is_transport = head[:1] == head[188:189] == b"G" or head[4:5] == head[196:197] == b"G"
    has_no_index = is_transport or head.startswith(b"\0\0\1\xba")
    return not has_no_index or fourcc_of(capture) in _WAIT_FOR_KEY_FRAMES


def _times_of_packets(filename: str) -> list[int] | None:
    """Time stamps without decoding, or None where the packets may not tell.

    OpenCV counts packets from the first packet and frames from the first frame, and does not say which
    packets an edit list hides. So the beginning and the end are decoded and compared.
    """
    in_file = times_in_file(filename)
    times = sorted(in_file)
    if not times or in_file[0] != times[0] or len(set(times)) != len(times):
        return None
    frames = open_capture(filename)
    try:
        for number, time in enumerate(times[:_CHECKED]):
            if not frames.grab() or _time(frames) != time or (number == 0 and _frame_type(frames) != "I"):
                return None
        if len(times) <= _CHECKED:
            return None if frames.grab() else times
        rate = frames.get(cv2.CAP_PROP_FPS)
        frames.set(cv2.CAP_PROP_POS_FRAMES, max(round(times[-_CHECKED] / 1e9 * rate), 1))
        tail = []
        while frames.grab():
            tail.append(_time(frames))
        return times if tail and tail == times[-len(tail) :] else None
    finally:
        frames.release()


def _times_by_decoding(filename: str) -> list[int | None]:
    """Time stamps of all frames; None for each where those are guesses.

    A file with B-frames whose packets are stamped in the order of decoding has no stamps of display (AVI).
    What is guessed for them depends on where decoding began.
    """
    frames = open_capture(filename)
    times: list[int | None] = []
    reordered = False
    while frames.grab():
        times.append(_time(frames))
        reordered |= _frame_type(frames) not in ("I", "P")
    frames.release()
    in_file = times_in_file(filename)
    if reordered and in_file == sorted(in_file):
        return [None] * len(times)
    return times


def times_in_file(filename: str) -> list[int]:
    """Time stamps of the packets, in their order in the file."""
    packets = open_capture(filename)
    times = []
    if packets.set(cv2.CAP_PROP_FORMAT, -1):
        while packets.grab():
            times.append(_time(packets))
    packets.release()
    return times


def _frame_type(capture: cv2.VideoCapture) -> str:
    """``'I'``, ``'P'``, ``'B'`` … of the frame grabbed last; empty where this OpenCV does not tell."""
    name: Any = getattr(cv2, "CAP_PROP_FRAME_TYPE", None)
    return chr(int(capture.get(name))) if name is not None else ""
