"""Frames through PyAV.

Every packet of the file is looked at once, without decoding it (a hundred thousand a second), when a frame
is first asked for out of turn. That gives the time stamps in the order of display, and where decoding can
begin. To reach a frame, decoding starts at the last key frame that is not shown after it: pictures that an
open group of pictures shows before its key frame belong to the group before. Frames on the way which no
other frame refers to are skipped by the decoder.

A frame is known by the place in the file of the packet it was decoded from: each packet is stamped with its
place before it is decoded, and decoders hand that stamp through. The file's own time stamps would not do: AVI
has none of display, and what is guessed for them depends on where decoding began.

Where the packets alone do not tell the frames (no time stamps, as in AVI with B-frames and in raw streams; a
beginning that cannot be decoded; damage) the whole video is decoded once and the frames are counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
import numpy as np

from .base import Frame, FrameIndex, VideoError

# Codecs whose packets are one shown frame each. (VP8 has packets without one.)
_ONE_FRAME_A_PACKET = frozenset(
    ("h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mpeg1video", "mpeg2video")
) | frozenset(("mpeg4", "mjpeg", "png", "ffv1", "rawvideo"))
# Containers that have no time stamps of display: what is reported are those of decoding.
_WITHOUT_DISPLAY_TIMES = frozenset(["avi", "h264", "hevc", "m4v", "mpegvideo"])
# Decoding this many frames is cheaper than a seek, whose buffers start empty.
_READ_ON = 8


class PyAVDecoder:
    """See :class:`cv.video.decoders.base.Decoder`."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        try:
            self._container: Any = av.open(filename)
        except av.FFmpegError as error:
            raise VideoError(f"{filename} is not a video that can be read: {error.strerror}") from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{filename} is not a video that can be read: it has no video stream")
        self._stream: Any = self._container.streams.video[0]
        if getattr(self._stream, "codec_context", None) is None:
            self._container.close()
            raise VideoError(f"{filename} is not a video that can be read: no decoder for its codec")
        self._stream.thread_type = "AUTO"
        self.width, self.height = self._stream.width, self._stream.height
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self._index: FrameIndex | None = None  # of places
        self._keys: list[_Key] = []
        self._places: dict[int, int] = {}  # a packet's own time stamp -> its place in the file
        self._target = -1  # number of the frame we are on the way to
        self._position = 0
        self._frames = self._decode(self._container.demux(self._stream))
        first = next(self._frames, None)
        self._pending: list[Any] = [] if first is None else [first]
        if first is not None and _quarter_turns(first) % 2:
            self.width, self.height = self.height, self.width

    @property
    def position(self) -> int:
        """Number of the frame that :meth:`read_next` gives."""
        return self._position

    def read_next(self) -> Any:
        """The next picture, or None at the end."""
        return self._next()

    def read_at(self, index: int) -> Any:
        """Picture ``index``, or None if there is none."""
        if not 0 <= index - self._position <= _READ_ON:
            if index >= self.count():
                return None
            self._seek(index)
        while self._position < index:
            if self._next() is None:
                return None
        frame = self._next()
        if frame is None or not self._is_frame(frame, index):
            return self._read_after_recount(index)
        return frame

    def to_frame(self, picture: Any, keep: bool) -> Frame:
        """The picture converted to BGR, which makes a new array each time."""
        # Bicubic, as OpenCV does it: it matters where the chroma planes are enlarged.
        image: Frame = picture.to_ndarray(format="bgr24", interpolation="BICUBIC")
        turns = _quarter_turns(picture)
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def count(self) -> int:
        """The true number of frames."""
        if self._index is None:
            self._build_index()
        assert self._index is not None
        return len(self._index)

    def close(self) -> None:
        """Let go of the file."""
        self._frames = iter(())
        self._pending = []
        self._container.close()

    def _next(self) -> Any:
        frame = self._pending.pop() if self._pending else next(self._frames, None)
        if frame is not None:
            self._position += 1
        return frame

    def _decode(self, packets: Iterator[Any], place: int = 0) -> Iterator[Any]:
        """Decoded frames whose ``pts`` is the place of their packet, from the packet at ``place`` on.

        A damaged packet is passed over, as every player does.
        """
        context = self._stream.codec_context
        for packet in packets:
            number = None if self._index is None else self._index.number(place)
            skip = number is not None and number < self._target
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            yield from _decode_packet(packet, place)
            place += 1

    def _restart(self) -> None:
        """Begin again at the first frame, with fresh buffers."""
        self._container.close()
        self._container = av.open(self._filename)
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._pending, self._position, self._target = [], 0, -1
        self._frames = self._decode(self._container.demux(self._stream))

    def _seek(self, index: int) -> None:
        """Place the decoder so that frame ``index`` comes next, or a frame before it."""
        assert self._index is not None
        here = self._position
        if self._index.recognisable(index):
            nearest = bisect_right(self._keys, index, key=lambda key: key.number) - 1
            if here <= index and (nearest < 0 or self._keys[nearest].number <= here):
                if self._advance(index):
                    return
                nearest -= 1
            for key in self._keys[max(nearest - 2, 0) : nearest + 1][::-1]:
                if self._start_at(key) and self._advance(index):
                    return
        elif here <= index:
            return
        self._restart()

    def _start_at(self, key: _Key) -> bool:
        """Begin decoding at a key packet; False if the file does not let us."""
        try:
            self._container.seek(key.time, stream=self._stream)
        except av.FFmpegError:
            return False
        packets = self._packets_from(key.place)
        self._pending = []
        self._frames = iter(()) if packets is None else self._decode(packets, key.place)
        return packets is not None

    def _advance(self, index: int) -> bool:
        """Decode until frame ``index`` comes next, without the frames that nothing refers to."""
        assert self._index is not None
        self._target = index
        try:
            while (frame := self._pending.pop() if self._pending else next(self._frames, None)) is not None:
                shown = self._index.number(frame.pts)
                if shown is not None and shown >= index:
                    self._pending, self._position = [frame], shown
                    return shown == index
        finally:
            self._target = -1
        return False

    def _packets_from(self, place: int) -> Iterator[Any] | None:
        """Packets from this place in the file on, or None if the seek went beyond it.

        Demuxers land before the packet asked for, or (MPEG-TS) anywhere near it.
        """
        packets = self._container.demux(self._stream)
        for packet in packets:
            found = self._places.get(packet.dts if packet.pts is None else packet.pts)
            if packet.size == 0 or (found is not None and found > place):
                return None
            if found == place:
                return _chain(packet, packets)
        return None

    def _is_frame(self, frame: Any, index: int) -> bool:
        if self._index is None or index >= len(self._index) or not self._index.recognisable(index):
            return True
        return bool(frame.pts == self._index.times[index])

    def _read_after_recount(self, index: int) -> Any:
        """The packets misled us: count the frames by decoding them, then read the frame in order."""
        self._count_by_decoding()
        assert self._index is not None
        if index >= len(self._index):
            return None
        self._restart()
        while self._position < index:
            if self._next() is None:
                return None
        return self.read_next()

    def _build_index(self) -> None:
        with av.open(self._filename) as container:
            packets = [
                _Packet(packet) for packet in container.demux(container.streams.video[0]) if packet.size
            ]
        stamps = [packet.pts for packet in packets]
        if (
            _are_distinct(stamps)
            and packets[0].key
            and min(stamps) == stamps[0]
            and not any(packet.corrupt for packet in packets)
            and self._stream.codec_context.name in _ONE_FRAME_A_PACKET
            and not (self._container.format.name in _WITHOUT_DISPLAY_TIMES and self._reorders())
        ):
            shown = [place for place, packet in enumerate(packets) if not packet.discard]
            self._index = FrameIndex(sorted(shown, key=stamps.__getitem__))
        else:
            self._count_by_decoding()
        self._find_keys(packets)

    def _reorders(self) -> bool:
        return bool(self._stream.codec_context.has_b_frames)

    def _find_keys(self, packets: list[_Packet]) -> None:
        """Where decoding can begin."""
        assert self._index is not None
        stamps = [packet.stamp for packet in packets]
        if not _are_distinct(stamps):
            return
        self._places = {stamp: place for place, stamp in enumerate(stamps)}
        for place, packet in enumerate(packets):
            number = self._index.number(place)
            if packet.key and number is not None:
                self._keys.append(_Key(number, packet.earliest, place))
        self._keys.sort(key=lambda key: key.number)

    def _count_by_decoding(self) -> None:
        with av.open(self._filename) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            places: list[int] = []
            for place, packet in enumerate(container.demux(stream)):
                places.extend(frame.pts for frame in _decode_packet(packet, place))
        self._index = FrameIndex(places)


