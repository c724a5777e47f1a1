"""One binary for every Python and every torch from 2.10 on: the properties that make it so."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import cv.ops
from cv.ops import _load, info

SYMBOLS = Path(__file__).parents[1] / "tools" / "torch_2.10_symbols.txt"

# Everything a binary may ask the loader for. No libpython, no libcudart, no libgomp, no libc10.
SYSTEM = {
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libc.so.6",
    "libm.so.6",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}
SYSTEM |= {"libdl.so.2", "libpthread.so.0", "librt.so.1"}  # part of libc.so.6 since glibc 2.34
EXPECTED_TORCH = {"cv_ops_cpu": {"libtorch_cpu.so"}, "cv_ops_cuda": {"libtorch_cpu.so", "libtorch_cuda.so"}}


def libraries() -> list[tuple[str, Path]]:
    """Those installed; the CUDA one also where torch has no CUDA and does not load it."""
    found = [(stem, _load._find(stem)) for stem in EXPECTED_TORCH]
    return [(stem, path) for stem, path in found if path is not None]


def output(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


needs_binutils = pytest.mark.skipif(
    shutil.which("readelf") is None or shutil.which("nm") is None, reason="needs readelf and nm (binutils)"
)


@needs_binutils
@pytest.mark.parametrize(("stem", "path"), libraries(), ids=lambda v: v if isinstance(v, str) else "")
class TestBinary:
    def test_needed_libraries(self, stem: str, path: Path) -> None:
        dynamic = output("readelf", "--dynamic", "--wide", path)
        needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
        # DT_NEEDED on libtorch, by SONAME alone, is what binds us to the one in the process.
        assert needed & {"libtorch_cpu.so", "libtorch_cuda.so"} == EXPECTED_TORCH[stem]
        assert needed - EXPECTED_TORCH[stem] <= SYSTEM
        assert "RPATH" not in dynamic
        assert "RUNPATH" not in dynamic

    def test_torch_symbols_exist_in_the_oldest_torch(self, stem: str, path: Path) -> None:
        known = {line for line in SYMBOLS.read_text().splitlines() if not line.startswith("#")}
        used = {s for s in undefined(path) if s.startswith(("torch_", "aoti_torch_"))}
        assert used, "no torch symbol at all: this is not the library that was meant"
        assert used <= known, f"not in torch 2.10: {sorted(used - known)}"

    def test_no_other_torch_and_no_python_symbols(self, stem: str, path: Path) -> None:
        for symbol in undefined(path):
            assert not symbol.startswith(("Py", "_Py")), symbol
            # Mangled C++ names of ATen, c10 and torch: only a C ABI holds over versions and compilers.
            assert not re.match(r"_ZN?K?(2at|3c10|5torch|\d*caffe)", symbol), symbol

    def test_only_our_c_functions_are_exported(self, stem: str, path: Path) -> None:
        exported = {
            line.split()[0]
            for line in output("nm", "-D", "--defined-only", "--format=posix", path).splitlines()
        }
        assert {s for s in exported if not s.startswith("cv_ops_")} == set()

    def test_no_path_of_the_building_machine(self, stem: str, path: Path) -> None:
        source = str(Path(__file__).parents[1] / "csrc")
        assert source.encode() not in path.read_bytes()


def undefined(path: Path) -> set[str]:
    lines = output("nm", "-D", "--undefined-only", "--format=posix", path).splitlines()
    return {line.split()[0].split("@")[0] for line in lines if line}


def test_the_wheel_is_for_any_python_3() -> None:
    wheel = metadata.distribution("cv-ops").read_text("WHEEL")
    assert wheel is not None
    tags = re.findall(r"^Tag: (.+)$", wheel, re.MULTILINE)
    assert tags
    assert all(tag.startswith("py3-none-") and not tag.endswith("-any") for tag in tags), tags


def test_build_information() -> None:
    assert re.fullmatch(r"(GCC|Clang) \d+\.\d+", cv.ops.get_compiler_version())
    lines = info.collect_env()
    assert lines["cv-ops compiler"] == cv.ops.get_compiler_version()
    assert lines["cv-ops needs torch"] == ">= 2.10"
    assert lines["cv-ops CPU instruction set"] in _load.available_cpu_isas()
    if cv.ops.has_cuda:
        assert re.fullmatch(r"\d+\.\d+", cv.ops.get_compiling_cuda_version())
        assert cv.ops.cuda_error is None
    else:
        assert cv.ops.get_compiling_cuda_version() == "not available"
        assert cv.ops.cuda_error
        assert cv.ops.cuda_error in lines["cv-ops without CUDA because"]


def test_collect_env_finds_us_by_entry_point() -> None:
    (entry,) = metadata.entry_points(group="cv.utils.collect_env", name="cv-ops")
    assert entry.load() is info.collect_env
