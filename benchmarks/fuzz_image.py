"""Decode mutated images through every backend; stop at a crash, a hang, memory without bound or a wrong
exception.

    python benchmarks/fuzz_image.py --cases 100000

Small images of six formats, in the variants that decoders have code for, are damaged in ways known to find
faults: flipped bits, extreme numbers in header fields, cut ends, repeated and exchanged parts. A case is made
from its number alone, so a failure is repeated with ``--first N --cases 1``; its bytes are kept in
``--keep``.

Decoding happens in a child process with a limit on its address space. Allowed outcomes are an array and
`ImageDecodeError`.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS = 20  # a single case
EXTRA_BYTES = 2 * 2**30  # address space of the child on top of what it has at the start
MAX_PIXELS = 4_000_000
FLAGS = ("color", "grayscale", "unchanged", "color_ignore_orientation", "grayscale_ignore_orientation")
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def main() -> None:
    """Run the cases, start the child again after each failure, and report."""
    args = arguments()
    args.keep.mkdir(parents=True, exist_ok=True)
    totals: Counter[str] = Counter()
    failures: list[dict[str, object]] = []
    next_case, last = args.first, args.first + args.cases
    peak, start = (0, 0, ""), time.monotonic()
    while next_case < last:
        next_case, ended = run_child(next_case, last, totals, failures, args.keep)
        peak = max(peak, ended)
    report = {
        "cases": args.cases,
        "decodings": sum(totals.values()),
        "outcomes": dict(sorted(totals.items())),
        "failures": failures,
        "peak_mb": peak[0] // 1024,
        "peak_at": {"case": peak[1], "backend": peak[2]},
        "seconds": round(time.monotonic() - start),
        "versions": versions(),
    }
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(failures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("work_dirs/fuzz"), help="folder for bytes that failed"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    return parser.parse_args()


def run_child(
    first: int, last: int, totals: Counter[str], failures: list[dict[str, object]], keep: Path
) -> tuple[int, tuple[int, int, str]]:
    """Run cases in a child until it is done or fails; (the next case, the peak in KiB and where it was)."""
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=work, args=(first, last, send))
    child.start()
    send.close()
    case, backend, peak = first, "", (0, 0, "")
    reason = ""
    while True:
        if not receive.poll(SECONDS):
            reason = f"no end within {SECONDS} s"
            child.kill()
            break
        try:
            message = receive.recv()
        except EOFError:
            break
        if message[0] == "begin":
            _, case, backend = message
        elif message[0] == "end":
            totals[message[1]] += 1
        elif message[0] == "wrong":
            failures.append({"case": case, "backend": backend, "reason": message[1]})
            (keep / f"{case}.bin").write_bytes(mutated(case)[1])
        else:
            peak = message[1:]
    child.join()
    if child.exitcode == 0:
        return last, peak
    if not reason and child.exitcode is not None:
        reason = signal.Signals(-child.exitcode).name if child.exitcode < 0 else f"exit {child.exitcode}"
    failures.append({"case": case, "backend": backend, "reason": reason})
    (keep / f"{case}.bin").write_bytes(mutated(case)[1])
    return case + 1, peak


def work(first: int, last: int, send: Connection) -> None:
    """In the child: decode each case by each backend that reads its format."""
    from cv.image import ImageDecodeError, imfrombytes
    from cv.image.codecs import codec

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - what the libraries say of broken files
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
    installed = [name for name in ("cv2", "pillow", "turbojpeg", "tifffile") if is_installed(codec(name))]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, used + EXTRA_BYTES))
    peak = 0
    for case in range(first, last):
        kind, data = mutated(case)
        for backend in installed:
            if (backend == "turbojpeg" and kind != "JPEG") or (backend == "tifffile" and kind != "TIFF"):
                continue
            flag = FLAGS[case % (2 if backend == "turbojpeg" else 5)]
            send.send(("begin", case, backend))
            try:
                img = imfrombytes(data, flag, backend=backend, max_pixels=MAX_PIXELS)
                good = isinstance(img, np.ndarray) and img.size > 0
                outcome = "decoded" if good else "no image"
            except ImageDecodeError:
                outcome, good = "refused", True
            except BaseException as error:  # anything else is what this looks for
                outcome, good = "wrong", False
                send.send(("wrong", f"{type(error).__name__}: {error}"))
            send.send(("end", f"{kind}, {backend}: {outcome}"))
            used_now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if used_now > peak:
                peak = used_now
                send.send(("peak", peak, case, backend))
            if outcome == "no image":
                send.send(("wrong", "an empty image or none"))


def is_installed(codec: object) -> bool:
    try:
        codec.require()  # type: ignore[attr-defined]
    except ImportError:
        return False
    return True


_seeds: list[tuple[str, bytes]] = []


def seeds() -> list[tuple[str, bytes]]:
    """(format, file) of every variant."""
    if not _seeds:
        _seeds.extend(make_seeds())
    return _seeds


def make_seeds() -> list[tuple[str, bytes]]:
    y, x = np.mgrid[:24, :32]
    rgb = Image.fromarray(np.dstack([x * 8, y * 10, (x * y) % 256]).astype(np.uint8))
    grey, alpha = rgb.convert("L"), Image.merge("RGBA", [*rgb.split(), rgb.convert("L")])
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [rgb.rotate(90 * turn) for turn in range(1, 4)]
    variants: list[tuple[str, Image.Image, dict[str, object]]] = [
        *(("JPEG", img, {}) for img in (rgb, grey, rgb.convert("CMYK"))),
        ("JPEG", rgb, {"progressive": True, "exif": exif}),
        ("JPEG", rgb, {"subsampling": 0, "restart_marker_blocks": 2}),
        *(("PNG", img, {}) for img in (rgb, grey, alpha, deep, rgb.quantize(16), grey.convert("1"))),
        ("PNG", grey.convert("LA"), {"exif": exif}),
        ("PNG", rgb, {"save_all": True, "append_images": frames}),
        *(
            ("TIFF", rgb, {"compression": name})
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        ("TIFF", rgb, {"compression": "jpeg"}),
        *(
            ("TIFF", img, {"exif": exif})
            for img in (grey, alpha, deep, rgb.quantize(16), rgb.convert("CMYK"))
        ),
        ("TIFF", grey.convert("1"), {"compression": "group4"}),
        ("TIFF", rgb, {"save_all": True, "append_images": frames}),
        *(("WEBP", rgb, options) for options in ({}, {"lossless": True}, {"exif": exif.tobytes()})),
        ("WEBP", alpha, {}),
        ("WEBP", rgb, {"save_all": True, "append_images": frames}),
        *(("BMP", img, {}) for img in (rgb, grey, alpha, rgb.quantize(16), grey.convert("1"))),
        *(("GIF", img, {}) for img in (rgb, grey)),
        ("GIF", rgb, {"save_all": True, "append_images": frames}),
    ]
    files = []
    for kind, img, options in variants:
        buffer = io.BytesIO()
        img.save(buffer, kind, **options)
        files.append((kind, buffer.getvalue()))
    return files


def mutated(case: int) -> tuple[str, bytes]:
    """Format and content of a case."""
    rng = random.Random(case)
    kind, content = rng.choice(seeds())
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    if kind == "PNG" and rng.random() < 0.7:
        mend_checksums(data)  # otherwise nearly every case would end at the first one
    return kind, bytes(data)


def mend_checksums(data: bytearray) -> None:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4


def place(data: bytearray, rng: random.Random) -> int:
    """A position; half of them in the header."""
    return rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data))


def flip_bit(data: bytearray, rng: random.Random) -> None:
    data[place(data, rng)] ^= 1 << rng.randrange(8)


def random_byte(data: bytearray, rng: random.Random) -> None:
    data[place(data, rng)] = rng.randrange(256)


def extreme_number(data: bytearray, rng: random.Random) -> None:
    layout = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(layout)
    at = place(data, rng)
    data[at : at + size] = struct.pack(layout, rng.choice(NUMBERS) % 256**size)


def cut_end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    at = place(data, rng)
    del data[at : at + rng.randrange(1, 64)]


def repeat(data: bytearray, rng: random.Random) -> None:
    at = place(data, rng)
    part = data[at : at + rng.randrange(1, 64)]
    data[at:at] = part * rng.choice((1, 2, 20))


def exchange(data: bytearray, rng: random.Random) -> None:
    first, second, size = place(data, rng), place(data, rng), rng.randrange(1, 32)
    one, two = data[first : first + size], data[second : second + size]
    data[first : first + size], data[second : second + size] = two, one


def splice(data: bytearray, rng: random.Random) -> None:
    _, other = rng.choice(seeds())
    at = place(data, rng)
    start = rng.randrange(len(other))
    data[at : at + 64] = other[start : start + 64]


MUTATIONS = (
    flip_bit,
    random_byte,
    extreme_number,
    extreme_number,
    cut_end,
    cut_out,
    repeat,
    exchange,
    splice,
)


def versions() -> dict[str, str]:
    import importlib.metadata

    names = ("opencv-python-headless", "pillow", "PyTurboJPEG", "tifffile", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
