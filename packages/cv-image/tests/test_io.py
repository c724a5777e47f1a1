from __future__ import annotations

import asyncio
import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from cv.image import (
    ImageDecodeError,
    ImageTooLargeError,
    imfrombytes,
    imread,
    imwrite,
    supported_backends,
    use_backend,
)
from cv.image.codecs import codec
from cv.image.codecs.header import image_size
from cv.image.io import current_backend
from cv_testing.images import smooth_image


def installed(name: str) -> bool:
    try:
        codec(name).require()
    except ImportError:
        return False
    return True


needs_turbojpeg = pytest.mark.skipif(
    not installed("turbojpeg"), reason="PyTurboJPEG or the libjpeg-turbo library is not installed"
)
needs_tifffile = pytest.mark.skipif(not installed("tifffile"), reason="tifffile is not installed")
BOTH = pytest.mark.parametrize("backend", ["cv2", "pillow"])
FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "GIF": {},
    "PPM": {},
}


def encode(img: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture = img if isinstance(img, Image.Image) else Image.fromarray(img)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# --- What is read ---


@BOTH
@pytest.mark.parametrize("kind", FORMATS)
def test_formats_flags_and_channel_order(kind, backend, photo):
    data = encode(photo, kind, **FORMATS[kind])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for suffix in ("", "_ignore_orientation"):
        rgb = imfrombytes(data, "color" + suffix, "rgb", backend)
        bgr = imfrombytes(data, "color" + suffix, backend=backend)
        assert rgb.dtype == bgr.dtype == np.uint8
        np.testing.assert_array_equal(rgb, bgr[..., ::-1])
        np.testing.assert_allclose(rgb.astype(int), pixels, atol=2 if kind == "JPEG" else 0)
        grey = imfrombytes(data, "grayscale" + suffix, backend=backend)
        assert grey.shape == photo.shape[:2]
        np.testing.assert_allclose(grey, pixels @ np.array([0.299, 0.587, 0.114]), atol=2.5)
        assert bgr.flags.c_contiguous
        assert bgr.flags.writeable
    if kind != "GIF":  # it has a palette
        np.testing.assert_array_equal(imfrombytes(data, "unchanged", backend=backend), bgr)
        np.testing.assert_array_equal(imfrombytes(data, "unchanged", "rgb", backend), rgb)


@BOTH
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, backend, orientation, photo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo, kind, exif=exif, **FORMATS[kind])
    plain = imfrombytes(encode(photo, kind, **FORMATS[kind]), backend=backend)
    # Exif 2.32: where row 0 and column 0 of the stored image are shown.
    shown = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: np.rot90(plain, -1),
        7: np.rot90(plain, 2).transpose(1, 0, 2),
        8: np.rot90(plain),
    }[orientation]
    np.testing.assert_array_equal(imfrombytes(data, backend=backend), shown)
    grey = imfrombytes(data, "grayscale", backend=backend)
    assert grey.shape == shown.shape[:2]
    for flag in ("unchanged", "color_ignore_orientation"):
        np.testing.assert_array_equal(imfrombytes(data, flag, backend=backend), plain)
    assert imfrombytes(data, "grayscale_ignore_orientation", backend=backend).shape == plain.shape[:2]


@BOTH
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_orientation(backend, orientation, photo):
    if "avif" not in features.modules or not features.check("avif"):
        pytest.skip("AVIF needs Pillow 11.3 or newer")
    # AVIF has the orientation in its own properties (irot, imir), which Pillow makes from this tag.
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo, "AVIF", exif=exif, quality=95)
    plain = imfrombytes(encode(photo, "AVIF", quality=95), backend=backend)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = np.asarray(upright)[..., ::-1].astype(int)
    for flag in ("color", "grayscale"):
        result = imfrombytes(data, flag, backend=backend)
        assert result.shape[:2] == expected.shape[:2]
        grey = expected if flag == "color" else expected @ np.array([0.114, 0.587, 0.299])
        assert np.abs(result - grey).mean() < 3
    for flag in ("unchanged", "color_ignore_orientation"):
        np.testing.assert_array_equal(imfrombytes(data, flag, backend=backend), plain)


