"""Videos from image files and image files from videos."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from cv.image import imread, imwrite
from cv.utils import ProgressBar

from .decoders import VideoError
from .decoders.base import Frame

if TYPE_CHECKING:
    from .reader import VideoReader

StrPath = str | os.PathLike[str]


def frames2video(
    frame_dir: StrPath,
    video_file: StrPath,
    fps: float = 30,
    fourcc: str = "XVID",
    filename_tmpl: str = "{:06d}.jpg",
    start: int = 0,
    end: int = 0,
    show_progress: bool = True,
) -> None:
    """Join image files to a video.

    The video appears under its name when it is complete.

    Args:
        frame_dir: Folder with the images. They must have one size.
        video_file: Video to write; its suffix names the container. The folder is made if absent.
        fps: Frames per second.
        fourcc: Four character code of the codec, one that OpenCV can write and the container can hold:
            ``'XVID'`` or ``'MJPG'`` for ``.avi``, ``'mp4v'`` for ``.mp4``.
        filename_tmpl: Name of the images with a place for their number.
        start: Number of the first image.
        end: Number after the last image; 0 for all there are.
        show_progress: Whether to show a progress bar.

    Raises:
        FileNotFoundError: An image in the range is missing.
        ValueError: The range is empty, an image has another size, or ``fourcc`` or ``fps`` makes no sense.
        VideoError: OpenCV cannot write such a video, or not all of it could be written (disk full).
    """
    folder, target = Path(frame_dir), Path(video_file)
    if len(fourcc) != 4:
        raise ValueError(f"fourcc must have four characters, got {fourcc!r}")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if start < 0:
        raise ValueError(f"start must not be negative, got {start}")
    if end == 0:
        end = _number_after_last(folder, filename_tmpl)
    first = folder / _file_name(filename_tmpl, start)
    if not first.exists():
        raise FileNotFoundError(f"The start frame not found: {first}")
    if end <= start:
        raise ValueError(f"end must be greater than start ({start}), got {end}")

    height, width = imread(first).shape[:2]
    with replacing(target) as temporary:
        temporary.touch()  # no permission: its own error, OpenCV tells none
        code = cv2.VideoWriter.fourcc(*fourcc)
        writer = cv2.VideoWriter(os.fspath(temporary), code, float(fps), (width, height))
        if not writer.isOpened():
            raise VideoError(f"OpenCV cannot write {target.suffix or 'such'} files with fourcc {fourcc!r}")
        bar = ProgressBar(end - start) if show_progress else None
        try:
            for number in range(start, end):
                path = folder / _file_name(filename_tmpl, number)
                image = imread(path)
                if image.shape[:2] != (height, width):
                    size = f"{image.shape[1]} x {image.shape[0]}"
                    raise ValueError(f"{path} is {size}, but the first image is {width} x {height}")
                writer.write(image)
                if bar is not None:
                    bar.update()
        finally:
            writer.release()
            if bar is not None:
                bar.finish()
        _check_complete(temporary, target, end - start)


def write_frames(
    video: VideoReader,
    frame_dir: StrPath,
    file_start: int,
    filename_tmpl: str,
    start: int,
    max_num: int,
    show_progress: bool,
    overwrite: bool,
) -> None:
    """Write frames as image files; see :meth:`VideoReader.cvt2frames`.

    One thread decodes while others encode: OpenCV lets go of Python's lock for both.
    """
    for name, value in (("start", start), ("file_start", file_start), ("max_num", max_num)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    _file_name(filename_tmpl, file_start)
    count = len(video) - start
    if max_num > 0:
        count = min(count, max_num)
    if count <= 0:
        raise ValueError(f"start must be less than the number of frames ({len(video)}), got {start}")
    folder = Path(frame_dir)
    folder.mkdir(parents=True, exist_ok=True)

    bar = ProgressBar(count) if show_progress else None
    workers = min(os.cpu_count() or 1, 8)
    running: set[Future[object]] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number in range(count):
                path = folder / _file_name(filename_tmpl, file_start + number)
                if overwrite or not path.exists():
                    running.add(pool.submit(imwrite, _frame(video, start + number), path))
                if len(running) > 2 * workers:  # bounds the memory
                    running = _collect(running)
                if bar is not None:
                    bar.update()
            while running:
                running = _collect(running)
        finally:
            for future in running:
                future.cancel()
            if bar is not None:
                bar.finish()


def _frame(video: VideoReader, number: int) -> Frame:
    frame = video.get_frame(number)
    assert frame is not None
    return frame


def _collect(running: set[Future[object]]) -> set[Future[object]]:
    """Wait until one is done; its exception comes out here."""
    done, rest = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest


def _file_name(template: str, number: int) -> str:
    name = template.format(number)
    if name == template.format(number + 1):
        raise ValueError(f"filename_tmpl must have a place for the number, got {template!r}")
    return name


def _number_after_last(folder: Path, template: str) -> int:
    """One more than the greatest number among the files that fit the template."""
    _file_name(template, 0)
    numbers = [0]
    for path in folder.iterdir():
        numbers += [
            int(text) + 1 for text in re.findall(r"\d+", path.name) if template.format(int(text)) == path.name
        ]
    return max(numbers)


def _check_complete(written: Path, target: Path, count: int) -> None:
    """OpenCV says nothing if a frame could not be written: count them."""
    from .reader import VideoReader

    try:
        with VideoReader(written, cache_capacity=0) as video:
            found = len(video)
    except VideoError:
        found = 0
    if found != count:
        raise VideoError(f"{target}: only {found} of {count} frames could be written (is the disk full?)")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside a target, renamed over it at the end or removed if something fails.

    A link is followed, and a file that is replaced keeps its permissions. What is there and not a
    regular file (``/dev/null``, a pipe) is written to directly.
    """
    suffix = target.suffix  # it names the container, so it stays last, and a link's own counts
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(f"Video to write is a folder: {target}")
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:100]}.{os.urandom(6).hex()}.tmp{suffix}")
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
