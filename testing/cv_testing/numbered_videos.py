"""Videos for the tests, made with ffmpeg: each frame carries its number as a pattern of blocks."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

BLOCK = 16  # pixels; large enough to come through any codec here
BITS = 12
WIDTH, HEIGHT = 112, 64  # 6 x 2 blocks and a margin of half a block


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame (H, W, 3) whose blocks spell a number, over a background that moves."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([(x * 2 + number * 5) % 256, (y * 3 + number) % 256, (x + y) % 256], -1) // 2 + 64
    for bit in range(BITS):
        top, left = 8 + BLOCK * (bit // 6), 8 + BLOCK * (bit % 6)
        frame[top : top + BLOCK, left : left + BLOCK] = 255 if number >> bit & 1 else 0
    return frame.astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Read the number back."""
    number = 0
    for bit in range(BITS):
        top, left = 8 + BLOCK * (bit // 6), 8 + BLOCK * (bit % 6)
        level = frame[top + 4 : top + BLOCK - 4, left + 4 : left + BLOCK - 4].mean()
        assert level < 60 or level > 195, f"block {bit} is neither black nor white: {level}"
        number |= int(level > 128) << bit
    return number


def run_ffmpeg(arguments: list[str], frames: list[np.ndarray] | None = None, rate: int = 25) -> None:
    """Run ffmpeg, with frames on its standard input."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg on the path (apt-get install ffmpeg)")
    source: list[str] = []
    data = b""
    if frames is not None:
        height, width = frames[0].shape[:2]
        size = f"{width}x{height}"
        source = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", size, "-r", str(rate), "-i", "-"]
        data = b"".join(frame.tobytes() for frame in frames)
    command = [program, "-v", "error", "-y", *source, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    text = done.stderr.decode(errors="replace")
    if done.returncode and "Unknown encoder" in text:
        pytest.skip(f"this ffmpeg lacks an encoder: {text.strip()}")
    assert done.returncode == 0, text


X264 = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]


def _codec(arguments: list[str], count: int = 60, **kwargs: int) -> Callable[[Path], None]:
    frames = [numbered(number, **kwargs) for number in range(count)]
    return lambda path: run_ffmpeg([*arguments, str(path)], frames)


def _remux(
    source: list[str], arguments: list[str], before: list[str] | None = None
) -> Callable[[Path], None]:
    """Encode to mp4, then copy the packets with other arguments."""

    def make(path: Path) -> None:
        first = path.with_name(f"{path.stem}-first.mp4")
        _codec(source)(first)
        run_ffmpeg([*(before or []), "-i", str(first), "-c", "copy", *arguments, str(path)])

    return make


def _variable_rate(path: Path) -> None:
    frames = [numbered(number) for number in range(60)]
    pts = "setpts='(N+floor(N/7)*3+gt(N\\,30)*25)/25/TB'"
    run_ffmpeg(["-vf", pts, "-vsync", "vfr", *X264, "-g", "12", str(path)], frames)


# Name -> (how to make it, the numbers its frames carry).
MATRIX: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "h264-bframes.mp4": (_codec([*X264, "-g", "12", "-bf", "3"]), list(range(60))),
    "h264-bframes.mkv": (_codec([*X264, "-g", "12", "-bf", "3"]), list(range(60))),
    "h264-bframes.ts": (_codec([*X264, "-g", "12", "-bf", "3"]), list(range(60))),
    "h264-bframes.avi": (_codec([*X264, "-g", "12", "-bf", "3"]), list(range(60))),
    "h264-nobframes.avi": (_codec([*X264, "-g", "12", "-bf", "0"]), list(range(60))),
    "h264-open.mp4": (_codec([*X264, "-x264-params", "keyint=12:open-gop=1:bframes=3"]), list(range(60))),
    "h264-open.mkv": (_codec([*X264, "-x264-params", "keyint=12:open-gop=1:bframes=3"]), list(range(60))),
    "h264-open.ts": (_codec([*X264, "-x264-params", "keyint=12:open-gop=1:bframes=3"]), list(range(60))),
    "h264-gop1.mp4": (_codec([*X264, "-g", "1"]), list(range(60))),
    "h264-gop250.mp4": (_codec([*X264, "-g", "250"], 300), list(range(300))),
    "h264-raw.h264": (_codec([*X264, "-g", "12", "-f", "h264"]), list(range(60))),
    "hevc.mp4": (
        _codec([*X265, "-x265-params", "log-level=error:keyint=12:open-gop=0:bframes=3"]),
        list(range(60)),
    ),
    "hevc-open.mkv": (
        _codec([*X265, "-x265-params", "log-level=error:keyint=12:open-gop=1:bframes=3"]),
        list(range(60)),
    ),
    "mpeg4.mp4": (_codec(["-c:v", "mpeg4", "-q:v", "3", "-g", "12", "-bf", "2"]), list(range(60))),
    "mpeg4-bframes.avi": (_codec(["-c:v", "mpeg4", "-q:v", "3", "-g", "12", "-bf", "2"]), list(range(60))),
    "mpeg4.avi": (_codec(["-c:v", "mpeg4", "-q:v", "3", "-g", "12"]), list(range(60))),
    "mpeg4.ts": (_codec(["-c:v", "mpeg4", "-q:v", "3", "-g", "12", "-bf", "2"]), list(range(60))),
    "mpeg2.ts": (_codec(["-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2"]), list(range(60))),
    # Two frames in a packet. The encoder keeps its last two to itself.
    "xvid-packed.avi": (_codec(["-c:v", "libxvid", "-q:v", "1", "-g", "12", "-bf", "2"]), list(range(58))),
    "vp8.webm": (
        _codec(["-c:v", "libvpx", "-g", "20", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "1M"]),
        list(range(60)),
    ),
    "vp9.webm": (
        _codec(["-c:v", "libvpx-vp9", "-g", "20", "-cpu-used", "8", "-lag-in-frames", "16", "-b:v", "1M"]),
        list(range(60)),
    ),
    "av1.mp4": (
        _codec(["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "15", "-lag-in-frames", "0"], 30),
        list(range(30)),
    ),
    "av1.mkv": (
        _codec(["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "20", "-lag-in-frames", "8"], 40),
        list(range(40)),
    ),
    "mjpeg.avi": (_codec(["-c:v", "mjpeg", "-q:v", "3"]), list(range(60))),
    "odd.mkv": (_codec(["-c:v", "ffv1", "-g", "12"], 60, width=113, height=65), list(range(60))),
    "odd.webm": (
        _codec(["-c:v", "libvpx-vp9", "-g", "12", "-cpu-used", "8", "-b:v", "1M"], width=113, height=65),
        list(range(60)),
    ),
    "odd-444.mp4": (
        _codec(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv444p"], 60, width=113, height=65),
        list(range(60)),
    ),
    "one.mp4": (_codec(X264, 1), [0]),
    "two.mkv": (_codec(X264, 2), [0, 1]),
    "vfr.mp4": (_variable_rate, list(range(60))),
    "vfr.mkv": (_variable_rate, list(range(60))),
    "start.mkv": (_remux([*X264, "-g", "12"], ["-output_ts_offset", "7.3"]), list(range(60))),
    "start.mp4": (_remux([*X264, "-g", "12"], ["-output_ts_offset", "7.3"]), list(range(60))),
    "edit-start.mp4": (_remux([*X264, "-g", "12"], [], ["-ss", "0.64"]), list(range(16, 60))),
    "edit-end.mp4": (_remux([*X264, "-g", "12", "-bf", "0"], ["-t", "1.2"]), list(range(30))),
    "fragments.mp4": (
        _remux([*X264, "-g", "12"], ["-movflags", "frag_keyframe+empty_moov"]),
        list(range(60)),
    ),
    "live.mkv": (_remux([*X264, "-g", "12"], ["-live", "1"]), list(range(60))),
}
# What OpenCV's wheel has no decoder for.
NEEDS_AV = {"av1.mp4", "av1.mkv"}
