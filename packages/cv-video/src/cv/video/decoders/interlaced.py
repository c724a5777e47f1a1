"""Whether a stream may hold interlaced pictures.

OpenCV from 4.13 on does not convert those to BGR: its ``retrieve`` succeeds, and gives memory that was never
written. It does not tell which pictures are interlaced, so the header of the stream has to.
"""

from __future__ import annotations

# profile_idc with a chroma format in the header, ITU-T H.264 section 7.3.2.1.1
_WITH_CHROMA_FORMAT = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


def may_be_interlaced(codec: str, header: bytes) -> bool:
    """Whether the header of a stream allows for interlaced pictures.

    Args:
        codec: Four character code as OpenCV names it; False for all but ``'h264'`` and ``'mpg2'``.
        header: The codec's extra data, as in the container or as it begins the stream.
    """
    try:
        if codec == "mpg2":
            return _mpeg2(header)
        return codec == "h264" and _h264(header)
    except (IndexError, ValueError):  # cut off
        return False


def _mpeg2(header: bytes) -> bool:
    """``progressive_sequence`` of the sequence extension, ITU-T H.262 section 6.2.2.3."""
    start = header.index(b"\0\0\1\xb5")
    return header[start + 4] >> 4 == 1 and not header[start + 5] & 8


def _h264(header: bytes) -> bool:
    """``frame_mbs_only_flag`` of the sequence parameter set, ITU-T H.264 section 7.3.2.1.1."""
    if header[0] == 1:  # ISO/IEC 14496-15: avcC, its first parameter set
        unit = header[8 : 8 + int.from_bytes(header[6:8], "big")]
    else:
        units = header.split(b"\0\0\1")
        unit = next((unit for unit in units if unit and unit[0] & 31 == 7), b"")
    bits = _Bits(unit[4:].replace(b"\0\0\3", b"\0\0"))
    bits.number()  # seq_parameter_set_id
    if unit[1] in _WITH_CHROMA_FORMAT:
        chroma_format = bits.number()
        bits.take(int(chroma_format == 3))
        bits.number(), bits.number()  # bit depths
        bits.take(1)
        if bits.take(1):  # scaling lists
            for which in range(12 if chroma_format == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if which < 6 else 64)
    bits.number()  # log2_max_frame_num_minus4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.take(1)
        bits.number(), bits.number()
        for _ in range(bits.number()):
            bits.number()
    bits.number()  # max_num_ref_frames
    bits.take(1)
    bits.number(), bits.number()  # size
    return not bits.take(1)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.number()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _Bits:
    """Numbers of any length out of bytes, ITU-T H.264 section 9.1."""

    def __init__(self, content: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in content)
        self._place = 0

    def take(self, count: int) -> int:
        taken = self._bits[self._place : self._place + count]
        if len(taken) < count:
            raise ValueError("the header is cut off")
        self._place += count
        return int(taken or "0", 2)

    def number(self) -> int:
        """An Exp-Golomb number."""
        zeros = self._bits.index("1", self._place) - self._place
        self._place += zeros
        return self.take(zeros + 1) - 1