@BOTH
def test_16_bit_grey(backend):
    img = np.random.default_rng(0).integers(0, 65536, (5, 7)).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        data = encode(Image.fromarray(img), kind)
        stored = imfrombytes(data, "unchanged", backend=backend)
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, img)
        grey = imfrombytes(data, "grayscale", backend=backend)
        assert grey.dtype == np.uint8
        assert np.abs(grey - img / 256).max() <= 1  # the high byte, or rounded
        color = imfrombytes(data, backend=backend)
        np.testing.assert_array_equal(color, np.repeat(grey[..., None], 3, axis=2))


def test_16_bit_colour_with_cv2(tmp_path):
    img = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        path = tmp_path / f"deep{suffix}"
        assert imwrite(img, path)
        np.testing.assert_array_equal(imread(path, "unchanged"), img)
        assert imread(path).dtype == np.uint8


@BOTH
def test_alpha(backend, photo):
    rgba = np.dstack([photo, np.full(photo.shape[:2], 100, np.uint8)])
    data = encode(rgba, "PNG")
    np.testing.assert_array_equal(imfrombytes(data, backend=backend), photo[..., ::-1])
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", "rgb", backend), rgba)
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", "bgr", backend), rgba[..., [2, 1, 0, 3]])


def test_grey_with_alpha(photo):
    grey = np.ascontiguousarray(photo[..., :2])
    data = encode(_la(grey), "PNG")
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", backend="pillow"), grey)
    for backend in ("cv2", "pillow"):
        np.testing.assert_array_equal(imfrombytes(data, "grayscale", backend=backend), grey[..., 0])
        np.testing.assert_array_equal(imfrombytes(data, backend=backend), grey[..., :1].repeat(3, axis=2))


def _la(grey: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(grey[..., i])) for i in (0, 1)])


def test_palette_indices_and_colours():
    picture = Image.new("P", (4, 1))
    picture.putpalette([0, 0, 0, 250, 100, 50, 10, 20, 30] + [0] * 759)
    picture.putdata([0, 1, 2, 1])
    data = encode(picture, "PNG")
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", backend="pillow"), [[0, 1, 2, 1]])
    for backend in ("cv2", "pillow"):
        np.testing.assert_array_equal(
            imfrombytes(data, backend=backend, channel_order="rgb")[0],
            [[0, 0, 0], [250, 100, 50], [10, 20, 30], [250, 100, 50]],
        )


def test_one_bit():
    bits = np.random.default_rng(0).random((9, 13)) > 0.5
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        data = encode(Image.fromarray(bits), kind)
        np.testing.assert_array_equal(imfrombytes(data, "unchanged", backend="pillow"), bits)
        for backend in ("cv2", "pillow"):
            np.testing.assert_array_equal(imfrombytes(data, "grayscale", backend=backend), bits * 255)


@BOTH
def test_cmyk(backend, photo):
    data = encode(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95)
    color = imfrombytes(data, "color", "rgb", backend)
    assert np.abs(color.astype(int) - photo).mean() < 3
    assert imfrombytes(data, "grayscale", backend=backend).shape == photo.shape[:2]
    if backend == "pillow":
        assert imfrombytes(data, "unchanged", backend=backend).shape == (*photo.shape[:2], 4)


@BOTH
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(kind, backend):
    frames = [Image.new("RGB", (30, 20), (value, value, value)) for value in (10, 200)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    img = imfrombytes(data, backend=backend)
    assert img.shape == (20, 30, 3)
    assert np.abs(img.astype(int) - 10).max() <= 2


@BOTH
def test_progressive_and_interlaced(backend, photo):
    progressive = imfrombytes(encode(photo, "JPEG", progressive=True, quality=95), backend=backend)
    assert np.abs(progressive[..., ::-1].astype(int) - photo).mean() < 4
    # Pillow writes no interlaced PNG: seven passes by hand, for the first pass of Adam7 alone (one pixel).
    rows = zlib.compress(b"\0\7\x08\x09")
    data = _png(struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1), rows)
    np.testing.assert_array_equal(imfrombytes(data, "color", "rgb", backend), [[[7, 8, 9]]])


def _png(header: bytes, body: bytes) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


# --- Where it is read from ---


