"""Builds the CUDA kernels of cv-ops with the emulator, then runs the tests through them, on the CPU.

    emulate.py BUILD [arguments of pytest]          default: the tests of packages/cv-ops
    emulate.py BUILD benchmarks/fuzz_ops.py --seconds 120
    emulate.py --build-only BUILD

``--sanitize`` builds with AddressSanitizer and UndefinedBehaviorSanitizer instead of the detector of races.
``nox -s emulate`` calls it. What the emulator is, and what it cannot show, is in emulator/README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
EMULATOR = PACKAGE / "tools" / "emulator"
sys.path.insert(0, str(EMULATOR))

from translate import translate_tree  # noqa: E402

# torch's C functions that only a CUDA build has, or whose result is poisoned: torch_cuda.cpp has them.
REPLACED = {
    "aoti_torch_get_current_cuda_stream": "simt_get_current_cuda_stream",
    "aoti_torch_create_device_guard": "simt_create_device_guard",
    "aoti_torch_delete_device_guard": "simt_delete_device_guard",
    "torch_c10_cuda_check_msg": "simt_cuda_check_msg",
    "torch_c10_cuda_free_error_msg": "simt_cuda_free_error_msg",
    "aoti_torch_empty_strided": "simt_empty_strided",
    "torch_call_dispatcher": "simt_call_dispatcher",
}
UNDEFINED = "alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--order", default="ascending", help="ascending, descending or random:SEED")
    parser.add_argument("build", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    library = build(options.build.resolve(), sanitize=options.sanitize)
    return 0 if options.build_only else run(library, options.arguments, options.order, options.sanitize)


def build(folder: Path, *, sanitize: bool = False, kernels: Path | None = None) -> Path:
    """The library with all kernels, in ``folder``; only what changed is compiled.

    Args:
        folder: Where to build.
        sanitize: With AddressSanitizer and UndefinedBehaviorSanitizer.
        kernels: A folder of CUDA files to build instead of those of cv-ops, without torch.
    """
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:
        raise SystemExit("emulate.py needs ninja (pip install ninja)")
    folder.mkdir(parents=True, exist_ok=True)
    translate_tree(kernels or PACKAGE / "csrc", folder / "csrc")
    library = folder / "libcv_ops_cuda.so"
    text = rules(folder / "csrc", library, sanitize=sanitize, with_torch=kernels is None)
    (folder / "build.ninja").write_text(text, encoding="utf-8")
    subprocess.run([ninja, "-C", str(folder), "-j", str(min(4, os.cpu_count() or 1)), "--quiet"], check=True)
    return library


def rules(source: Path, library: Path, *, sanitize: bool, with_torch: bool) -> str:
    """The text of build.ninja: one object per file, and the library."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit("emulate.py needs torch, for its headers")
    torch_root = Path(spec.origin).parent
    compiler = "ccache g++" if shutil.which("ccache") else "g++"
    common = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wno-psabi"]
    common += [f"-I{EMULATOR}/include", f"-isystem {torch_root / 'include'}", "-DUSE_CUDA"]
    common += ["-DTORCH_TARGET_VERSION=0x020a000000000000ULL", "-DCV_OPS_TORCH_TARGET_TEXT='\"2.10\"'"]
    kernels = [
        "-x c++",
        "-DSIMT___CUDACC__",
        "-DSIMT___CUDA_ARCH__=900",
        "-Wno-unused-function -Wno-unknown-pragmas",
    ]
    kernels += ["-D__CUDACC_VER_MAJOR__=emulator", "-D__CUDACC_VER_MINOR__=1"]
    kernels += ["-DCV_OPS_CUDA_ARCHITECTURES='\"emulated on the CPU\"'"]
    kernels += [f"-D{name}={ours}" for name, ours in REPLACED.items()]
    link = ["-shared", "-Wl,-Bsymbolic", f"-Wl,--version-script,{PACKAGE / 'csrc' / 'exports.map'}"]
    if with_torch:
        link += ["-Wl,--no-as-needed", f"-L{torch_root / 'lib'}", "-ltorch_cpu"]
    if sanitize:
        common += ["-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize=vptr"]
        link += ["-fsanitize=address,undefined"]
    else:
        common += ["-DSIMT_RACES"]
        kernels += ["-fsanitize=thread", "--param tsan-instrument-func-entry-exit=0"]
        kernels += [f"-fsanitize={UNDEFINED}"]
    lines = [
        "rule emulator",
        f"  command = {compiler} -MD -MF $out.d -O2 {' '.join(common)} -c $in -o $out",
        "  depfile = $out.d",
        "rule kernels",
        f"  command = {compiler} -MD -MF $out.d -O1 {' '.join(common + kernels)} -c $in -o $out",
        "  depfile = $out.d",
        "rule library",
        f"  command = g++ $in {' '.join(link)} -o $out",
    ]
    objects = []
    for path in sorted(EMULATOR.glob("*.cpp")):
        if not with_torch and path.stem.startswith("torch_"):
            continue
        objects.append(f"emulator/{path.stem}.o")
        lines.append(f"build {objects[-1]}: emulator {path}")
    for path in sorted(source.rglob("*.cu")):
        objects.append(f"objects/{path.stem}.o")
        lines.append(f"build {objects[-1]}: kernels {path}")
    lines.append(f"build {library.name}: library {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def run(library: Path, arguments: list[str], order: str, sanitize: bool) -> int:
    """The tests (or a script) with the CUDA kernels of ``library`` in place of those of the CPU."""
    paths = [str(ROOT / "testing"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CV_OPS_EMULATOR_LIBRARY": str(library),
        "CV_OPS_EMULATOR_ORDER": order,
    }
    if sanitize:
        environment |= sanitizer_environment()
    if arguments and Path(arguments[0]).name.startswith("fuzz_"):
        command = [sys.executable, "-m", "cv_testing.emulator", *arguments]
    else:
        command = [sys.executable, "-m", "pytest", "-p", "cv_testing.emulator"]
        command += arguments or [str(PACKAGE / "tests")]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def sanitizer_environment() -> dict[str, str]:
    """As in ``nox -s sanitize``; fibers cannot have stacks that the sanitizer moves."""
    runtime = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return {
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


if __name__ == "__main__":
    sys.exit(main())
