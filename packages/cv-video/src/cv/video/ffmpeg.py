"""Convert, resize, cut and join videos with the ffmpeg program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cv.utils import ProgressBar

from .frames import StrPath, replacing

_LOG_LEVELS = ("quiet", "panic", "fatal", "error", "warning", "info", "verbose", "debug", "trace")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NUMBERED = re.compile(r"%0?\d*d")


class FFmpegError(RuntimeError):
    """ffmpeg is missing, or it failed; the text ends with what ffmpeg said."""


def convert_video(
    in_file: StrPath,
    out_file: StrPath,
    print_cmd: bool = False,
    pre_options: str | Sequence[str] = "",
    *,
    show_progress: bool = False,
    **kwargs: Any,
) -> None:
    """Run ``ffmpeg -y <pre_options> -i <in_file> <options> <out_file>``.

    No shell is involved, and file names are made absolute, so that spaces, quotes, a leading dash or a colon
    in them mean nothing. The output appears under its name when it is complete.

    Args:
        in_file: Video to read: a path or a URL.
        out_file: Video to write; its folder is made if absent. A name such as ``%06d.jpg`` gives images.
        print_cmd: Whether to print the command.
        pre_options: Options before ``-i``: a string, split as a shell would, or a list.
        show_progress: Whether to show how many frames are done.
        **kwargs: Options of the output: ``key=val`` gives ``-key val``, ``key=True`` gives ``-key``,
            ``key=False`` nothing, a list one ``-key`` for each of its values. ``log_level`` is
            ``-loglevel``; ``'error'`` if not given.

    Raises:
        FileNotFoundError: ``in_file`` does not exist.
        FFmpegError: ffmpeg is not installed, or failed. A ``RuntimeError``.

    Example:
        >>> convert_video('a.avi', 'a.mp4', vcodec='libx264', crf=20, an=True)
    """
    source = _input_name(in_file)
    before = shlex.split(pre_options) if isinstance(pre_options, str) else list(pre_options)
    options = _options({"log_level": "error", **kwargs})
    if _URL.match(os.fspath(out_file)) or _NUMBERED.search(Path(out_file).name):
        target = os.fspath(out_file)
        if not _URL.match(target):
            Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)
            target = os.fspath(Path(target).absolute())
        _run([*before, "-i", source, *options, target], print_cmd, show_progress)
        return
    with replacing(Path(out_file).absolute()) as temporary:
        _run([*before, "-i", source, *options, os.fspath(temporary)], print_cmd, show_progress)


def resize_video(
    in_file: StrPath,
    out_file: StrPath,
    size: tuple[int, int] | None = None,
    ratio: float | tuple[float, float] | None = None,
    keep_ar: bool = False,
    log_level: str = "info",
    print_cmd: bool = False,
) -> None:
    """Resize a video.

    Args:
        in_file: Video to read.
        out_file: Video to write.
        size: New width and height, such as (320, 240); -1 for one of them keeps the proportions (to an even
            number, which most codecs need).
        ratio: Factor for both, or one for the width and one for the height: (2, 0.5) means twice as wide and
            half as high. The result is rounded down to even numbers.
        keep_ar: Whether to keep the proportions: the video becomes as large as fits into ``size``.
        log_level: What ffmpeg prints to the standard error.
        print_cmd: Whether to print the command.

    Raises:
        ValueError: Both or neither of ``size`` and ``ratio`` are given, or they make no sense.
        FileNotFoundError: ``in_file`` does not exist.
        FFmpegError: ffmpeg is not installed, or failed.
    """
    if (size is None) == (ratio is None):
        raise ValueError(f"expected one of size and ratio, got size {size} and ratio {ratio}")
    if size is not None:
        width, height = (int(side) for side in size)
        if not all(side > 0 or side in (-1, -2) for side in (width, height)) or width == height < 0:
            raise ValueError(f"size must be positive, with -1 for at most one side, got {size}")
        width, height = (-2 if side < 0 else side for side in (width, height))
        scale = f"scale={width}:{height}"
        if keep_ar:
            scale += ":force_original_aspect_ratio=decrease:force_divisible_by=2"
    else:
        assert ratio is not None
        across, down = (
            float(part) for part in (ratio if isinstance(ratio, (tuple, list)) else (ratio, ratio))
        )
        if not (across > 0 and down > 0):
            raise ValueError(f"ratio must be positive, got {ratio}")
        scale = f"scale=trunc(iw*{across:.9f}/2)*2:trunc(ih*{down:.9f}/2)*2"
    convert_video(in_file, out_file, print_cmd, log_level=log_level, vf=scale)


def cut_video(
    in_file: StrPath,
    out_file: StrPath,
    start: float | None = None,
    end: float | None = None,
    vcodec: str | None = None,
    acodec: str | None = None,
    log_level: str = "info",
    print_cmd: bool = False,
) -> None:
    """Cut a clip from a video.

    Without ``vcodec`` the packets are copied: fast and without loss. A clip can then begin at a key frame
    only: mp4 and mov hide the frames before ``start``, other containers show them. With ``vcodec`` frames
    are encoded again, and the clip has exactly those of ``start <= time < end``.

    Args:
        in_file: Video to read.
        out_file: Video to write.
        start: Where to begin, in seconds; None for the beginning.
        end: Where to stop, in seconds; None for the end.
        vcodec: Video codec of the output, None for unchanged.
        acodec: Audio codec of the output, None for unchanged.
        log_level: What ffmpeg prints to the standard error.
        print_cmd: Whether to print the command.

    Raises:
        ValueError: ``start`` is negative, or ``end`` not after it.
        FileNotFoundError: ``in_file`` does not exist.
        FFmpegError: ffmpeg is not installed, or failed.
    """
    begin = start or 0.0
    if begin < 0:
        raise ValueError(f"start must not be negative, got {start}")
    if end is not None and end <= begin:
        raise ValueError(f"end must be after start ({begin}), got {end}")
    options: dict[str, Any] = {"vcodec": vcodec or "copy", "acodec": acodec or "copy", "log_level": log_level}
    if end is not None:
        options["t"] = f"{end - begin:.6f}"
        if not begin and vcodec is None:
            # Packets are in the order of decoding: -t alone would let some frames after the end through.
            options["frames:v"] = _frames_before(_input_name(in_file), end)
    convert_video(in_file, out_file, print_cmd, ["-ss", f"{begin:.6f}"] if begin else [], **options)


def concat_video(
    video_list: Sequence[StrPath],
    out_file: StrPath,
    vcodec: str | None = None,
    acodec: str | None = None,
    log_level: str = "info",
    print_cmd: bool = False,
) -> None:
    """Join videos one after the other.

    Args:
        video_list: The videos. They must be of one kind (container, codec, size), whatever the output's.
        out_file: Video to write.
        vcodec: Video codec of the output, None for unchanged.
        acodec: Audio codec of the output, None for unchanged.
        log_level: What ffmpeg prints to the standard error.
        print_cmd: Whether to print the command.

    Raises:
        TypeError: ``video_list`` is one path.
        ValueError: ``video_list`` is empty.
        FileNotFoundError: One of the videos does not exist.
        FFmpegError: ffmpeg is not installed, or failed, or the videos do not fit together.
    """
    if isinstance(video_list, (str, bytes, os.PathLike)):
        raise TypeError(f"video_list must be a list of paths, got {type(video_list).__name__}")
    if not video_list:
        raise ValueError("video_list must name at least one video, got none")
    options: dict[str, Any] = {"vcodec": vcodec or "copy", "acodec": acodec or "copy", "log_level": log_level}
    sources = [Path(_input_name(name)) for name in video_list]
    with tempfile.TemporaryDirectory(prefix="cv-concat-") as folder:
        # ffmpeg's list has lines and quotes of its own; links keep odd file names out of it.
        lines = []
        for number, source in enumerate(sources):
            link = Path(folder, f"{number:06}{source.suffix if source.suffix.isalnum() else ''}")
            link.symlink_to(source)
            lines.append(f"file '{link.name}'\n")
        listing = Path(folder, "list.txt")
        listing.write_text("".join(lines), encoding="utf-8")
        with replacing(Path(out_file).absolute()) as temporary:
            convert_video(listing, temporary, print_cmd, ["-f", "concat", "-safe", "0"], **options)
            _check_joined(sources, temporary)


def find_ffmpeg() -> str:
    """The ffmpeg program: on the path, else that of the package ``imageio-ffmpeg``.

    Raises:
        FFmpegError: There is neither.
    """
    program = shutil.which("ffmpeg")
    if program is not None:
        return program
    try:
        import imageio_ffmpeg
    except ImportError:
        raise FFmpegError(
            "ffmpeg is not installed: install it with your system's packages "
            "(apt-get install ffmpeg, brew install ffmpeg), or pip install cv-video[ffmpeg]"
        ) from None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _run(arguments: list[str], print_cmd: bool, show_progress: bool) -> None:
    progress = ["-progress", "pipe:1"] if show_progress else []
    command = [find_ffmpeg(), "-y", "-nostdin", "-hide_banner", "-nostats", *progress, *arguments]
    if print_cmd:
        print(shlex.join(command))  # noqa: T201 (asked for)
    bar = ProgressBar() if show_progress else None
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if show_progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            said = _relay(process, bar)
        except BaseException:
            process.kill()
            raise
        finally:
            if bar is not None:
                bar.finish()
    if process.returncode != 0:
        text = "".join(said).strip() or "it said nothing"
        raise FFmpegError(f"ffmpeg failed with exit status {process.returncode}: {text}")


def _relay(process: subprocess.Popen[str], bar: ProgressBar | None) -> deque[str]:
    """Pass on what ffmpeg says and keep the end of it."""
    import threading

    said: deque[str] = deque(maxlen=20)

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            sys.stderr.write(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    if bar is not None and process.stdout is not None:
        for line in process.stdout:
            key, _, value = line.partition("=")
            if key == "frame" and value.strip().isdigit():
                bar.update(int(value) - bar.completed)
    process.wait()
    listener.join()
    return said


def _input_name(name: StrPath) -> str:
    text = os.fspath(name)
    if _URL.match(text):
        return text
    if not Path(text).exists():
        raise FileNotFoundError(f"Video file not found: {text}")
    # An absolute path begins with neither a dash nor the name of a protocol.
    return os.fspath(Path(text).absolute())


def _options(given: dict[str, Any]) -> list[str]:
    options: list[str] = []
    for key, value in given.items():
        if key == "log_level":
            if value not in _LOG_LEVELS:
                raise ValueError(f"log_level must be one of {', '.join(_LOG_LEVELS)}, got {value!r}")
            options += ["-loglevel", value]
        elif isinstance(value, bool):
            options += [f"-{key}"] if value else []
        elif isinstance(value, (list, tuple)):
            for one in value:
                options += [f"-{key}", str(one)]
        else:
            options += [f"-{key}", str(value)]
    return options


def _check_joined(sources: list[Path], joined: Path) -> None:
    """ffmpeg leaves out what does not fit to the first video, and reports success: count."""
    from .decoders.opencv import times_in_file

    wanted = sum(len(times_in_file(os.fspath(source))) for source in sources)
    found = len(times_in_file(os.fspath(joined)))
    # Where the frame rate is evened out, a frame at a seam may go.
    if found < wanted - len(sources):
        raise FFmpegError(
            f"only {found} of {wanted} frames could be joined: the videos must have one container, codec "
            "and size (convert_video can make them alike)"
        )


def _frames_before(filename: str, end: float) -> int:
    """How many frames are shown before a time, counted from the first."""
    from .decoders.opencv import times_in_file

    times = times_in_file(filename)
    first = min(times, default=0)
    return max(sum(time - first < round(end * 1e9) - 500_000 for time in times), 1)
