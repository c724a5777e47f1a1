"""cv.image's photometric and colour functions and cv.arraymisc, uint8.

The floor of a row is the time of what the function cannot do without: one pass over the memory (a copy), or
the calls of OpenCV that its values take.

Peers: mmcv 1.3.15 in its light form, the bare OpenCV or NumPy call where one does the same, Pillow,
albumentations, kornia-rs and scikit-image; those that are installed. Each of them gets an image of its own
kind beforehand.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from harness import Call, Report, arguments
from image_peers import compare, peer, runs

from cv import arraymisc, image

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
EIGVAL = np.array([55.4625, 4.7940, 1.1475])
EIGVEC = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def main() -> None:
    """Run all cases and write the report."""
    args = arguments(__doc__)
    report = Report("image-photometric", threads=args.threads)
    for label, threads, img in runs(args.threads):
        for name, calls in cases(img).items():
            compare(report, f"{name}, {label}", calls, threads)
    report.write(args.out)


def cases(img: np.ndarray) -> dict[str, dict[str, Call]]:
    """Name of a function to what is timed for it, ours first."""
    lut = np.arange(256, dtype=np.uint8)[::-1].copy()
    normalized = image.imnormalize(img, MEAN, STD)
    found: dict[str, dict[str, Call]] = {
        "iminvert": {"cv": lambda: image.iminvert(img), "bare": lambda: cv2.bitwise_not(img)},
        "posterize": {
            "cv": lambda: image.posterize(img, 4),
            "bare": lambda: np.bitwise_and(img, np.uint8(0xF0)),
        },
        "solarize": {"cv": lambda: image.solarize(img, 100), "bare": lambda: cv2.LUT(img, lut)},
        "adjust_brightness": {"cv": lambda: image.adjust_brightness(img, 1.3)},
        "adjust_brightness by 1.37": {"cv": lambda: image.adjust_brightness(img, 1.37)},
        "adjust_contrast": {"cv": lambda: image.adjust_contrast(img, 1.3)},
        "adjust_color": {"cv": lambda: image.adjust_color(img, 1.3)},
        "adjust_sharpness": {"cv": lambda: image.adjust_sharpness(img, 1.5)},
        "adjust_hue": {"cv": lambda: image.adjust_hue(img, 0.2)},
        "adjust_lighting": {"cv": lambda: image.adjust_lighting(img, EIGVAL, EIGVEC)},
        "imequalize": {"cv": lambda: image.imequalize(img)},
        "auto_contrast": {"cv": lambda: image.auto_contrast(img, 1)},
        "lut_transform": {"cv": lambda: image.lut_transform(img, lut), "bare": lambda: cv2.LUT(img, lut)},
        "clahe": {
            "cv": lambda: image.clahe(img[..., 0]),
            "bare": lambda: cv2.createCLAHE(40.0, (8, 8)).apply(np.ascontiguousarray(img[..., 0])),
        },
        "imnormalize": {"cv": lambda: image.imnormalize(img, MEAN, STD)},
        "imnormalize of float32": {"cv": lambda: image.imnormalize(normalized, MEAN, STD)},
        "imdenormalize": {"cv": lambda: image.imdenormalize(normalized, MEAN, STD)},
        "bgr2gray": {
            "cv": lambda: image.bgr2gray(img),
            "bare": lambda: cv2.cvtColor(img, cv2.COLOR_BGR2GRAY),
        },
        "bgr2rgb": {"cv": lambda: image.bgr2rgb(img), "bare": lambda: cv2.cvtColor(img, cv2.COLOR_BGR2RGB)},
        "bgr2hsv": {"cv": lambda: image.bgr2hsv(img), "bare": lambda: cv2.cvtColor(img, cv2.COLOR_BGR2HSV)},
        "rgb2ycbcr": {"cv": lambda: image.rgb2ycbcr(img)},
        "ycbcr2rgb": {"cv": lambda: image.ycbcr2rgb(img)},
        "quantize of float32": {"cv": lambda: arraymisc.quantize(normalized, -2, 2, 255, np.uint8)},
    }
    for name, calls in found.items():
        function = name.partition(" ")[0]
        given = normalized if "float32" in name or name == "imdenormalize" else img
        for add in (add_mmcv, add_pillow, add_albumentations, add_kornia_rs, add_skimage):
            add(function, calls, given, 1.37 if "1.37" in name else 1.3)
        add_floor(function, calls, given)
    return found


def add_floor(name: str, calls: dict[str, Call], img: np.ndarray) -> None:
    """What the function cannot do without."""
    lut = np.arange(256, dtype=np.uint8)[::-1].copy()
    luts = np.dstack([lut, lut, lut]).reshape(256, 1, 3)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13

    def grey_and_sum() -> None:
        cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
        cv2.addWeighted(img, 1.3, img, -0.3, 0)

    def filter_and_sum() -> None:
        smooth = cv2.filter2D(img, -1, kernel)
        cv2.addWeighted(img, 1.5, smooth, -0.5, 0, dst=smooth)

    def histograms_and_tables() -> None:
        for channel in range(3):
            cv2.calcHist([img], [channel], None, [256], [0, 256])
        cv2.LUT(img, luts)

    def scaled_and_cut() -> None:
        np.subtract(img, np.float32(2))
        img.astype(np.uint8)

    floors: dict[str, Call] = {
        **dict.fromkeys(("iminvert", "posterize", "solarize", "bgr2rgb"), img.copy),
        "adjust_brightness": lambda: cv2.convertScaleAbs(img, alpha=1.3),
        **dict.fromkeys(("imequalize", "auto_contrast"), histograms_and_tables),
        "adjust_color": grey_and_sum,
        "adjust_sharpness": filter_and_sum,
        "quantize": scaled_and_cut,
    }
    if name in floors:
        calls["floor"] = floors[name]


def add_mmcv(name: str, calls: dict[str, Call], img: np.ndarray, factor: float) -> None:
    """mmcv has the same names."""
    mmcv = peer("mmcv")
    if not hasattr(mmcv, name):
        return
    function: Any = getattr(mmcv, name)
    extra: dict[str, tuple[Any, ...]] = {
        "posterize": (4,),
        "solarize": (100,),
        "adjust_brightness": (factor,),
        "adjust_contrast": (1.3,),
        "adjust_color": (1.3,),
        "adjust_sharpness": (1.5,),
        "adjust_lighting": (EIGVAL, EIGVEC),
        "auto_contrast": (1,),
        "lut_transform": (np.arange(256, dtype=np.uint8)[::-1].copy(),),
        "imnormalize": (MEAN, STD),
        "imdenormalize": (MEAN, STD),
        "quantize": (-2, 2, 255, np.uint8),
    }
    given = img[..., 0] if name == "clahe" else img
    calls["mmcv"] = lambda: function(given, *extra.get(name, ()))


def add_pillow(name: str, calls: dict[str, Call], img: np.ndarray, factor: float) -> None:
    """ImageOps and ImageEnhance."""
    from PIL import Image, ImageEnhance, ImageOps

    if img.dtype != np.uint8:
        return
    picture = Image.fromarray(img)
    same: dict[str, Call] = {
        "iminvert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, 4),
        "solarize": lambda: ImageOps.solarize(picture, 100),
        "adjust_brightness": lambda: ImageEnhance.Brightness(picture).enhance(factor),
        "adjust_contrast": lambda: ImageEnhance.Contrast(picture).enhance(1.3),
        "adjust_color": lambda: ImageEnhance.Color(picture).enhance(1.3),
        "adjust_sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(1.5),
        "imequalize": lambda: ImageOps.equalize(picture),
        "auto_contrast": lambda: ImageOps.autocontrast(picture, 1),
        "bgr2gray": lambda: picture.convert("L"),
    }
    if name in same:
        calls["pillow"] = same[name]
    from_arrays: dict[str, Call] = {
        "imequalize": lambda: np.asarray(ImageOps.equalize(Image.fromarray(img))),
        "auto_contrast": lambda: np.asarray(ImageOps.autocontrast(Image.fromarray(img), 1)),
    }
    if name in from_arrays:
        calls["pillow from arrays"] = from_arrays[name]


def add_albumentations(name: str, calls: dict[str, Call], img: np.ndarray, factor: float) -> None:
    """Its functional forms."""
    albumentations = peer("albumentations")
    if albumentations is None or img.dtype != np.uint8:
        return
    import albucore
    from albumentations.augmentations.pixel import functional

    mean, scale = MEAN.astype(np.float32), (1 / STD).astype(np.float32)
    same: dict[str, Call] = {
        "iminvert": lambda: functional.invert(img),
        "posterize": lambda: functional.posterize(img, 4),
        "solarize": lambda: functional.solarize(img, 100 / 255),
        "adjust_brightness": lambda: albucore.multiply(img, factor),
        "adjust_contrast": lambda: functional.adjust_contrast_torchvision(img, 1.3),
        "adjust_color": lambda: functional.adjust_saturation_torchvision(img, 1.3),
        "adjust_hue": lambda: functional.adjust_hue_torchvision(img, 0.2),
        "imequalize": lambda: functional.equalize(img, mode="pil"),
        "auto_contrast": lambda: functional.auto_contrast(img, 1, None, "pil"),
        "clahe": lambda: functional.clahe(np.ascontiguousarray(img[..., 0]), 40.0, (8, 8)),
        "imnormalize": lambda: albucore.normalize(img, mean, 1 / scale),
        "bgr2gray": lambda: functional.to_gray_weighted_average(img),
    }
    if name in same:
        calls["albumentations"] = same[name]


def add_kornia_rs(name: str, calls: dict[str, Call], img: np.ndarray, _: float) -> None:
    """kornia-rs, where it takes such images."""
    kornia_rs = peer("kornia_rs")
    if kornia_rs is None or img.dtype != np.uint8:
        return
    process = peer("kornia_rs.imgproc")
    same: dict[str, Call] = {
        "bgr2gray": lambda: process.gray_from_rgb(img),
        "bgr2rgb": lambda: process.bgr_from_rgb(img),
        "bgr2hsv": lambda: process.hsv_from_rgb(img),
        "rgb2ycbcr": lambda: process.ycbcr_from_rgb(img),
        "ycbcr2rgb": lambda: process.rgb_from_ycbcr(img),
        "imnormalize": lambda: process.normalize_mean_std(img, MEAN.tolist(), STD.tolist()),
        "clahe": lambda: process.clahe(np.ascontiguousarray(img[..., :1])),
    }
    if name in same:
        try:
            same[name]()
        except (TypeError, ValueError, RuntimeError):
            return  # not for uint8, or under another signature
        calls["kornia-rs"] = same[name]


def add_skimage(name: str, calls: dict[str, Call], img: np.ndarray, _: float) -> None:
    """scikit-image."""
    color, exposure, util = peer("skimage.color"), peer("skimage.exposure"), peer("skimage.util")
    if color is None or img.dtype != np.uint8 or img.size > 10**6:
        return  # at 1080p it takes half a second or more
    same: dict[str, Call] = {
        "iminvert": lambda: util.invert(img),
        "bgr2gray": lambda: color.rgb2gray(img),
        "bgr2hsv": lambda: color.rgb2hsv(img),
        "rgb2ycbcr": lambda: color.rgb2ycbcr(img),
        "imequalize": lambda: exposure.equalize_hist(img),
        "clahe": lambda: exposure.equalize_adapthist(img[..., 0]),
    }
    if name in same:
        calls["skimage"] = same[name]


if __name__ == "__main__":
    main()
