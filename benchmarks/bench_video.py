"""cv.video against mmcv 1.3.15, PyAV, decord, torchcodec and OpenCV's bare VideoCapture.

Videos are made with ffmpeg: 720p and 1080p H.264 with two B-frames, a key frame each 12 or 250 frames, 10 s
at 25 frames a second. All give BGR or RGB uint8 arrays. Each case is run in a process of its own, so that
its peak of memory is known too; the processes take turns and the median of the rounds counts. A peer that
cannot be imported is left out. mmcv 1.3.15, decord and torchcodec want environments of their own: name their
Python with ``--mmcv-python``, ``--decord-python`` and ``--torchcodec-python`` or in ``CV_BENCH_MMCV_PYTHON``
and so on.

Floors: for ``cvt2frames``, two threads with half of the frames each, that decode with one thread, call
``cv2.imwrite``, and need not wait for each other; no order, no file that is there whole or not at all. For
``flow_warp`` the bare calls: adding the flow to the grid and ``cv2.remap``, for bilinear four of them.

Rounds after the first are left out when the run would take longer than about ``--budget`` seconds. A reader
that takes longer than ``--limit`` seconds for its jumps is stopped; its time is then that of the jumps it
made, scaled to all of them.

The last case reads 100,000 frames of a tiny video, in order and out of order, and tells how the memory of
the process grew after the first 5,000.

Run one case by hand: ``python bench_video.py --case sequential --reader cv --video FILE``.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

FRAMES = 250
READERS = ("cv", "cv without PyAV", "OpenCV", "mmcv", "PyAV", "decord", "torchcodec")
CONVERTERS = ("cv", "cv without PyAV", "mmcv", "floor")
SIZES = {"720p": "1280x720", "1080p": "1920x1080"}
ELSEWHERE = ("mmcv", "decord", "torchcodec")
PACKAGES = {
    "PyAV": "av",
    "OpenCV": "opencv-python-headless",
}  # of other names
WARPS = [f"flow_warp {mode} {dtype}" for dtype in ("uint8", "float32") for mode in ("nearest", "bilinear")]
MANY_READS = 100_000
MOST_GROWTH_MIB = 4.0


def main() -> None:
    """Run all cases and write the report, or one case in this process."""
    if "--case" in sys.argv:
        print(json.dumps(run_case()))
        return
    from harness import Report, arguments

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--rounds", type=int, default=3)
    own.add_argument("--jumps", type=int, default=100)
    own.add_argument("--limit", type=float, default=6.0)
    own.add_argument("--budget", type=float, default=200.0)
    for peer in ELSEWHERE:
        default = os.environ.get(f"CV_BENCH_{peer.upper()}_PYTHON", sys.executable)
        own.add_argument(f"--{peer}-python", default=default)
    options, rest = own.parse_known_args()
    args = arguments(__doc__, rest)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    report = Report("video", threads=args.threads)
    memory: dict[str, dict[str, float]] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        cases = list_cases(Path(folder), options.jumps)
        for done, (title, case, readers, make) in enumerate(cases):
            late = start + options.budget * (done + 1) / len(cases)
            seconds, peaks = compare(case, readers, make(), options, late, versions)
            if seconds:
                floor = seconds.pop("floor", None)
                peaks.pop("floor", None)
                report.add(title, seconds, floor=floor)
                print(
                    "    peak memory, MiB: " + ", ".join(f"{k} {v:.0f}" for k, v in peaks.items()), flush=True
                )
                memory[title] = peaks
        growth = read_many(Path(folder))
    path = report.write(args.out)
    result = json.loads(path.read_text())
    result.update(peers=versions, peak_memory_mib=memory, memory_of_many_reads=growth, rounds=options.rounds)
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in growth.items():
        assert row["growth_mib"] <= MOST_GROWTH_MIB, f"{name}: memory grew by {row['growth_mib']} MiB"


Case = tuple[str, str, tuple[str, ...], Callable[[], Path]]


def list_cases(folder: Path, jumps: int) -> list[Case]:
    """Title, case, readers, and what makes the video."""
    cases: list[Case] = []
    for name, size in SIZES.items():
        for group in (12, 250):

            def make(
                path: Path = folder / f"{name}-{group}.mp4", size: str = size, group: int = group
            ) -> Path:
                return path if path.exists() else make_video(path, size, group)

            tail = f"{name}, GOP {group}"
            cases.append((f"sequential, {tail}", "sequential", READERS, make))
            cases.append((f"{jumps} jumps, {tail}", "random", READERS, make))
            if group == 12:
                cases.append((f"cvt2frames, {tail}", "cvt2frames", CONVERTERS, make))
    cases += [(f"{warp}, 1080 x 1920 x 3", warp, ("cv", "mmcv", "floor"), lambda: folder) for warp in WARPS]
    return cases


def make_video(path: Path, size: str, group: int) -> Path:
    """A moving test picture with noise, so that it does not compress to nothing."""
    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg is not None, "this benchmark needs the ffmpeg program"
    source = f"testsrc2=size={size}:rate=25,noise=alls=6:allf=t"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(FRAMES)]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-bf", "2"]
    command += ["-g", str(group), "-sc_threshold", "0"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path


def compare(
    case: str,
    readers: tuple[str, ...],
    video: Path,
    options: argparse.Namespace,
    late: float,
    versions: dict[str, str],
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and greatest peak of memory, in MiB, of each reader that can do the case."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    missing: set[str] = set()
    for turn in range(options.rounds):
        if turn and time.monotonic() > late:
            break
        for reader in readers:
            if reader in missing:
                continue
            python = getattr(options, f"{reader}_python") if reader in ELSEWHERE else sys.executable
            command = [python, "-W", "ignore", __file__, "--case", case, "--reader", reader]
            command += ["--jumps", str(options.jumps), "--limit", str(options.limit), "--video", str(video)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                assert reader != "cv", done.stderr
                missing.add(reader)
                continue
            got = json.loads(done.stdout.splitlines()[-1])
            seconds.setdefault(reader, []).append(got["seconds"])
            if got["version"]:
                versions[reader] = got["version"]
            peaks[reader] = max(peaks.get(reader, 0), got["peak_mib"])
    return {reader: statistics.median(times) for reader, times in seconds.items()}, peaks


def run_case() -> dict[str, Any]:
    """One case in this process: seconds, the peak of its memory in MiB, and the reader's version."""
    parser = argparse.ArgumentParser()
    for name in ("--case", "--reader", "--video"):
        parser.add_argument(name, required=True)
    parser.add_argument("--jumps", type=int, default=100)
    parser.add_argument("--limit", type=float, default=6.0)
    args = parser.parse_args()
    if args.case.startswith("flow_warp"):
        seconds = warp(args.reader, *args.case.split()[1:])
    elif args.case == "many reads":
        return many_reads(args.video, args.reader)
    else:
        numbers = Numbers(args.jumps, args.limit)
        prepare: Callable[[str, Numbers], dict[str, Callable[[], Any]]] = OPENERS[args.reader]
        calls = prepare(args.video, numbers)
        start = time.perf_counter()
        calls[args.case]()
        seconds = time.perf_counter() - start
        if args.case == "random":
            seconds *= args.jumps / numbers.made
    try:
        version = metadata.version(PACKAGES.get(args.reader, args.reader))
    except metadata.PackageNotFoundError:
        version = ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak, "version": version}


