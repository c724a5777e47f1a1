"""cv.video against mmcv 1.3.15, PyAV, decord, torchcodec and OpenCV's bare VideoCapture.

Videos are made with ffmpeg: 720p and 1080p H.264 with two B-frames, a key frame each 12 or 250 frames, 10 s
at 25 frames a second. All give BGR or RGB uint8 arrays. Each case is run in a process of its own, so that
its peak of memory is known too; the processes take turns and the median of the rounds counts. A peer that is
not installed is left out.

Run one case by hand: ``python bench_video.py --case sequential --reader cv --video FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAMES = 250
READERS = ("cv", "cv without PyAV", "OpenCV", "mmcv", "PyAV", "decord", "torchcodec")


def main() -> None:
    """Run all cases and write the report, or one case in this process."""
    if "--case" in sys.argv:
        print(json.dumps(run_case()))
        return
    from harness import Report, arguments

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--rounds", type=int, default=3)
    own.add_argument("--jumps", type=int, default=100)
    options, rest = own.parse_known_args()
    args = arguments(__doc__, rest)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    report = Report("video", threads=args.threads)
    memory: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size, name in (("1280x720", "720p"), ("1920x1080", "1080p")):
            for group in (12, 250):
                video = make_video(Path(folder, f"{name}-{group}.mp4"), size, group)
                for case in ("sequential", "random", "cvt2frames"):
                    if case == "cvt2frames" and group != 12:
                        continue
                    what = f"{options.jumps} jumps" if case == "random" else case
                    title = f"{what}, {name}, GOP {group}"
                    seconds, peaks = compare(case, video, options.rounds, options.jumps)
                    report.add(title, seconds)
                    memory[title] = peaks
    warp(report)
    path = report.write(args.out)
    result = json.loads(path.read_text())
    result["peak_memory_mib"] = memory
    result["rounds"] = options.rounds
    path.write_text(json.dumps(result, indent=1) + "\n")


def make_video(path: Path, size: str, group: int) -> Path:
    """A moving test picture with noise, so that it does not compress to nothing."""
    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg is not None, "this benchmark needs the ffmpeg program"
    source = f"testsrc2=size={size}:rate=25,noise=alls=12:allf=t"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(FRAMES)]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", str(group), "-sc_threshold", "0"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path


def compare(case: str, video: Path, rounds: int, jumps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and greatest peak of memory, in MiB, of each reader that can do the case."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    missing: set[str] = set()
    for _ in range(rounds):
        for reader in READERS:
            if reader in missing:
                continue
            command = [sys.executable, "-W", "ignore", __file__, "--case", case, "--reader", reader]
            command += ["--jumps", str(jumps)]
            done = subprocess.run(
                [*command, "--video", str(video)], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                missing.add(reader)
                continue
            got = json.loads(done.stdout.splitlines()[-1])
            seconds.setdefault(reader, []).append(got["seconds"])
            peaks[reader] = max(peaks.get(reader, 0), got["peak_mib"])
    return {reader: statistics.median(times) for reader, times in seconds.items()}, peaks


def run_case() -> dict[str, float]:
    """One case in this process: seconds, and the peak of its memory in MiB."""
    parser = argparse.ArgumentParser()
    for name in ("--case", "--reader", "--video"):
        parser.add_argument(name, required=True)
    parser.add_argument("--jumps", type=int, default=100)
    args = parser.parse_args()
    numbers = random.Random(0).choices(range(FRAMES), k=args.jumps)
    prepare: Callable[[str, list[int]], dict[str, Callable[[], Any]]] = OPENERS[args.reader]
    calls = prepare(args.video, numbers)
    start = time.perf_counter()
    calls[args.case]()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def open_cv(video: str, numbers: list[int], backend: str = "auto") -> dict[str, Callable[[], Any]]:
    """Ours. Random access pays for opening and for the index."""
    import cv.video

    def reader() -> Any:
        return cv.video.VideoReader(video, backend=backend)  # type: ignore[arg-type]

    if backend == "av":
        import av  # noqa: F401
    return {
        "sequential": lambda: [frame.shape for frame in reader()],
        "random": lambda: random_read(reader(), numbers),
        "cvt2frames": lambda: in_folder(lambda folder: reader().cvt2frames(folder, show_progress=False)),
    }


def open_mmcv(video: str, numbers: list[int]) -> dict[str, Callable[[], Any]]:
    """mmcv 1.3.15."""
    import mmcv

    return {
        "sequential": lambda: [frame.shape for frame in mmcv.VideoReader(video)],
        "random": lambda: random_read(mmcv.VideoReader(video), numbers),
        "cvt2frames": lambda: in_folder(
            lambda folder: mmcv.VideoReader(video).cvt2frames(folder, show_progress=False)
        ),
    }


def open_opencv(video: str, numbers: list[int]) -> dict[str, Callable[[], Any]]:
    """OpenCV's own; its jumps are not frame-exact on every file."""
    import cv2

    def sequential() -> None:
        capture = cv2.VideoCapture(video)
        while capture.read()[0]:
            pass

    def jump() -> None:
        capture = cv2.VideoCapture(video)
        for number in numbers:
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            capture.read()

    return {"sequential": sequential, "random": jump}


