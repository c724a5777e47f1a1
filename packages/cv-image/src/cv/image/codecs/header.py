"""What a file's first bytes say: the kind of image and its size, without decoding anything.

Read before decoding, so that a small file which claims an enormous image is refused instead of filling
memory.
Sources: ITU-T T.81 (JPEG), the PNG, GIF89a, WebP container, TIFF 6.0 and BigTIFF specifications,
BITMAPINFOHEADER.
"""

from __future__ import annotations

import io
import struct

from cv.image.errors import ImageTooLargeError

# Start-of-frame markers: 0xC0 to 0xCF without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_START_OF_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"


def image_kind(data: bytes) -> str | None:
    """The format that the magic bytes announce ("JPEG", "PNG", …), None if it is none of the known ones."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[4:8] == b"ftyp" and b"avif" in data[8 : min(int.from_bytes(data[:4], "big"), 256)]:  # its brands
        return "AVIF"
    return None


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header claims them, None if they cannot be found."""
    kind = image_kind(data)
    try:
        if kind == "JPEG":
            return _jpeg_header(data)[0]
        if kind == "PNG":
            return _pair(">II", data, 16)
        if kind == "GIF":
            return _pair("<HH", data, 6)
        if kind == "BMP":
            return _bmp_size(data)
        if kind == "WebP":
            return _webp_size(data)
        if kind == "TIFF":
            tags = _tiff_tags(data)
            return (tags[256], tags[257]) if 256 in tags and 257 in tags else None
    except struct.error:  # the header itself is cut off
        return None
    return _size_by_pillow(data)


def check_size(data: bytes, max_pixels: int) -> None:
    """Raise `ImageTooLargeError` if the header claims more than `max_pixels` pixels."""
    size = image_size(data)
    if size is not None:
        check_pixels(*size, max_pixels)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise `ImageTooLargeError` if width * height is more than `max_pixels`."""
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width} x {height} is more than {max_pixels} pixels; if the file is to be trusted, pass "
            "a larger max_pixels or set the environment variable CV_IMAGE_MAX_PIXELS"
        )


def png_chunks_fit(data: bytes) -> bool:
    """Whether no chunk of a PNG file claims more than the file has: decoders allocate what it claims."""
    offset = 8
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        offset += 12 + length
        if kind == b"IEND":
            return True
    return offset <= len(data)


def tiff_orientation(data: bytes) -> int:
    """The orientation of a TIFF file's first image, 1 to 8; 1 if it is absent, or the file is no TIFF."""
    try:
        orientation = _tiff_tags(data).get(274, 1) if image_kind(data) == "TIFF" else 1
    except struct.error:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def tiff_has_loop(data: bytes) -> bool:
    """Whether a TIFF file's chain of directories comes back on itself: it would be read without end."""
    layout, seen = _TiffLayout(data), set()
    try:
        offset = layout.first_directory(data)
        while offset and offset not in seen:
            seen.add(offset)
            offset = layout.next_directory(data, offset)
    except struct.error:  # it ends outside the file
        return False
    return offset != 0


def jpeg_is_complete(data: bytes) -> bool:
    """Whether the JPEG image has its end marker; without it decoders fill the rest with grey.

    The search starts behind the header: an embedded thumbnail has an end marker of its own.
    """
    try:
        start_of_scan = _jpeg_header(data)[1]
    except struct.error:
        return False
    return start_of_scan > 0 and data.rfind(_JPEG_END, start_of_scan) >= 0


def _jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Size, and the offset of the first scan (0 if there is none)."""
    size: tuple[int, int] | None = None
    offset = 2
    while True:
        offset = data.find(b"\xff", offset)
        if offset < 0:
            return size, 0
        marker = data[offset + 1] if offset + 1 < len(data) else 0
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # no segment follows
            offset += 1 if marker == 0xFF else 2
            continue
        if marker == _JPEG_START_OF_SCAN:
            return size, offset
        if marker in _JPEG_FRAMES and size is None:
            height, width = _pair(">HH", data, offset + 5)
            size = (width, height)
        offset += 2 + max(2, _unpack(">H", data, offset + 2)[0])


def _bmp_size(data: bytes) -> tuple[int, int]:
    if _unpack("<I", data, 14)[0] == 12:  # BITMAPCOREHEADER
        return _pair("<HH", data, 18)
    width, height = _pair("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from the top


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":  # canvas: two 24-bit numbers, less one
        low_w, high_w, low_h, high_h = _unpack("<HBHB", data, 24)
        return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
    if chunk == b"VP8L":  # one signature byte, then two 14-bit numbers, less one
        bits = _unpack("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = _pair("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_tags(data: bytes) -> dict[int, int]:
    """ImageWidth (256), ImageLength (257) and Orientation (274) of the first directory."""
    layout = _TiffLayout(data)
    offset = layout.first_directory(data)
    first = offset + struct.calcsize(layout.count)
    end = min(first + _unpack(layout.count, data, offset)[0] * layout.entry_size, len(data))
    found: dict[int, int] = {}
    for entry in range(first, end, layout.entry_size):
        tag, kind = _unpack(f"{layout.order}HH", data, entry)
        value_format = {3: "H", 4: "I", 16: "Q"}.get(kind)  # SHORT, LONG, LONG8
        if tag in (256, 257, 274) and value_format is not None:
            found[tag] = _unpack(layout.order + value_format, data, entry + layout.value_at)[0]
    return found


class _TiffLayout:
    """Byte order and sizes of classic TIFF (32-bit offsets) and BigTIFF (64-bit)."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        self.is_big = data[2:4] in (b"+\0", b"\0+")
        self.offset = self.order + ("Q" if self.is_big else "I")
        self.count = self.order + ("Q" if self.is_big else "H")
        self.entry_size = 20 if self.is_big else 12
        self.value_at = 12 if self.is_big else 8

    def first_directory(self, data: bytes) -> int:
        return _unpack(self.offset, data, 8 if self.is_big else 4)[0]

    def next_directory(self, data: bytes, offset: int) -> int:
        entries = _unpack(self.count, data, offset)[0] * self.entry_size
        return _unpack(self.offset, data, offset + struct.calcsize(self.count) + entries)[0]


def _size_by_pillow(data: bytes) -> tuple[int, int] | None:
    """The size of a rarer kind of image (JPEG 2000, AVIF, PNM, …), where Pillow knows it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as img:
            return (img.width, img.height)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error)) from error
    except Exception:  # its plugins raise all kinds of things for what they cannot read
        return None


def _pair(layout: str, data: bytes, offset: int) -> tuple[int, int]:
    first, second = _unpack(layout, data, offset)
    return first, second


def _unpack(layout: str, data: bytes, offset: int) -> tuple[int, ...]:
    if offset > len(data):  # struct would refuse an offset beyond 2**63 with another exception
        raise struct.error("beyond the end")
    return struct.unpack_from(layout, data, offset)
