"""Reading and writing image files.

Images are (H, W, 3) or (H, W) arrays, BGR unless asked otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, get_args

import cv2
import numpy as np
import numpy.typing as npt

from cv.image._arrays import check_image, for_cv2
from cv.image._files import write_atomic
from cv.image.codecs import Backend, ChannelOrder, Flag, codec
from cv.image.errors import ImageDecodeError

supported_backends: list[str] = list(get_args(Backend))

# Pillow's own limit for an error: an RGB image of 0.5 GiB.
_MAX_PIXELS = 178_956_970

_WRITABLE = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64)

_backend: ContextVar[Backend] = ContextVar("cv_image_backend", default="cv2")


class BytesSource(Protocol):
    """Storage that images are read from, such as a `cv.fileio.FileClient`."""

    def get(self, filepath: str) -> bytes | memoryview:
        """The whole content of a file."""


def use_backend(backend: str) -> AbstractContextManager[None]:
    """Select the library that decodes images in this context.

    The choice holds for the current thread or asyncio task and what it calls; other threads and tasks keep
    theirs (a new thread starts with "cv2"). In a ``with`` statement it holds until the end of the block.

    Args:
        backend: "cv2", "pillow", "turbojpeg" (JPEG only, faster) or "tifffile" (TIFF only).

    Returns:
        A context manager that restores the former choice; it may be ignored.

    Raises:
        AssertionError: If the name is unknown.
        ImportError: If the library is not installed.
    """
    if backend not in supported_backends:
        raise AssertionError(f"backend must be one of {supported_backends}, got {backend!r}")
    name: Backend = backend  # type: ignore[assignment]  # just checked
    codec(name).require()
    return _Selection(_backend.set(name))


def current_backend() -> Backend:
    """The backend selected in this context by `use_backend`, "cv2" at first."""
    return _backend.get()


def imread(
    img_or_path: npt.NDArray[Any] | str | os.PathLike[str],
    flag: str = "color",
    channel_order: str = "bgr",
    backend: str | None = None,
    *,
    file_client: BytesSource | None = None,
    max_pixels: int | None = None,
) -> npt.NDArray[Any]:
    """Read an image.

    Args:
        img_or_path: Path of an image file. An array (an image already loaded) is returned as it is.
        flag: "color" gives (H, W, 3) uint8, "grayscale" (H, W) uint8, "unchanged" the stored channels and
            depth. With cv2 and pillow the image is turned upright as its EXIF orientation says, except with
            "unchanged", "color_ignore_orientation" and "grayscale_ignore_orientation". turbojpeg and tifffile
            always ignore orientation; turbojpeg knows only "color" and "grayscale"; tifffile keeps the stored
            depth.
        channel_order: "bgr" or "rgb".
        backend: "cv2", "pillow", "turbojpeg" or "tifffile"; None takes what `use_backend` selected.
        file_client: Where to read from if not the local disk: anything with ``get(path) -> bytes``.
        max_pixels: Refuse images of more pixels. The default is 178,956,970 (Pillow's own limit) or the
            environment variable CV_IMAGE_MAX_PIXELS.

    Returns:
        The image, C-contiguous.

    Raises:
        TypeError: If `img_or_path` is neither an array nor a path.
        ValueError: If `flag`, `channel_order` or `backend` is unknown.
        FileNotFoundError: If there is no such file.
        ImageDecodeError: If the file is empty, truncated, corrupt or not an image (an `OSError` and
            `ValueError`).
        ImageTooLargeError: If it would decode to more than `max_pixels`.
        ImportError: If the backend's library is not installed.
    """
    if isinstance(img_or_path, np.ndarray):
        return img_or_path
    if not isinstance(img_or_path, (str, os.PathLike)):
        raise TypeError(f"img_or_path must be an ndarray, a str or a Path, got {type(img_or_path).__name__}")
    path = os.fspath(img_or_path)
    options = _options(flag, channel_order, backend, max_pixels)
    content = Path(path).read_bytes() if file_client is None else file_client.get(path)
    try:
        return _decode(_to_bytes(content), *options)
    except ImageDecodeError as error:
        raise type(error)(f"cannot read image {path!r}: {error}") from error


def imfrombytes(
    content: bytes | bytearray | memoryview,
    flag: str = "color",
    channel_order: str = "bgr",
    backend: str | None = None,
    *,
    max_pixels: int | None = None,
) -> npt.NDArray[Any]:
    """Decode an image file held in memory.

    Args:
        content: The whole file.
        flag: Same as `imread`.
        channel_order: Same as `imread`.
        backend: Same as `imread`.
        max_pixels: Same as `imread`.

    Returns:
        The image, as from `imread`.

    Raises:
        TypeError: If `content` does not offer bytes.
        ValueError: If `flag`, `channel_order` or `backend` is unknown.
        ImageDecodeError: If the content is empty, truncated, corrupt or not an image.
        ImageTooLargeError: If it would decode to more than `max_pixels`.
        ImportError: If the backend's library is not installed.
    """
    options = _options(flag, channel_order, backend, max_pixels)
    try:
        return _decode(_to_bytes(content), *options)
    except ImageDecodeError as error:
        raise type(error)(f"cannot decode image: {error}") from error


def imwrite(
    img: npt.NDArray[Any],
    file_path: str | os.PathLike[str],
    params: Sequence[int] | None = None,
    auto_mkdir: bool = True,
) -> bool:
    """Write an image; the suffix names the format.

    The file appears whole or not at all: it is written beside its place and renamed.

    Args:
        img: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8, or what else the format stores
            (uint16 in PNG and TIFF, float32 in TIFF, …). OpenCV saturates other depths to uint8.
        file_path: Where to write.
        params: Encoder options as for `cv2.imwrite`, such as ``[cv2.IMWRITE_JPEG_QUALITY, 90]``.
        auto_mkdir: Make the folder if it is absent.

    Returns:
        True if the file was written, False if its folder is absent and `auto_mkdir` is False.

    Raises:
        TypeError: If `img` is not an array or `file_path` not a path.
        ValueError: If the suffix is unknown, or the format cannot hold such an image.
        OSError: If the file system refuses (no space, no permission, …).
    """
    if not isinstance(img, np.ndarray):
        raise TypeError(f"img must be an ndarray, got {type(img).__name__}")
    if not isinstance(file_path, (str, os.PathLike)):
        raise TypeError(f"file_path must be a str or a Path, got {type(file_path).__name__}")
    path = Path(file_path).expanduser()
    if not path.suffix or not cv2.haveImageWriter(f"x{path.suffix}"):
        raise ValueError(
            f"file_path must end in a suffix of an image format that OpenCV writes, got {str(path)!r}"
        )
    if img.size == 0 or img.ndim not in (2, 3):
        raise ValueError(f"img must have shape (H, W) or (H, W, C) and hold pixels, got {img.shape}")
    if img.dtype.newbyteorder("=") not in _WRITABLE:
        raise ValueError(_unwritable(img, path))
    if not path.parent.is_dir():
        if not auto_mkdir:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        encoded, buffer = cv2.imencode(
            path.suffix, for_cv2(check_image(img)), list(params) if params is not None else []
        )
    except cv2.error as error:
        raise ValueError(f"{_unwritable(img, path)}: {error.err or error}") from error
    if not encoded:
        raise ValueError(_unwritable(img, path))
    write_atomic(path, buffer.tobytes())
    return True


class _Selection(AbstractContextManager[None]):
    def __init__(self, token: Token[Backend]) -> None:
        self._token = token

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _backend.reset(self._token)


def _options(
    flag: str, channel_order: str, backend: str | None, max_pixels: int | None
) -> tuple[Flag, ChannelOrder, Backend, int]:
    if flag not in get_args(Flag):
        raise ValueError(f"flag must be one of {list(get_args(Flag))}, got {flag!r}")
    if channel_order not in get_args(ChannelOrder):
        raise ValueError(
            f"channel_order must be one of {list(get_args(ChannelOrder))}, got {channel_order!r}"
        )
    if backend is None:
        backend = current_backend()
    elif backend not in supported_backends:
        raise ValueError(f"backend must be one of {supported_backends}, got {backend!r}")
    return flag, channel_order, backend, _max_pixels(max_pixels)  # type: ignore[return-value]  # checked above


def _max_pixels(given: int | None) -> int:
    if given is None:
        text = os.environ.get("CV_IMAGE_MAX_PIXELS", _MAX_PIXELS)
        try:
            given = int(text)
        except ValueError:
            raise ValueError(f"CV_IMAGE_MAX_PIXELS must be a positive integer, got {text!r}") from None
    if given <= 0:
        raise ValueError(f"max_pixels must be a positive integer, got {given}")
    return given


def _unwritable(img: npt.NDArray[Any], path: Path) -> str:
    return f"cannot encode an image of shape {img.shape} and dtype {img.dtype} as {path.suffix}"


def _to_bytes(content: object) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return bytes(memoryview(content))  # type: ignore[arg-type]  # the exception below is for the rest
    except TypeError:
        raise TypeError(f"content must be bytes, got {type(content).__name__}") from None


def _decode(
    data: bytes, flag: Flag, channel_order: ChannelOrder, backend: Backend, max_pixels: int
) -> npt.NDArray[Any]:
    module = codec(backend)
    module.require()
    if not data:
        raise ImageDecodeError("it is empty")
    return module.decode(data, flag, channel_order, max_pixels)