def _decode_packet(packet: Any, place: int) -> list[Any]:
    if packet.size:
        packet.pts, packet.dts = place, None  # without the latter, it would be taken where pts goes back
    try:
        frames: list[Any] = packet.decode()
    except av.InvalidDataError:
        return []
    return frames


class _Packet:
    """What the index needs to know of a packet, without its data; ``stamp`` is its own time stamp."""

    __slots__ = ("corrupt", "discard", "earliest", "key", "pts", "stamp")

    def __init__(self, packet: Any) -> None:
        self.pts = packet.pts
        self.stamp = packet.dts if packet.pts is None else packet.pts
        self.earliest = self.stamp if packet.dts is None else min(self.stamp, packet.dts)
        self.key = packet.is_keyframe
        self.discard = packet.is_discard
        self.corrupt = packet.is_corrupt


class _Key(NamedTuple):
    """A packet with which decoding can begin."""

    number: int  # of the frame it holds, in the order of display
    time: int  # where to seek
    place: int  # in the file


def _are_distinct(stamps: list[Any]) -> bool:
    return bool(stamps) and None not in stamps and len(set(stamps)) == len(stamps)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _quarter_turns(frame: Any) -> int:
    """How often the picture has to be turned left by 90 degrees."""
    return round(getattr(frame, "rotation", 0) / 90) % 4
