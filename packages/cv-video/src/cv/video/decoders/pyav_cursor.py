"""One place in a file, from which PyAV decodes onward."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av

from .base import VideoError
from .pyav_index import Key, PacketIndex, decode_packet, drain

_PAST_THE_END = sys.maxsize  # position of a decoder that was drained: nothing comes next


class Cursor:
    """An open file and a decoder that stands between two frames of it.

    Args:
        filename: Path of the video.
        index: Its frames, where they are known.

    Raises:
        VideoError: The file is not a video, or there is no codec for it.
    """

    def __init__(self, filename: str, index: PacketIndex | None = None) -> None:
        self._filename = filename
        self.index = index
        self._pending: list[Any] = []
        self._packets: Any = None  # PyAV's generator of packets
        self.position = 0  # number of the frame that comes next
        self._last_place: int | None = None  # the last packet to decode, if the others are not wanted
        self._open()

    def peek(self) -> Any:
        """The next frame, which stays the next one; None at the end."""
        if not self._pending and (frame := next(self._frames, None)) is not None:
            self._pending.append(frame)
        return self._pending[-1] if self._pending else None

    def read(self) -> Any:
        """The next frame, or None at the end. Its ``pts`` is the place of its packet."""
        frame = self._pending.pop() if self._pending else next(self._frames, None)
        if frame is not None:
            self.position = _PAST_THE_END if self._drained else self.position + 1
        return frame

    def start_at(self, key: Key) -> bool:
        """Begin decoding at a key packet; False if the file does not let us."""
        try:
            self.container.seek(key.time, stream=self.stream)
        except av.FFmpegError:
            return False
        packets = self._packets_from(key.place)
        self._pending, self._drained = [], False
        self._frames = iter(()) if packets is None else self._decode(packets, key.place)
        return packets is not None

    def advance(self, number: int, alone: bool = False) -> bool:
        """Decode until this frame comes next, without the frames on the way that nothing refers to.

        Args:
            number: Number of the frame.
            alone: Whether the frames after it are not wanted. A decoder gives a frame out some packets late
                (those it reorders, and those its threads work on). With ``alone`` it is told that nothing
                follows, so that it gives the frame at once; it cannot go on from there.
        """
        assert self.index is not None
        self._target = number
        self._last_place = self.index.frames.times[number] if alone else None
        try:
            while (frame := self._pending.pop() if self._pending else next(self._frames, None)) is not None:
                shown = self.index.frames.number(frame.pts)
                if shown is not None and shown >= number:
                    self._pending, self.position = [frame], shown
                    return shown == number
        finally:
            self._target, self._last_place = -1, None
        return False

    def restart(self) -> None:
        """Begin again at the first frame, with fresh buffers."""
        self.close()
        self._open()

    def close(self) -> None:
        """Let go of the file."""
        self._frames = iter(())
        self._pending = []
        if self._packets is not None:
            self._packets.close()
        self.container.close()

    def _open(self) -> None:
        try:
            self.container: Any = av.open(self._filename)
        except av.FFmpegError as error:
            raise VideoError(f"{self._filename} is not a video that can be read: {error.strerror}") from error
        streams = self.container.streams.video
        if not streams or getattr(streams[0], "codec_context", None) is None:
            self.container.close()
            missing = "no decoder for its codec" if streams else "it has no video stream"
            raise VideoError(f"{self._filename} is not a video that can be read: {missing}")
        self.stream: Any = streams[0]
        self.stream.thread_type = "AUTO"
        self.position = 0
        self._target = -1  # number of the frame we are on the way to
        self._last_place = None
        self._drained = False
        self._pending = []
        self._frames = self._decode(self._demux())

    def _decode(self, packets: Iterator[Any], place: int = 0) -> Iterator[Any]:
        """Decoded frames, from the packet at ``place`` on."""
        context = self.stream.codec_context
        for packet in packets:
            number = self._number_in(place)
            skip = number is not None and number < self._target
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            yield from decode_packet(packet, place)
            if place == self._last_place:
                self._drained = True
                yield from drain(context)
                return
            place += 1

    def _number_in(self, place: int) -> int | None:
        """Number of the frame that a packet holds, if it holds one and nothing else."""
        if self.index is None or not self.index.one_frame_a_packet:
            return None
        return self.index.frames.number(place)

    def _demux(self) -> Iterator[Any]:
        """Packets from where the file stands. PyAV loses memory if a generator of them is not closed."""
        if self._packets is not None:
            self._packets.close()
        self._packets = self.container.demux(self.stream)
        packets: Iterator[Any] = self._packets
        return packets

    def _packets_from(self, place: int) -> Iterator[Any] | None:
        """Packets from this place in the file on, or None if the seek went beyond it.

        Demuxers land before the packet asked for, or (MPEG-TS) anywhere near it.
        """
        assert self.index is not None
        packets = self._demux()
        for packet in packets:
            found = self.index.place(packet)
            if packet.size == 0 or (found is not None and found > place):
                return None
            if found == place:
                return chain([packet], packets)
        return None
