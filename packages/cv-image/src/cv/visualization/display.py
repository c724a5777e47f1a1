"""Showing an image: in a notebook, in a window, or with the system's viewer."""

from __future__ import annotations

import os
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv.image import imread


class NoDisplayError(RuntimeError):
    """There is nothing that could show an image."""


def imshow(img: npt.NDArray[Any] | str | os.PathLike[str], win_name: str = "", wait_time: int = 0) -> None:
    """Show an image.

    In a notebook it appears below the cell. Elsewhere a window of OpenCV is used if the installed build has
    windows (``opencv-python``; the headless build that this package depends on has none), otherwise the
    system's viewer where there is a display.

    Args:
        img: Path of an image, or (H, W), (H, W, 1), (H, W, 3) BGR, (H, W, 4) BGRA.
        win_name: Title of the window.
        wait_time: Milliseconds to wait for a key; 0 waits until a key is pressed or the window is closed. Of
            effect with a window of OpenCV only.

    Raises:
        NoDisplayError: If there is neither a notebook nor a display.
    """
    array = imread(img)
    if _in_notebook():
        _show_inline(array)
    elif not _has_screen():
        raise NoDisplayError(_advice("there is no display"))
    elif _cv2_has_windows():
        _show_window(array, win_name, wait_time)
    else:
        _show_with_viewer(array, win_name)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel; IPython is there if so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def _show_inline(img: npt.NDArray[Any]) -> None:
    from IPython.display import Image, display

    written, png = cv2.imencode(".png", img)
    if not written:
        raise ValueError(f"img of shape {img.shape} and dtype {img.dtype} cannot be shown")
    display(Image(data=png.tobytes()))


def _has_screen() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _cv2_has_windows() -> bool:
    for line in cv2.getBuildInformation().splitlines():
        name, _, value = line.strip().partition(":")
        if name == "GUI":
            return value.strip() not in ("", "NONE")
    return False


def _show_window(img: npt.NDArray[Any], win_name: str, wait_time: int) -> None:
    cv2.imshow(win_name, img)
    if wait_time > 0:
        cv2.waitKey(wait_time)
        return
    while cv2.waitKey(50) == -1:
        if cv2.getWindowProperty(win_name, cv2.WND_PROP_VISIBLE) < 1:  # closed with the mouse
            return


def _show_with_viewer(img: npt.NDArray[Any], title: str) -> None:
    from PIL import Image, ImageShow

    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    squeezed = img[..., 0] if img.ndim == 3 and img.shape[2] == 1 else img
    pixels = squeezed[..., order[squeezed.shape[2]]] if squeezed.ndim == 3 else squeezed
    if not ImageShow.show(Image.fromarray(np.ascontiguousarray(pixels)), title or None):
        raise NoDisplayError(_advice("no image viewer was found"))


def _advice(reason: str) -> str:
    return f"cannot show the image: {reason}; pass out_file to a drawing function, or use cv.image.imwrite"
