"""Which packet of a file holds which frame, and where decoding can begin, for PyAV."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import av

from .base import FrameIndex

# Codecs whose packets are one shown frame each. (VP8 has packets without one.)
_ONE_FRAME_A_PACKET = frozenset(
    ("h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mpeg1video", "mpeg2video")
) | frozenset(("mpeg4", "mjpeg", "png", "ffv1", "rawvideo"))
# Containers that have no time stamps of display: what is reported are those of decoding.
_WITHOUT_DISPLAY_TIMES = frozenset(["avi", "h264", "hevc", "m4v", "mpegvideo"])


class Key(NamedTuple):
    """A packet with which decoding can begin."""

    number: int  # of the frame it holds, in the order of display
    time: int  # where to seek
    place: int  # in the file


class PacketIndex:
    """The frames of a file, known by the place in the file of their packet.

    Args:
        filename: Path of the video.
        codec: Name of its codec.
        reorders: Whether frames are shown in another order than they are stored.
        by_decoding: Do not rely on the packets, but decode all frames and count them.
    """

    def __init__(self, filename: str, codec: str, reorders: bool, by_decoding: bool = False) -> None:
        with av.open(filename) as container:
            stamped = container.format.name not in _WITHOUT_DISPLAY_TIMES or not reorders
            packets = [
                _Packet(packet) for packet in container.demux(container.streams.video[0]) if packet.size
            ]
        stamps = [packet.pts for packet in packets]
        if (
            not by_decoding
            and _are_distinct(stamps)
            and packets[0].key
            and min(stamps) == stamps[0]
            and not any(packet.corrupt for packet in packets)
            and codec in _ONE_FRAME_A_PACKET
            and stamped
        ):
            shown = [place for place, packet in enumerate(packets) if not packet.discard]
            self.frames = FrameIndex(sorted(shown, key=stamps.__getitem__))
            self.one_frame_a_packet = True
        else:
            # Packets of an AVI may hold two frames or none, and a decoder passes them on between packets
            # ("packed bitstream"): none can be left out on the way to another.
            self.one_frame_a_packet = False
            self.frames = FrameIndex(_places_by_decoding(filename))
        self.keys: list[Key] = []  # in the order of display
        self._places: dict[int, int] = {}  # a packet's own time stamp -> its place in the file
        self._find_keys(packets)

    def __len__(self) -> int:
        return len(self.frames)

    def place(self, packet: Any) -> int | None:
        """Place of a packet in the file, by its time stamp."""
        return self._places.get(packet.dts if packet.pts is None else packet.pts)

    def nearest_key(self, number: int) -> int:
        """Which of ``keys`` is the last that is not shown after this frame; -1 for none."""
        return bisect_right(self.keys, number, key=lambda key: key.number) - 1

    def _find_keys(self, packets: list[_Packet]) -> None:
        stamps = [packet.stamp for packet in packets]
        if not _are_distinct(stamps):
            return
        self._places = {stamp: place for place, stamp in enumerate(stamps)}
        for place, packet in enumerate(packets):
            number = self.frames.number(place)
            if packet.key and number is not None:
                self.keys.append(Key(number, packet.earliest, place))
        self.keys.sort(key=lambda key: key.number)


def decode_packet(packet: Any, place: int) -> list[Any]:
    """The frames that come out when a packet goes in, stamped with places.

    A damaged packet is passed over, as every player does; decoders have many names for the damage.
    """
    if packet.size:
        packet.pts, packet.dts = place, None  # without the latter, it would be taken where pts goes back
    try:
        frames: list[Any] = packet.decode()
    except av.FFmpegError:
        return []
    return frames


def drain(context: Any) -> list[Any]:
    """The frames that a decoder still holds. It must be flushed before it can go on, as a seek does."""
    try:
        frames: list[Any] = context.decode(None)
    except av.FFmpegError:  # InvalidDataError for damage; EOFError if it had been drained
        return []
    return frames


def _places_by_decoding(filename: str) -> list[int]:
    with av.open(filename) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        places: list[int] = []
        for place, packet in enumerate(container.demux(stream)):
            places.extend(frame.pts for frame in decode_packet(packet, place))
    return places


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


def _are_distinct(stamps: list[Any]) -> bool:
    return bool(stamps) and None not in stamps and len(set(stamps)) == len(stamps)