def test_an_array_passes_through(photo):
    assert imread(photo) is photo


@pytest.mark.parametrize("name", ["plain.png", "Größe 図 🙂.png", "n" * 251 + ".png"])
def test_paths(name, tmp_path, photo):
    path = tmp_path / name
    assert imwrite(photo, path)
    for given in (path, str(path)):
        np.testing.assert_array_equal(imread(given), photo)


def test_a_very_long_path(tmp_path, photo):
    folder = tmp_path
    while len(str(folder)) < 3500:
        folder = folder / ("d" * 200)
    assert imwrite(photo, folder / "img.png")
    np.testing.assert_array_equal(imread(folder / "img.png"), photo)


def test_a_file_client(photo):
    class Client:
        def get(self, filepath):
            assert filepath == "s3://bucket/x.png"
            return memoryview(encode(photo, "PNG"))

    np.testing.assert_array_equal(
        imread("s3://bucket/x.png", channel_order="rgb", file_client=Client()), photo
    )


def test_bytes_like_content(photo):
    data = encode(photo, "PNG")
    for content in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        np.testing.assert_array_equal(imfrombytes(content, channel_order="rgb"), photo)
    with pytest.raises(TypeError, match="content must be bytes, got str"):
        imfrombytes("x")


# --- What is refused ---


@pytest.mark.parametrize("bad", [1, None, 2.5, b"x.png", ["x.png"]])
def test_not_a_path(bad):
    with pytest.raises(TypeError, match="img_or_path must be"):
        imread(bad)


def test_unknown_options(tmp_path, photo):
    path = tmp_path / "x.png"
    imwrite(photo, path)
    with pytest.raises(ValueError, match=r"flag must be one of .*'colour'"):
        imread(path, "colour")
    with pytest.raises(ValueError, match=r"channel_order must be one of .*'grb'"):
        imread(path, channel_order="grb")
    with pytest.raises(ValueError, match=r"backend must be one of .*'scipy'"):
        imread(path, backend="scipy")


@pytest.mark.parametrize("backend", supported_backends)
def test_missing_empty_and_nonsense(backend, tmp_path):
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    missing = tmp_path / "missing.jpg"
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        imread(missing, backend=backend)
    for content, reason in ((b"", "empty"), (b"no image at all", "not a|cannot")):
        path = tmp_path / "broken.jpg"
        path.write_bytes(content)
        with pytest.raises(ImageDecodeError, match=reason) as raised:
            imread(path, backend=backend)
        assert str(path) in str(raised.value)
        assert isinstance(raised.value, OSError)
        assert isinstance(raised.value, ValueError)
        with pytest.raises(ImageDecodeError, match=reason):
            imfrombytes(content, backend=backend)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        imread(tmp_path)


@BOTH
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.95])
def test_truncated(kind, backend, kept, photo):
    data = encode(photo, kind, **FORMATS[kind])
    with pytest.raises(ImageDecodeError):
        imfrombytes(data[: int(len(data) * kept)], backend=backend)


def test_a_truncated_jpeg_with_a_thumbnail(photo):
    thumbnail = encode(photo[::4, ::4], "JPEG")
    data = encode(photo, "JPEG")
    segment = b"Exif\0\0" + thumbnail  # it holds an end marker of its own
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    assert imfrombytes(with_thumbnail).shape == photo.shape
    with pytest.raises(ImageDecodeError, match="end marker"):
        imfrombytes(with_thumbnail[:-40])


def bomb() -> bytes:
    """A PNG of some hundred bytes that claims a gigapixel."""
    return _png(struct.pack(">IIBBBBB", 40000, 30000, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 1000))


