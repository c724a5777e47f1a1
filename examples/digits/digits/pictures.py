"""What the run leaves for the eye: a grid of detections, the curves of the training, the annotated video."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import cv.image
import cv.video
import cv.visualization
from cv.utils import ProgressBar

from .detector import Detections
from .scenes import CLASSES, DigitScenes, DigitSource, ink_colour, paste

Detect = Callable[[NDArray[np.uint8]], Detections]


def draw(
    image: NDArray[np.uint8], detections: Detections, scale: int = 2, score: float = 0.5
) -> NDArray[np.uint8]:
    """``image`` enlarged, with the boxes and labels of the detections above ``score``."""
    boxes = np.concatenate(detections)
    labels = np.repeat(np.arange(len(detections)), [len(found) for found in detections])
    boxes = boxes * np.array([scale] * 4 + [1], dtype=np.float32)
    image = cv.image.imrescale(image, float(scale), interpolation="bicubic")
    return cv.visualization.imshow_det_bboxes(
        image, boxes, labels, class_names=CLASSES, score_thr=score, bbox_color="green", text_color="white",
        font_scale=0.5, show=False,
    )  # fmt: skip


def grid(
    dataset: DigitScenes, results: list[Detections], path: Path, rows: int = 3, columns: int = 5
) -> None:
    """Write the first ``rows * columns`` scenes with their detections as one PNG."""
    tiles = [draw(dataset.scene(i)[0], results[i]) for i in range(rows * columns)]
    tiles = [cv.image.impad(tile, padding=3, pad_val=255) for tile in tiles]
    lines = [np.concatenate(tiles[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    cv.image.imwrite(np.concatenate(lines), path)


def curves(logs: list[Path], path: Path) -> None:
    """Plot loss and AP50 from the text logger's JSON lines, of a resumed training all of them."""
    records = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    # A training that was killed has logged some iterations twice: the last time counts.
    train = list({(r["epoch"], r["iter"]): r for r in records if r.get("mode") == "train"}.values())
    train.sort(key=lambda r: (r["epoch"], r["iter"]))
    evaluated = list({r["epoch"]: r for r in records if "AP50" in r}.values())
    per_epoch = max(r["iter"] for r in train)
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    left.plot(
        [r["epoch"] - 1 + r["iter"] / per_epoch for r in train], [r["loss"] for r in train], label="loss"
    )
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    left.set_ylim(bottom=0)
    right = left.twinx()
    right.plot(
        [r["epoch"] for r in evaluated], [r["AP50"] for r in evaluated], "o-", color="tab:green", label="AP50"
    )
    right.set_ylabel("AP50 in validation")
    right.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)


def moving_digits(path: Path, seconds: float, fps: int, size: tuple[int, int], digits: int) -> None:
    """Write a video of test digits that drift over a test photograph and bounce off the edges."""
    rng = np.random.default_rng(1)
    source = DigitSource("test")
    width, height = size
    background = source.background(rng, width, height)
    actors = [source.digit(rng) for _ in range(digits)]
    room = np.array([(width - a.ink.shape[1], height - a.ink.shape[0]) for a in actors], dtype=np.float64)
    starts, speeds = rng.uniform(0, room), rng.uniform(-60, 60, room.shape)
    colours = [ink_colour(rng, background) for _ in actors]

    def frame(time: float) -> NDArray[np.uint8]:
        image = background.copy()
        path_length = np.abs((starts + speeds * time) % (2 * room))
        places = np.where(path_length > room, 2 * room - path_length, path_length).astype(int)  # a bounce
        for actor, (x, y), colour in zip(actors, places, colours, strict=True):
            paste(image, actor, x, y, colour)
        return image

    write_video([frame(i / fps) for i in range(round(seconds * fps))], path, fps)


def annotate_video(source: Path, target: Path, detect: Detect) -> NDArray[np.uint8]:
    """Detect on every frame of a video, write the annotated copy and return its middle frame."""
    with cv.video.VideoReader(str(source)) as video:
        progress = ProgressBar(len(video))
        frames = []
        for frame in video:
            frames.append(draw(frame, detect(frame)))
            progress.update()
        print()
        write_video(frames, target, round(video.fps))
    return frames[len(frames) // 2]


def write_video(frames: list[NDArray[np.uint8]], path: Path, fps: int) -> None:
    """Write frames as an mp4 through numbered JPEGs, the form that ``frames2video`` reads."""
    folder = path.with_suffix("")
    for i, frame in enumerate(frames):
        cv.image.imwrite(frame, folder / f"{i:06d}.jpg")
    cv.video.frames2video(str(folder), str(path), fps=fps, fourcc="mp4v", show_progress=False)