def open_pyav(video: str, numbers: list[int]) -> dict[str, Callable[[], Any]]:
    """PyAV, with the usual code for a jump: seek back, decode up to the time stamp."""
    import av

    def sequential() -> None:
        with av.open(video) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="bgr24")

    def jump() -> None:
        with av.open(video) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number in numbers:
                pts = round(number / 25 / stream.time_base)
                container.seek(pts, stream=stream)
                for frame in container.decode(stream):
                    if frame.pts is not None and frame.pts >= pts:
                        frame.to_ndarray(format="bgr24")
                        break

    return {"sequential": sequential, "random": jump}


def open_decord(video: str, numbers: list[int]) -> dict[str, Callable[[], Any]]:
    """decord."""
    import decord

    return {
        "sequential": lambda: [frame.asnumpy().shape for frame in decord.VideoReader(video)],
        "random": lambda: random_read(decord.VideoReader(video), numbers, lambda frame: frame.asnumpy()),
    }


def open_torchcodec(video: str, numbers: list[int]) -> dict[str, Callable[[], Any]]:
    """torchcodec, frames as (H, W, 3)."""
    from torchcodec.decoders import VideoDecoder

    def decoder() -> Any:
        return VideoDecoder(video, dimension_order="NHWC", num_ffmpeg_threads=0)

    return {
        "sequential": lambda: [frame.numpy().shape for frame in decoder()],
        "random": lambda: random_read(decoder(), numbers, lambda frame: frame.numpy()),
    }


OPENERS: dict[str, Callable[[str, list[int]], dict[str, Callable[[], Any]]]] = {
    "cv": lambda video, numbers: open_cv(video, numbers, "av"),
    "cv without PyAV": lambda video, numbers: open_cv(video, numbers, "opencv"),
    "OpenCV": open_opencv,
    "mmcv": open_mmcv,
    "PyAV": open_pyav,
    "decord": open_decord,
    "torchcodec": open_torchcodec,
}


def random_read(reader: Any, numbers: list[int], convert: Callable[[Any], Any] = lambda frame: frame) -> None:
    """Frames one at a time, in no order."""
    for number in numbers:
        convert(reader[number])


def in_folder(write: Callable[[str], None]) -> None:
    """Call ``write`` with a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)


def warp(report: Any) -> None:
    """``flow_warp`` of one 1080p frame."""
    import numpy as np
    from harness import Call

    import cv.video

    try:
        import mmcv
    except ImportError:
        mmcv = None
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 3, (1080, 1920, 2)).astype(np.float32)
    for dtype in (np.uint8, np.float32):
        img = (rng.random((1080, 1920, 3)) * 255).astype(dtype)
        for mode in ("nearest", "bilinear"):
            calls: dict[str, Call] = {
                name: lambda module=module, img=img, mode=mode: module.flow_warp(
                    img, flow, interpolate_mode=mode
                )
                for name, module in (("cv", cv.video), ("mmcv", mmcv))
                if module is not None
            }
            report.compare(f"flow_warp, {mode}, 1080 x 1920 x 3 {np.dtype(dtype)}", calls, seconds=2)


if __name__ == "__main__":
    main()
