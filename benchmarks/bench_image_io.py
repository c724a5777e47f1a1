"""Reading images, and the pipeline that uses them: from a folder of JPEG files to normalised, padded arrays.

The pipeline: read, scale into (1333, 800), flip every second image, normalise to float32 RGB, pad to a
multiple of 32; with 1, 2 and 4 worker processes. Against the same on mmcv 1.3.15, on Pillow with PyTorch (no
torchvision), and on albumentations, where they are installed. Decoding: cv.image by each backend against the
bare library. Processor time, but for the pipeline.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from harness import Call, Report, arguments, caching_environment
from image_peers import compare, peer, photo

from cv import image

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SHAPES = ((480, 640), (427, 640), (640, 480), (1080, 1920), (333, 500), (720, 1280))
FILES = 48


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    report = Report("image-io", threads=1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder))
        decoding(report, paths)
        for workers in (1, 2, 4):
            report.add(f"pipeline, seconds an image, {workers} workers", throughput(paths, workers))
    report.add("import in a fresh process, over numpy and cv2", import_times())
    report.write(args.out)


def write_photos(folder: Path) -> list[Path]:
    paths = []
    for number in range(FILES):
        path = folder / f"{number}.jpg"
        image.imwrite(photo(*SHAPES[number % len(SHAPES)]), path, [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def decoding(report: Report, paths: list[Path]) -> None:
    """One file of 640 x 480 and one of 1920 x 1080, from disk."""
    from PIL import Image

    mmcv = peer("mmcv")
    for path, label in ((paths[0], "640 x 480"), (paths[3], "1920 x 1080")):
        for backend in ("cv2", "pillow", "turbojpeg"):
            try:
                with image.use_backend(backend):
                    pass
            except ImportError:
                continue
            calls: dict[str, Call] = {
                "cv": lambda backend=backend, path=path: image.imread(path, backend=backend)
            }
            if backend == "cv2":
                calls["bare"] = lambda path=path: cv2.imread(str(path))
            elif backend == "pillow":
                calls["bare"] = lambda path=path: np.asarray(Image.open(path).convert("RGB"))[
                    ..., ::-1
                ].copy()
            else:
                import turbojpeg

                decoder = turbojpeg.TurboJPEG()
                calls["bare"] = lambda path=path, decoder=decoder: decoder.decode(Path(path).read_bytes())
            if mmcv is not None:
                mmcv.use_backend(backend)  # it makes its decoder only then
                calls["mmcv"] = lambda backend=backend, path=path: mmcv.imread(str(path), backend=backend)
            compare(report, f"imread of a JPEG of {label}, {backend}", calls, 1)


def throughput(paths: list[Path], workers: int) -> dict[str, float]:
    """Seconds an image for each library: the median of rounds in which they take turns."""
    pipelines: dict[str, Callable[[tuple[int, str]], int]] = {"cv": with_cv}
    if peer("mmcv") is not None:
        pipelines["mmcv"] = with_mmcv
    if peer("albumentations") is not None:
        pipelines["albumentations"] = with_albumentations
    if peer("torch") is not None:
        pipelines["pillow and torch"] = with_pillow_and_torch
    jobs = [(number, str(path)) for number, path in enumerate(paths)]
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    pools = {
        name: ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) for name in pipelines
    }
    try:
        for name, pool in pools.items():  # imports and first calls
            list(pool.map(pipelines[name], jobs[: workers * 4]))
        for _ in range(3):
            for name, pool in pools.items():
                start = time.perf_counter()
                list(pool.map(pipelines[name], jobs, chunksize=4))
                times[name].append((time.perf_counter() - start) / len(jobs))
    finally:
        for pool in pools.values():
            pool.shutdown()
    return {name: statistics.median(samples) for name, samples in times.items()}


def one_thread() -> None:
    """A worker for each core is how data loaders are run."""
    cv2.setNumThreads(1)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def with_cv(job: tuple[int, str]) -> int:
    number, path = job
    img = image.imrescale(image.imread(path), (1333, 800))
    if number % 2:
        img = image.imflip(img)
    return image.impad_to_multiple(image.imnormalize(img, MEAN, STD), 32).size


def with_mmcv(job: tuple[int, str]) -> int:
    import mmcv

    number, path = job
    img = mmcv.imrescale(mmcv.imread(path), (1333, 800))
    if number % 2:
        img = mmcv.imflip(img)
    return mmcv.impad_to_multiple(mmcv.imnormalize(img, MEAN, STD), 32).size


def with_albumentations(job: tuple[int, str]) -> int:
    import albumentations

    number, path = job
    img = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    width, height = image.rescale_size((img.shape[1], img.shape[0]), (1333, 800))
    steps = albumentations.Compose(
        [
            albumentations.Resize(height, width),
            albumentations.HorizontalFlip(p=float(number % 2)),
            albumentations.Normalize(mean=tuple(MEAN / 255), std=tuple(STD / 255)),
            albumentations.PadIfNeeded(
                None, None, pad_height_divisor=32, pad_width_divisor=32, position="top_left"
            ),
        ]
    )
    return steps(image=img)["image"].size


def with_pillow_and_torch(job: tuple[int, str]) -> int:
    import torch
    from PIL import Image, ImageOps

    number, path = job
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture = picture.resize(image.rescale_size(picture.size, (1333, 800)), Image.Resampling.BILINEAR)
    tensor = torch.from_numpy(np.array(picture)).float()
    if number % 2:
        tensor = tensor.flip(1)
    tensor.sub_(torch.from_numpy(MEAN).float()).div_(torch.from_numpy(STD).float())
    height, width = tensor.shape[:2]
    return torch.nn.functional.pad(tensor, (0, 0, 0, -width % 32, 0, -height % 32)).numel()


def import_times() -> dict[str, float]:
    """Median seconds of processor time that the import takes after ``import numpy, cv2``.

    With compiled modules, as pip leaves them; the first run, which may have to compile, does not count.
    """
    statements = {"cv": "import cv.image"}
    if peer("mmcv") is not None:
        statements["mmcv"] = "import mmcv"
    if peer("albumentations") is not None:
        statements["albumentations"] = "import albumentations"
    code = "import numpy, cv2, time; start = time.process_time(); {}; print(time.process_time() - start)"
    samples: dict[str, list[float]] = {name: [] for name in statements}
    with tempfile.TemporaryDirectory() as folder:
        environment = caching_environment(folder)
        for _ in range(6):
            for name, statement in statements.items():
                command = [sys.executable, "-c", code.format(statement)]
                run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                samples[name].append(float(run.stdout.split()[-1]))
    return {name: statistics.median(times[1:]) for name, times in samples.items()}


if __name__ == "__main__":
    main()
