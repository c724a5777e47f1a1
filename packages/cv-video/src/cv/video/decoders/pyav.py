"""Frames through PyAV.

Every packet of the file is looked at once, without decoding it (a hundred thousand a second), when a frame
is first asked for out of turn. That gives the time stamps in the order of display, and where decoding can
begin. To reach a frame, decoding starts at the last key frame that is not shown after it: pictures that an
open group of pictures shows before its key frame belong to the group before. Frames on the way which no
other frame refers to are skipped by the decoder.

Where groups of pictures are long, up to six places in the file are kept with a decoder each, and the one
nearest before the frame wanted goes on: less than half as many frames are decoded for jumps within a group,
and two loops at once do not disturb each other.

Where groups are short and one jump follows another, the decoder is told that nothing follows the frame
wanted. So it decodes none of the packets after it, which it otherwise takes in before it gives the frame out.

A frame is known by the place in the file of the packet it was decoded from: each packet is stamped with its
place before it is decoded, and decoders hand that stamp through. The file's own time stamps would not do: AVI
has none of display, and what is guessed for them depends on where decoding began.

Where the packets alone do not tell the frames (no time stamps, as in AVI with B-frames and in raw streams; a
beginning that cannot be decoded; damage) the whole video is decoded once and the frames are counted.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from .base import Frame, VideoError
from .pyav_cursor import Cursor
from .pyav_index import PacketIndex

# Decoding this many frames is cheaper than a seek, whose buffers start empty.
_READ_ON = 8
# From a key frame this far before the frame wanted, another decoder is cheaper in the long run. In shorter
# groups, going back to the key frame is cheaper than taking in what follows the frame wanted.
_LONG_GROUP = 32
_MOST_CURSORS = 6
_MOST_CURSOR_BYTES = 3 * 2**27  # for the pictures that all decoders hold, about


class PyAVDecoder:
    """See :class:`cv.video.decoders.base.Decoder`."""

    def __init__(self, filename: str) -> None:
        _keep_freed_memory()
        self._filename = filename
        self._index: PacketIndex | None = None
        self._cursor = Cursor(filename)
        self._cursors = [self._cursor]  # the one used last comes last
        self._read_to_end: int | None = None  # how many frames came out when the end was reached first
        self._jumped_to: int | None = None  # where the last access was a jump to a key frame and on
        self._reformatter = VideoReformatter()
        stream = self._cursor.stream
        self.width, self.height = stream.width, stream.height
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        held = self.width * self.height * 3 // 2 * (_threads(stream) + 11)
        fit = _MOST_CURSOR_BYTES // max(held, 1)
        self._most_cursors = min(max(fit, 1), _MOST_CURSORS) if Path(filename).is_file() else 1
        first = self._cursor.peek()
        if first is not None and _quarter_turns(first) % 2:
            self.width, self.height = self.height, self.width

    @property
    def position(self) -> int:
        """Number of the frame that :meth:`read_next` gives."""
        return self._cursor.position

    def read_next(self) -> Any:
        """The next picture, or None at the end."""
        self._jumped_to = None
        frame = self._cursor.read()
        if frame is None and self._read_to_end is None:
            self._read_to_end = self.position
        return frame

    def read_at(self, index: int) -> Any:
        """Picture ``index``, or None if there is none."""
        if 0 <= index - self.position <= _READ_ON:
            self._jumped_to = None
        else:
            if index >= self.count():
                return None
            self._seek(index)
        while self.position < index:
            if self._cursor.read() is None:
                return None
        frame = self._cursor.read()
        if frame is None or not self._is_frame(frame, index):
            return self._read_after_recount(index)
        return frame

    def to_frame(self, picture: Any, keep: bool) -> Frame:
        """The picture converted to BGR, which makes a new array each time."""
        # Bicubic, as OpenCV does it: it matters where the chroma planes are enlarged. (The frame's own
        # ``to_ndarray`` would set up the conversion anew for each frame.)
        converted: Any = self._reformatter.reformat(picture, format="bgr24", interpolation="BICUBIC")
        image: Frame = converted.to_ndarray()
        turns = _quarter_turns(picture)
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def count(self) -> int:
        """The true number of frames."""
        index = self._set_index(by_decoding=False) if self._index is None else self._index
        if self._read_to_end is not None and len(index) > self._read_to_end and index.one_frame_a_packet:
            index = self._set_index(by_decoding=True)  # damage: the packets promised more
        return len(index)

    def close(self) -> None:
        """Let go of the file."""
        for cursor in self._cursors:
            cursor.close()

    def _seek(self, number: int) -> None:
        """Have a cursor placed so that this frame comes next, or a frame before it."""
        assert self._index is not None
        if not self._index.frames.recognisable(number):
            if self.position > number:
                self._cursor.restart()
            return
        keys = self._index.keys
        nearest = self._index.nearest_key(number)
        start = keys[nearest].number if nearest >= 0 else 0
        in_group = [cursor for cursor in self._cursors if start <= cursor.position <= number]
        alone = not in_group and self._is_alone(number, nearest)
        if in_group:
            self._jumped_to = None
            self._use(max(in_group, key=lambda cursor: cursor.position))
            if self._cursor.advance(number):
                return
            nearest -= 1
        else:
            self._use(self._spare_cursor(number - start))
        for key in keys[max(nearest - 2, 0) : nearest + 1][::-1]:
            if self._cursor.start_at(key) and self._cursor.advance(number, alone):
                return
        self._cursor.restart()

    def _is_alone(self, number: int, nearest: int) -> bool:
        """Whether the frames after this one are not likely to be asked for next.

        They are not where jumps follow each other, and would not be lost if they were: the group is short.
        """
        assert self._index is not None
        keys = self._index.keys
        start = keys[nearest].number if nearest >= 0 else 0
        end = keys[nearest + 1].number if nearest + 1 < len(keys) else len(self._index)
        before, self._jumped_to = self._jumped_to, number
        return before is not None and not start <= before < number and end - start <= _LONG_GROUP

    def _spare_cursor(self, distance: int) -> Cursor:
        """A new cursor if that is worth it, otherwise the one that was not used for longest."""
        if distance > _LONG_GROUP and len(self._cursors) < self._most_cursors:
            try:
                self._cursors.append(Cursor(self._filename, self._index))
            except VideoError:  # the file has been moved away, say: those that are open go on
                self._most_cursors = len(self._cursors)
            else:
                return self._cursors[-1]
        return self._cursors[0]

    def _use(self, cursor: Cursor) -> None:
        self._cursors.remove(cursor)
        self._cursors.append(cursor)
        self._cursor = cursor

    def _is_frame(self, frame: Any, number: int) -> bool:
        frames = None if self._index is None else self._index.frames
        if frames is None or number >= len(frames) or not frames.recognisable(number):
            return True
        return bool(frame.pts == frames.times[number])

    def _read_after_recount(self, number: int) -> Any:
        """The packets misled us: count the frames by decoding them, then read the frame in order."""
        self._set_index(by_decoding=True)
        assert self._index is not None
        if number >= len(self._index):
            return None
        self._cursor.restart()
        while self.position < number:
            if self._cursor.read() is None:
                return None
        return self.read_next()

    def _set_index(self, by_decoding: bool) -> PacketIndex:
        """Find the frames; cursors that were placed by another index are let go."""
        context = self._cursor.stream.codec_context
        self._index = PacketIndex(self._filename, context.name, bool(context.has_b_frames), by_decoding)
        for cursor in self._cursors[:-1]:
            cursor.close()
        self._cursors = [self._cursor]
        self._cursor.index = self._index
        return self._index


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep what a frame leaves behind, for the next one.

    It would return a block of that size to the system and take in hundreds of fresh pages with each frame, a
    tenth of the time of reading. GNU's library raises its limit to the largest block that it has seen freed,
    up to 32 MiB; this shows it one, whose pages are never touched. To other libraries it means nothing.
    """
    bytearray(2**25 - 2**13)


def _threads(stream: Any) -> int:
    """How many frames a decoder works on at once; ffmpeg takes one more than there are processors."""
    return stream.codec_context.thread_count or min((os.cpu_count() or 1) + 1, 16)


def _quarter_turns(frame: Any) -> int:
    """How often the picture has to be turned left by 90 degrees."""
    return round(getattr(frame, "rotation", 0) / 90) % 4