def test_a_png_chunk_longer_than_the_file(photo):
    """OpenCV allocated what the chunk claims; found by fuzzing."""
    data = bytearray(encode(photo, "PNG"))
    at = data.index(b"IDAT") - 4
    struct.pack_into(">I", data, at, 0x7FFFFFF0)
    with pytest.raises(ImageDecodeError, match="longer than the file"):
        imfrombytes(data, backend="cv2")


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_a_decompression_bomb(backend, tmp_path, monkeypatch, photo):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    with pytest.raises(ImageTooLargeError, match=r"bomb\.png.*40000 x 30000.*max_pixels"):
        imread(path, backend=backend)
    data = encode(photo, "PNG")
    with pytest.raises(ImageTooLargeError, match="60 x 40 is more than 2399 pixels"):
        imfrombytes(data, backend=backend, max_pixels=2399)
    assert imfrombytes(data, backend=backend, max_pixels=2400).shape == photo.shape
    monkeypatch.setenv("CV_IMAGE_MAX_PIXELS", "100")
    with pytest.raises(ImageTooLargeError):
        imfrombytes(data, backend=backend)
    monkeypatch.setenv("CV_IMAGE_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="CV_IMAGE_MAX_PIXELS"):
        imfrombytes(data, backend=backend)
    with pytest.raises(ValueError, match="max_pixels must be a positive integer"):
        imfrombytes(data, max_pixels=0)


def test_pillows_own_limit_gives_way(monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert imfrombytes(encode(photo, "PNG"), backend="pillow").shape == photo.shape
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("kind", [*FORMATS, "JPEG2000"])
def test_size_from_the_header(kind, photo):
    assert image_size(encode(photo, kind)) == (60, 40)
    assert image_size(encode(photo, kind)[:20]) in (None, (60, 40))


@pytest.mark.parametrize("options", [{"lossless": True}, {"exact": True}, {"exif": b"Exif\0\0"}])
def test_size_of_webp(options, photo):
    assert image_size(encode(photo, "WEBP", **options)) == (60, 40)


def test_eps_is_not_run(tmp_path):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageDecodeError, match="EPS"):
        imfrombytes(eps, backend="pillow")


# --- Backends ---


def test_use_backend():
    assert current_backend() == "cv2"
    with use_backend("pillow"):
        assert current_backend() == "pillow"
        with use_backend("cv2"):
            assert current_backend() == "cv2"
        assert current_backend() == "pillow"
    assert current_backend() == "cv2"
    for name in ("unknown", None, 1):
        with pytest.raises(AssertionError, match="backend must be one of"):
            use_backend(name)


def test_use_backend_decides_and_an_argument_wins():
    picture = Image.new("P", (2, 1))
    picture.putpalette([9, 9, 9, 70, 80, 90])
    picture.putdata([0, 1])
    data = encode(picture, "PNG")
    with use_backend("pillow"):
        assert imfrombytes(data, "unchanged").shape == (1, 2)
        assert imfrombytes(data, "unchanged", backend="cv2").shape == (1, 2, 3)
    assert imfrombytes(data, "unchanged").shape == (1, 2, 3)


def test_use_backend_is_per_thread():
    barrier = threading.Barrier(2, timeout=10)

    def choose(name):
        before = current_backend()
        use_backend(name)
        barrier.wait()
        return before, current_backend()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(choose, ["pillow", "cv2"])) == [("cv2", "pillow"), ("cv2", "cv2")]
    assert current_backend() == "cv2"


def test_use_backend_is_per_task():
    async def choose(name):
        use_backend(name)
        await asyncio.sleep(0)
        return current_backend()

    async def both():
        return await asyncio.gather(choose("pillow"), choose("cv2"))

    assert asyncio.run(both()) == ["pillow", "cv2"]
    assert current_backend() == "cv2"


@pytest.mark.parametrize(("backend", "module"), [("turbojpeg", "turbojpeg"), ("tifffile", "tifffile")])
def test_a_missing_library_names_what_to_install(backend, module, monkeypatch, photo):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    loaded = codec(backend)
    if hasattr(loaded, "_decoder"):
        loaded._decoder.cache_clear()
    message = rf"pip install cv-image\[{backend}\]"
    with pytest.raises(ImportError, match=message):
        use_backend(backend)
    with pytest.raises(ImportError, match=message):
        imfrombytes(encode(photo, "JPEG"), backend=backend)
    assert current_backend() == "cv2"


