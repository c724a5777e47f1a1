"""Read every published config of three packages statically and by running it, and compare.

The wheels of mmsegmentation 0.20.2, mmcls 0.17.0 and mmdet 2.18.1 carry 1,403 config files under
``.mim/configs``. For each file the result of reading it without executing it must be the result of
executing it (``trust=True``): the same values, of the same types, in the same order. A file that fails must
fail in both ways with the same exception. What is read is also dumped as Python and read again, and, where
mmcv is installed, compared with what that reads.

    python benchmarks/config_corpus.py                    # downloads the wheels with pip
    python benchmarks/config_corpus.py FOLDER_OR_WHEEL…   # uses those

Exits 1 if any file differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cv.utils import Config

try:
    import mmcv
except ImportError:
    mmcv = None

WHEELS = ("mmsegmentation==0.20.2", "mmcls==0.17.0", "mmdet==2.18.1")


def main() -> int:
    """Compare all files and print a summary per package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sources", nargs="*", type=Path, help="wheels, or folders that hold wheels or configs"
    )
    sources = parser.parse_args().sources
    with tempfile.TemporaryDirectory() as scratch:
        if not sources:
            sources = [Path(scratch) / "wheels"]
            download(sources[0])
        results = [compare(name, files) for name, files in collect(sources, Path(scratch))]
    differ = sum(results)
    print(f"{differ} files differ")
    return 1 if differ or not results else 0


def download(folder: Path) -> None:
    """Fetch the wheels from the package index, without what they depend on."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        *WHEELS,
    ]
    subprocess.run(command, check=True)


def collect(sources: list[Path], scratch: Path) -> Iterator[tuple[str, list[Path]]]:
    """``(name, config files)`` of each wheel; a folder without wheels is taken as configs."""
    for source in sources:
        wheels = sorted(source.glob("*.whl")) if source.is_dir() else [source]
        if not wheels:
            yield str(source), sorted(source.rglob("*.py"))
        for wheel in wheels:
            folder = scratch / wheel.stem
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if "/.mim/configs/" in name])
            yield wheel.name, sorted(folder.rglob("*.py"))


def compare(name: str, files: list[Path]) -> int:
    """Print how the files of one package compare; gives how many differ."""
    failing, different = [], []
    seconds = {False: 0.0, True: 0.0}
    for file in files:
        outcome = {}
        for trust in (False, True):
            start = time.perf_counter()
            outcome[trust] = read(file, trust)
            seconds[trust] += time.perf_counter() - start
        if outcome[False] != outcome[True] or not survives_dump(file) or not agrees_with_mmcv(file):
            different.append(file)
        elif outcome[True].startswith("!"):
            failing.append((file, outcome[True]))
    print(
        f"{name}: {len(files)} files, {len(files) - len(different) - len(failing)} equal, "
        f"{len(failing)} fail alike, {len(different)} differ; "
        f"read in {seconds[False]:.2f} s, run in {seconds[True]:.2f} s"
    )
    for file, error in failing:
        print(f"  fails alike: {file.name}: {error[1:].splitlines()[0]}")
    for file in different:
        print(f"  DIFFERS: {file}")
    return len(different)


def read(file: Path, trust: bool) -> str:
    """The content as text (``repr`` tells types and order apart), or ``!`` and the error."""
    try:
        return repr(Config._file2dict(file, trust=trust))
    except Exception as error:
        return f"!{type(error).__name__}: {error}"


def survives_dump(file: Path) -> bool:
    """Whether what is dumped as Python reads back as the same; true for a file that cannot be read."""
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except Exception:
        return True
    return repr(Config.fromstring(cfg.pretty_text, "py")._cfg_dict) == repr(cfg._cfg_dict)


def agrees_with_mmcv(file: Path) -> bool:
    """Whether mmcv, if it is there, reads the same; true for a file that either cannot read."""
    if mmcv is None:
        return True
    try:
        theirs = mmcv.Config.fromfile(str(file), import_custom_modules=False)
        ours = Config.fromfile(file, import_custom_modules=False)
    except Exception:
        return True
    return repr(theirs._cfg_dict.to_dict()) == repr(ours._cfg_dict.to_dict())


if __name__ == "__main__":
    sys.exit(main())