class Numbers:
    """Numbers of frames to jump to, the same for all readers, until the time is up."""

    def __init__(self, jumps: int, limit: float) -> None:
        self.numbers = random.Random(0).choices(range(FRAMES), k=jumps)
        self.limit = limit
        self.made = 0

    def __iter__(self) -> Iterator[int]:
        start = time.perf_counter()
        for number in self.numbers:
            if time.perf_counter() - start > self.limit:
                return
            yield number
            self.made += 1


def read_many(folder: Path) -> dict[str, dict[str, float]]:
    """Growth of memory over many reads, with both decoders."""
    video = make_video(folder / "tiny.mp4", "128x96", 12)
    growth = {}
    for reader in ("cv", "cv without PyAV"):
        command = [sys.executable, "-W", "ignore", __file__, "--case", "many reads", "--reader", reader]
        done = subprocess.run([*command, "--video", str(video)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            growth[reader] = json.loads(done.stdout.splitlines()[-1])
            row = growth[reader]
            print(
                f"video: {row['reads']:.0f} reads, {reader}: {row['seconds']:.1f} s, resident "
                f"{row['early_mib']:.1f} MiB after 5,000, {row['late_mib']:.1f} MiB at the end"
            )
    return growth


def many_reads(video: str, reader: str) -> dict[str, float]:
    """100,000 frames in runs of twenty, each from anywhere in the video."""
    import cv.video

    if reader == "cv":
        import av  # noqa: F401
    rng = random.Random(0)
    start, early = time.perf_counter(), 0.0
    with cv.video.VideoReader(video, backend="av" if reader == "cv" else "opencv") as frames:
        reads = 0
        while reads < MANY_READS:
            frames[rng.randrange(FRAMES - 20)]
            for _ in range(19):
                assert frames.read() is not None
            reads += 20
            if reads == 5000:
                early = resident_mib()
    late = resident_mib()
    return {
        "reads": reads,
        "seconds": time.perf_counter() - start,
        "early_mib": early,
        "late_mib": late,
        "growth_mib": late - early,
    }


def resident_mib() -> float:
    """Memory of this process that is in use now (at its peak, where the system does not tell)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def open_cv(video: str, numbers: Numbers, backend: str = "auto") -> dict[str, Callable[[], Any]]:
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


def open_mmcv(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
    """mmcv 1.3.15."""
    import mmcv

    return {
        "sequential": lambda: [frame.shape for frame in mmcv.VideoReader(video)],
        "random": lambda: random_read(mmcv.VideoReader(video), numbers),
        "cvt2frames": lambda: in_folder(
            lambda folder: mmcv.VideoReader(video).cvt2frames(folder, show_progress=False)
        ),
    }


def open_opencv(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
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


def open_pyav(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
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


def open_decord(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
    """decord."""
    import decord

    return {
        "sequential": lambda: [frame.asnumpy().shape for frame in decord.VideoReader(video)],
        "random": lambda: random_read(decord.VideoReader(video), numbers, lambda frame: frame.asnumpy()),
    }


def open_torchcodec(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
    """torchcodec, frames as (H, W, 3)."""
    from torchcodec.decoders import VideoDecoder

    def decoder() -> Any:
        return VideoDecoder(video, dimension_order="NHWC", num_ffmpeg_threads=0)

    return {
        "sequential": lambda: [frame.numpy().shape for frame in decoder()],
        "random": lambda: random_read(decoder(), numbers, lambda frame: frame.numpy()),
    }


def open_floor(video: str, numbers: Numbers) -> dict[str, Callable[[], Any]]:
    """Nobody's reader: what decoding and writing the frames costs, without anything that must wait."""
    import cv2

    half = FRAMES // 2

    def convert(folder: str, first: int) -> None:
        capture = cv2.VideoCapture(video, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if first:
            capture.set(cv2.CAP_PROP_POS_FRAMES, first)
        for number in range(first, first + half):
            ok, frame = capture.read()
            assert ok
            cv2.imwrite(f"{folder}/{number:06d}.jpg", frame)

    def both(folder: str) -> None:
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(convert, (folder, folder), (0, half)):
                pass

    return {"cvt2frames": lambda: in_folder(both)}


OPENERS: dict[str, Callable[[str, Numbers], dict[str, Callable[[], Any]]]] = {
    "cv": lambda video, numbers: open_cv(video, numbers, "av"),
    "cv without PyAV": lambda video, numbers: open_cv(video, numbers, "opencv"),
    "OpenCV": open_opencv,
    "mmcv": open_mmcv,
    "PyAV": open_pyav,
    "decord": open_decord,
    "torchcodec": open_torchcodec,
    "floor": open_floor,
}


def random_read(reader: Any, numbers: Numbers, convert: Callable[[Any], Any] = lambda frame: frame) -> None:
    """Frames one at a time, in no order."""
    for number in numbers:
        convert(reader[number])


def in_folder(write: Callable[[str], None]) -> None:
    """Call ``write`` with a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)


def warp(reader: str, mode: str, dtype: str) -> float:
    """Least seconds of ``flow_warp`` of one 1080p frame: the machine's own noise only adds."""
    import numpy as np

    if reader == "cv":
        from cv.video import flow_warp
    elif reader == "floor":
        flow_warp = bare_warp
    else:
        from mmcv import flow_warp
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 3, (1080, 1920, 2)).astype(np.float32)
    img = (rng.random((1080, 1920, 3)) * 255).astype(dtype)
    times: list[float] = []
    flow_warp(img, flow, interpolate_mode=mode)
    while len(times) < 5 or (sum(times) < 1 and len(times) < 20):
        start = time.perf_counter()
        flow_warp(img, flow, interpolate_mode=mode)
        times.append(time.perf_counter() - start)
    return min(times)


def bare_warp(img: Any, flow: Any, interpolate_mode: str) -> None:
    """The calls of OpenCV without which no warp at whole places is made: the result is not complete."""
    import cv2
    import numpy as np

    out = np.empty_like(img)
    places = cv2.add(flow, grid(*flow.shape[:2]), dtype=cv2.CV_16S)
    for _ in range(1 if interpolate_mode == "nearest" else 4):
        cv2.remap(img, places, None, cv2.INTER_NEAREST, out)


@functools.cache
def grid(height: int, width: int) -> Any:
    """Column and row of each pixel."""
    import numpy as np

    rows, columns = np.mgrid[:height, :width]
    return np.dstack([columns, rows]).astype(np.float32)


if __name__ == "__main__":
    main()