@needs_turbojpeg
def test_turbojpeg(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo, "JPEG", quality=95, exif=exif)
    expected = imfrombytes(data, "color_ignore_orientation")
    bgr = imfrombytes(data, backend="turbojpeg")  # orientation is ignored
    assert np.abs(bgr.astype(int) - expected).max() <= 3
    np.testing.assert_array_equal(imfrombytes(data, "color", "rgb", "turbojpeg"), bgr[..., ::-1])
    grey = imfrombytes(data, "grayscale", backend="turbojpeg")
    assert grey.shape == photo.shape[:2]
    assert np.abs(grey.astype(int) - imfrombytes(data, "grayscale_ignore_orientation")).max() <= 3
    for flag in ("unchanged", "color_ignore_orientation", "grayscale_ignore_orientation"):
        with pytest.raises(ValueError, match='flag must be "color" or "grayscale" with backend turbojpeg'):
            imfrombytes(data, flag, backend="turbojpeg")
    with pytest.raises(ImageDecodeError, match="not a JPEG"):
        imfrombytes(encode(photo, "PNG"), backend="turbojpeg")
    with pytest.raises(ImageDecodeError, match="truncated"):
        imfrombytes(data[:-20], backend="turbojpeg")
    with pytest.raises(ImageTooLargeError):
        imfrombytes(data, backend="turbojpeg", max_pixels=10)
    with use_backend("turbojpeg"):
        np.testing.assert_array_equal(imfrombytes(data), bgr)


def tiff(array: np.ndarray, **options) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@needs_tifffile
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int16])
def test_tifffile_keeps_depth_and_channels(dtype):
    many = np.random.default_rng(0).integers(0, 100, (6, 8, 5)).astype(dtype)
    data = tiff(many, photometric="minisblack", planarconfig="contig")
    for flag in ("color", "unchanged"):
        result = imfrombytes(data, flag, backend="tifffile")
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, many)
    separate = tiff(np.moveaxis(many, -1, 0), photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(imfrombytes(separate, backend="tifffile"), many)
    grey = np.ascontiguousarray(many[..., 0])
    data = tiff(grey)
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", backend="tifffile"), grey)
    np.testing.assert_array_equal(imfrombytes(data, "grayscale", backend="tifffile"), grey)
    np.testing.assert_array_equal(imfrombytes(data, backend="tifffile"), grey[..., None].repeat(3, axis=2))
    big_endian = tiff(grey.astype(np.dtype(dtype).newbyteorder(">")), byteorder=">")
    result = imfrombytes(big_endian, "unchanged", backend="tifffile")
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, grey)


