"""cv.image's resizing and geometric functions, uint8.

Peers: mmcv 1.3.15 in its light form, the bare OpenCV call where one does the same, Pillow, albumentations,
kornia-rs and scikit-image; those that are installed. mmcv's `imflip` returns a view; it is copied here, as
every consumer of a view with negative strides has to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from harness import Call, Report, arguments
from image_peers import compare, peer, runs

from cv import image


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    report = Report("image-geometric", threads=args.threads)
    for label, threads, img in runs(args.threads):
        for name, calls in cases(img).items():
            compare(report, f"{name}, {label}", calls, threads)
    report.write(args.out)


def cases(img: np.ndarray) -> dict[str, dict[str, Call]]:
    """Name of a case to what is timed for it, ours first."""
    height, width = img.shape[:2]
    half, fit = (width // 2, height // 2), (width * 2 // 3, height * 2 // 3)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -30, 1)
    shear = np.array([[1, 0.2, 0], [0, 1, 0]])
    boxes = np.array([[10, 10, width // 2, height // 2], [width // 3, height // 4, width + 50, height + 40]])
    size = (width, height)
    table: dict[str, tuple[Callable[[Any], object], Call | None]] = {
        "imresize": (lambda lib: lib.imresize(img, fit), lambda: cv2.resize(img, fit)),
        "imresize area": (
            lambda lib: lib.imresize(img, half, interpolation="area"),
            lambda: cv2.resize(img, half, interpolation=cv2.INTER_AREA),
        ),
        "imresize nearest": (
            lambda lib: lib.imresize(img, fit, interpolation="nearest"),
            lambda: cv2.resize(img, fit, interpolation=cv2.INTER_NEAREST),
        ),
        "imrescale": (lambda lib: lib.imrescale(img, (1333, 800)), None),
        "imflip": (lambda lib: np.ascontiguousarray(lib.imflip(img)), lambda: cv2.flip(img, 1)),
        "imrotate 30": (lambda lib: lib.imrotate(img, 30), lambda: cv2.warpAffine(img, turn, size)),
        "imrotate 90": (
            lambda lib: lib.imrotate(img, 90, auto_bound=True),
            lambda: cv2.rotate(img, cv2.ROTATE_90_CLOCKWISE),
        ),
        "imshear": (lambda lib: lib.imshear(img, 0.2), lambda: cv2.warpAffine(img, shear, size)),
        "imtranslate": (lambda lib: lib.imtranslate(img, 20), None),
        "impad": (
            lambda lib: lib.impad(img, shape=(height + 8, width + 24), pad_val=0),
            lambda: cv2.copyMakeBorder(img, 0, 8, 0, 24, cv2.BORDER_CONSTANT, value=(0, 0, 0)),
        ),
        "impad_to_multiple": (lambda lib: lib.impad_to_multiple(img, 32), None),
        "imcrop": (lambda lib: lib.imcrop(img, boxes), None),
        "imcrop with padding": (lambda lib: lib.imcrop(img, boxes, pad_fill=114), None),
        "cutout": (lambda lib: lib.cutout(img, (height // 4, width // 4), 0), None),
    }
    mmcv = peer("mmcv")
    found: dict[str, dict[str, Call]] = {}
    for name, (function, bare) in table.items():
        calls: dict[str, Call] = {"cv": lambda function=function: function(image)}
        if bare is not None:
            calls["bare"] = bare
        if mmcv is not None:
            calls["mmcv"] = lambda function=function: function(mmcv)
        calls.update(others(name, img, fit, half))
        if name in ("imflip", "imtranslate", "cutout"):
            calls["floor"] = img.copy
        found[name] = calls
    return found


def others(name: str, img: np.ndarray, fit: tuple[int, int], half: tuple[int, int]) -> dict[str, Call]:
    """The same in other libraries; arguments as each of them takes them."""
    from PIL import Image

    picture = Image.fromarray(img)
    same: dict[str, dict[str, Call]] = {
        "imresize": {"pillow": lambda: picture.resize(fit, Image.Resampling.BILINEAR)},
        "imresize area": {"pillow": lambda: picture.resize(half, Image.Resampling.BOX)},
        "imresize nearest": {"pillow": lambda: picture.resize(fit, Image.Resampling.NEAREST)},
        "imflip": {"pillow": lambda: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)},
        "imrotate 30": {"pillow": lambda: picture.rotate(-30, Image.Resampling.BILINEAR)},
        "imrotate 90": {"pillow": lambda: picture.transpose(Image.Transpose.ROTATE_270)},
    }
    found = same.get(name, {})
    process = peer("kornia_rs.imgproc")
    if process is not None:
        size = {"imresize": fit, "imresize nearest": fit}.get(name)
        mode = "nearest" if "nearest" in name else "bilinear"
        if size is not None:
            found["kornia-rs"] = lambda: process.resize(img, size[::-1], mode, False)
        elif name == "imflip":
            found["kornia-rs"] = lambda: process.horizontal_flip(img)
    transform = peer("skimage.transform")
    if transform is not None and name == "imresize":
        found["skimage"] = lambda: transform.resize(img, fit[::-1], order=1, preserve_range=True)
    albumentations = peer("albumentations")
    if albumentations is not None:
        from albumentations.augmentations.geometric import functional

        if name == "imresize":
            found["albumentations"] = lambda: functional.resize(img, fit[::-1], cv2.INTER_LINEAR)
        elif name == "imflip":
            found["albumentations"] = lambda: functional.hflip_cv2(img)
    return {key: call for key, call in found.items() if works(call)}


def works(call: Call) -> bool:
    """Whether the peer takes such an image."""
    try:
        call()
    except Exception:  # each peer has exceptions of its own
        return False
    return True


if __name__ == "__main__":
    main()