@needs_tifffile
def test_tifffile_colours():
    rgb = np.random.default_rng(0).integers(0, 65536, (6, 8, 3)).astype(np.uint16)
    data = tiff(rgb, photometric="rgb", extratags=[(274, "H", 1, 6, True)])  # orientation is ignored
    for flag in ("color", "unchanged", "color_ignore_orientation"):
        np.testing.assert_array_equal(imfrombytes(data, flag, "rgb", "tifffile"), rgb)
        np.testing.assert_array_equal(imfrombytes(data, flag, "bgr", "tifffile"), rgb[..., ::-1])
    grey = imfrombytes(data, "grayscale", backend="tifffile")
    assert np.abs(grey - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 0.5 + 1e-6
    rgba = np.dstack([rgb, rgb[..., :1]])
    data = tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(imfrombytes(data, "color", "rgb", "tifffile"), rgb)
    np.testing.assert_array_equal(imfrombytes(data, "unchanged", "bgr", "tifffile"), rgba[..., [2, 1, 0, 3]])


@needs_tifffile
def test_tifffile_refuses(photo, tmp_path):
    data = tiff(photo)
    with pytest.raises(ImageDecodeError, match="not a TIFF"):
        imfrombytes(encode(photo, "PNG"), backend="tifffile")
    with pytest.raises(ImageDecodeError):
        imfrombytes(data[: len(data) // 2], backend="tifffile")
    with pytest.raises(ImageTooLargeError):
        imfrombytes(data, backend="tifffile", max_pixels=100)


@needs_turbojpeg
def test_turbojpeg_refuses_a_jpeg_without_an_image():
    tables_only = b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes(range(1, 65)) + b"\xff\xda\x00\x02\xff\xd9"
    with pytest.raises(ImageDecodeError):
        imfrombytes(tables_only, backend="turbojpeg")


@needs_tifffile
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_loop_of_tiff_directories(options, photo):
    """A file whose directory names itself as the next one; found by fuzzing."""
    data = bytearray(tiff(photo, **options))
    assert imfrombytes(data, "color", "rgb", "tifffile").shape == photo.shape
    order = options.get("byteorder", "<")
    if "bigtiff" in options:
        (at,) = struct.unpack_from("<Q", data, 8)
        (count,) = struct.unpack_from("<Q", data, at)
        struct.pack_into("<Q", data, at + 8 + 20 * count, at)
    else:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        struct.pack_into(order + "I", data, at + 2 + 12 * count, at)
    with pytest.raises(ImageDecodeError, match="loop"):
        imfrombytes(data, backend="tifffile")
    for backend in ("cv2", "pillow"):
        assert imfrombytes(data, "color", "rgb", backend).shape == photo.shape


# --- Writing ---


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"])
def test_imwrite_formats(suffix, tmp_path, photo):
    path = tmp_path / f"img{suffix}"
    assert imwrite(photo, path) is True
    assert np.abs(imread(path).astype(int) - photo).mean() < 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_imwrite_shapes(dtype, channels, tmp_path):
    shape = (6, 9) if channels is None else (6, 9, channels)
    img = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    for view in (img, img[::-1, ::-1], np.asfortranarray(img), img.astype(img.dtype.newbyteorder())):
        imwrite(view, tmp_path / "x.png")
        np.testing.assert_array_equal(
            imread(tmp_path / "x.png", "unchanged"), view.reshape((6, 9) if channels == 1 else shape)
        )


def test_imwrite_params(tmp_path, photo):
    imwrite(photo, tmp_path / "good.jpg", [cv2.IMWRITE_JPEG_QUALITY, 95])
    imwrite(photo, tmp_path / "bad.jpg", (cv2.IMWRITE_JPEG_QUALITY, 5))
    assert (tmp_path / "good.jpg").stat().st_size > 2 * (tmp_path / "bad.jpg").stat().st_size


def test_imwrite_makes_folders_when_asked(tmp_path, photo):
    path = tmp_path / "a" / "b" / "x.png"
    assert imwrite(photo, path, auto_mkdir=False) is False
    assert not (tmp_path / "a").exists()
    assert imwrite(photo, str(path)) is True
    np.testing.assert_array_equal(imread(path), photo)


@pytest.mark.parametrize("name", ["x.unknown", "x", "png", "x.png.part"])
def test_imwrite_refuses_unknown_suffixes(name, tmp_path, photo):
    with pytest.raises(ValueError, match="suffix"):
        imwrite(photo, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("img", "error"),
    [
        ([[1]], TypeError),
        (np.zeros((0, 3, 3), np.uint8), ValueError),
        (np.zeros((2, 2, 5), np.uint8), ValueError),
        (np.zeros((2, 2, 3, 1), np.uint8), ValueError),
        (np.zeros((2, 2), np.int64), ValueError),
        (np.zeros((2, 2), np.bool_), ValueError),
    ],
)
def test_imwrite_refuses_what_cannot_be_written(img, error, tmp_path, photo):
    target = tmp_path / "x.jpg"
    imwrite(photo, target)
    before = target.read_bytes()
    with pytest.raises(error):
        imwrite(img, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_imwrite_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch, photo):
    target = tmp_path / "x.png"
    imwrite(photo, target)
    before = target.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        imwrite(photo[::-1], target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="links and permissions of POSIX")
def test_imwrite_keeps_permissions_and_follows_links(tmp_path, photo):
    target, link = tmp_path / "x.png", tmp_path / "link.png"
    imwrite(photo, target)
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    target.chmod(0o640)
    link.symlink_to(target)
    imwrite(photo[::-1], link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(imread(target), photo[::-1])


def test_imwrite_from_many_threads(tmp_path):
    """A reader never sees half a file."""
    images = [smooth_image(64, 64, seed=seed) for seed in range(4)]
    target = tmp_path / "x.png"
    imwrite(images[0], target)
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(imwrite, images[i % 4], target) for i in range(60)]
        for _ in range(60):
            seen = imread(target)
            assert any(np.array_equal(seen, img) for img in images)
        assert all(task.result() for task in writing)
    assert list(tmp_path.iterdir()) == [target]
