"""Every command a person runs here: ``nox -s NAME``; ``nox`` alone checks the code.

The sessions share one environment, ``.nox/dev``, which holds every package as an editable install: made on
the first call, brought up to date on each later one. ``isolated`` makes fresh ones beside it, ``loggers`` one
of its own that it keeps.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nox

nox.options.sessions = ["lint", "types", "layers", "tests", "loggers"]
nox.options.default_venv_backend = "none"  # environments are made by the helpers below, to be shared

ROOT = Path(__file__).parent
DEV = ROOT / ".nox" / "dev"
WHEELS = ROOT / ".nox" / "wheels"
CONSTRAINTS = ROOT / "constraints" / "dev.txt"
# In the order of their dependencies.
LEAVES = {
    "cv-fileio": ["fileio"],
    "cv-utils": ["utils"],
    "cv-image": ["image", "arraymisc", "visualization"],
    "cv-video": ["video"],
    "cv-cnn": ["cnn"],
    "cv-runner": ["runner", "parallel", "engine"],
    "cv-ops": ["ops"],
}
DEMO_TOOLS = ["tensorboard", "scikit-learn", "scikit-image", "matplotlib"]
BUILD_TOOLS = ["hatchling", "scikit-build-core", "editables", "cmake", "ninja", "build"]


@nox.session
def tests(session: nox.Session) -> None:
    """The tests of all packages and of the house, in one environment."""
    run = develop(session, *test_requirements(*LEAVES), *DEMO_TOOLS)
    run("-m", "pytest", *session.posargs)


@nox.session
def loggers(session: nox.Session) -> None:
    """The loggers of cv-runner against the real packages, half a gigabyte; a test that is skipped fails."""
    run = environment(session, ROOT / ".nox" / "loggers")
    packages = [package for package in LEAVES if package in {"cv-runner", *own_dependencies("cv-runner")}]
    external = [line for package in packages for line in dependencies(package) if not line.startswith("cv-")]
    clients = pyproject("cv-runner")["dependency-groups"]["loggers"]
    install(run, *external, *test_requirements("cv-runner"), *clients, "hatchling", "editables")
    install_editable(run, *packages)
    tests = ["packages/cv-runner/tests/test_loggers.py", *session.posargs]
    run("-m", "pytest", "-p", "cv_testing.no_skips", *tests, PYTHONPATH="testing")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, over the whole namespace."""
    run = develop(session, "mypy", "types-PyYAML")
    packages = [f"cv.{leaf}" for leaves in LEAVES.values() for leaf in leaves]
    run("-m", "mypy", *(argument for package in packages for argument in ("-p", package)))


@nox.session
def layers(session: nox.Session) -> None:
    """import-linter: who may import whom."""
    run = develop(session, "import-linter")
    run("-c", "from importlinter.cli import lint_imports_command as main; main()")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: the rules and the formatting."""
    run = environment(session, ROOT / ".nox" / "lint")
    install(run, "ruff")
    run("-m", "ruff", "check")
    run("-m", "ruff", "format", "--check")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: train a detector of handwritten digits, evaluate it, use it on a video."""
    run = develop(session, *DEMO_TOOLS)
    run("examples/digits/main.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks (all, or those whose names are given): ``nox -s bench -- nms roi_align``."""
    run = develop(session, *test_requirements(*LEAVES))
    wanted = session.posargs or [""]
    for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        if any(name in script.stem for name in wanted):
            run(str(script.relative_to(ROOT)))


@nox.session
def conformance(session: nox.Session) -> None:
    """Run the operator tests in every dtype and write what they proved to ``docs/conformance.md``.

    Names of test files may be given; the rows of other operators stay as they are.
    """
    run = develop(session, *test_requirements("cv-ops"))
    data, page = "docs/conformance.json", "docs/conformance.md"
    plugin = ["-p", "cv_testing.conformance", "--conformance", data]
    files = session.posargs or ["packages/cv-ops/tests"]
    run("-m", "pytest", "-q", *plugin, *files, PYTHONPATH="testing")
    run("-m", "cv_testing.conformance", data, page, PYTHONPATH="testing")


@nox.session
def build(session: nox.Session) -> None:
    """A wheel and an sdist of each package, in ``dist/``."""
    run = develop(session)
    for package in LEAVES:
        run("-m", "build", "--no-isolation", "--outdir", "dist", f"packages/{package}")


@nox.session
def isolated(session: nox.Session) -> None:
    """Each package from its wheel, alone, with only what it declares; then all wheels together.

    Names of packages may be given: ``nox -s isolated -- cv-image``.
    """
    make_wheels(develop(session))
    for package in session.posargs or LEAVES:
        run = environment(session, ROOT / ".nox" / "isolated" / package, fresh=True)
        install_wheels(run, package, *test_requirements(package))
        run("-m", "pytest", "-p", "no:cacheprovider", f"packages/{package}/tests")
    if not session.posargs:
        run = environment(session, ROOT / ".nox" / "isolated" / "house", fresh=True)
        install_wheels(run, *LEAVES, *test_requirements(*LEAVES), *DEMO_TOOLS, *BUILD_TOOLS)
        run("-m", "pytest", "-p", "no:cacheprovider", "tests")
        # One editable among wheels: the namespace must still be whole.
        install_editable(run, "cv-utils")
        run("-m", "pytest", "-p", "no:cacheprovider", "tests/test_imports.py")


@nox.session
def cuda(session: nox.Session) -> None:
    """Compile the CUDA half of cv-ops for one architecture; needs nvcc, not a GPU."""
    develop(session)
    folder = str(ROOT / ".nox" / "cuda")
    cmake = str(DEV / "bin" / "cmake")
    options = ["-G", "Ninja", "-DCV_OPS_CUDA=ON", "-DCV_OPS_WERROR=ON", "-DCMAKE_CUDA_ARCHITECTURES=90"]
    tools = [f"-DPython_EXECUTABLE={DEV / 'bin' / 'python'}", f"-DCMAKE_MAKE_PROGRAM={DEV / 'bin' / 'ninja'}"]
    session.run(cmake, "-S", "packages/cv-ops", "-B", folder, *options, *tools, external=True)
    session.run(cmake, "--build", folder, "--parallel", str(min(4, os.cpu_count() or 1)), external=True)


@nox.session
def emulate(session: nox.Session) -> None:
    """The operator tests on the CUDA kernels, which an emulator runs on the CPU, in two orders of threads.

    Arguments go to pytest, or name the fuzz script, as for ``sanitize``. Tracing (compile, export) is left
    out: it does not ask for a kernel. Everything takes the better part of an hour; some files take a minute.
    """
    run = develop(session, *test_requirements("cv-ops"))
    arguments = session.posargs or [
        *("packages/cv-ops/tests", "--deselect", "packages/cv-ops/tests/test_emulator.py"),
        *("-k", "not compile and not export"),
    ]
    for order in ("ascending", "random:1"):
        run("packages/cv-ops/tools/emulate.py", "--order", order, str(ROOT / ".nox" / "emulate"), *arguments)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The tests of cv-ops on a CPU half built with AddressSanitizer and UndefinedBehaviorSanitizer (GCC).

    Arguments go to pytest: ``nox -s sanitize -- packages/cv-ops/tests/test_nms.py``. Or they name the fuzz
    script: ``nox -s sanitize -- benchmarks/fuzz_ops.py --seconds 600``.
    """
    develop(session, *test_requirements("cv-ops"))
    # The C++ library too: the sanitizer must find it, or the first exception that is thrown ends the process.
    runtime = [
        str(session.run("gcc", f"-print-file-name={name}", silent=True, external=True)).strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not Path(runtime[0]).is_absolute():
        session.error("gcc has no libasan.so: install the sanitizer libraries of GCC (libasan)")
    folder, stage = ROOT / ".nox" / "sanitize", ROOT / ".nox" / "sanitize" / "stage"
    cmake, python = str(DEV / "bin" / "cmake"), DEV / "bin" / "python"
    options = ["-G", "Ninja", "-DCV_OPS_CUDA=OFF", "-DCV_OPS_SANITIZE=address,undefined"]
    # Compiling takes very long otherwise: without the attribute that isa.h gives its functions, every loop is
    # compiled once instead of for each instruction set. It is the same source that is checked.
    flags = "-O1 -Dflatten=noinline"
    options += ["-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS={flags}", "-DCMAKE_CXX_COMPILER=g++"]
    tools = [f"-DPython_EXECUTABLE={python}", f"-DCMAKE_MAKE_PROGRAM={DEV / 'bin' / 'ninja'}"]
    session.run(cmake, "-S", "packages/cv-ops", "-B", str(folder), *options, *tools, external=True)
    session.run(cmake, "--build", str(folder), "--parallel", str(min(4, os.cpu_count() or 1)), external=True)
    # A copy of the package with this library in it, which sanitized.py puts before the installed one.
    shutil.rmtree(stage, ignore_errors=True)
    no_library = shutil.ignore_patterns("__pycache__", "lib")
    shutil.copytree("packages/cv-ops/src/cv", stage / "cv", ignore=no_library)
    session.run(cmake, "--install", str(folder), "--prefix", str(stage), external=True)
    Python(session, DEV)(
        *("packages/cv-ops/tools/sanitized.py", str(stage)),
        # What the binary needs from the system differs here, and only here.
        *(session.posargs or ["packages/cv-ops/tests", "--deselect", "packages/cv-ops/tests/test_wheel.py"]),
        LD_PRELOAD=" ".join(runtime),
        # Leaks are torch's and Python's own, at exit; torch allocates and frees through different functions.
        ASAN_OPTIONS="detect_leaks=0:alloc_dealloc_mismatch=0:strict_init_order=1",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
    )


# --- helpers -----------------------------------------------------------------------------------------------


class Python:
    """The interpreter of one environment, run within a session: ``run("-m", "pytest")``."""

    def __init__(self, session: nox.Session, folder: Path) -> None:
        self.session = session
        self.path = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")

    def __call__(self, *arguments: str, silent: bool = False, **env: str) -> str:
        return str(self.session.run(self.path, *arguments, env=env, silent=silent, external=True))


def environment(session: nox.Session, folder: Path, *, fresh: bool = False) -> Python:
    """A virtual environment in ``folder``, made if it is not there or if a ``fresh`` one is wanted."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "pyvenv.cfg").exists():
        session.run(sys.executable, "-m", "venv", str(folder), external=True)
    return Python(session, folder)


def develop(session: nox.Session, *requirements: str) -> Python:
    """The shared environment: every package editable, with what they and ``requirements`` need."""
    run = environment(session, DEV)
    external = [line for package in LEAVES for line in dependencies(package) if not line.startswith("cv-")]
    install(run, *sorted({*external, *BUILD_TOOLS, *requirements}))
    if not developed:
        install_editable(run, *LEAVES)
        developed.append(DEV)
    return run


developed: list[Path] = []  # environments that this call of nox has brought up to date


def install(run: Python, *requirements: str) -> None:
    """pip install, in the versions of the constraints file."""
    run("-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), *requirements)


def install_editable(run: Python, *packages: str) -> None:
    """Install packages of ours in place, without asking the index for anything."""
    places = [argument for package in packages for argument in ("--editable", f"packages/{package}")]
    run(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *places, **build_settings(run)
    )


def make_wheels(run: Python) -> None:
    """Build every package's wheel into ``.nox/wheels``, replacing what lies there."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    places = [f"packages/{package}" for package in LEAVES]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(WHEELS)]
    run("-m", "pip", "wheel", *options, *places, **build_settings(run))


def install_wheels(run: Python, *requirements: str) -> None:
    """Install our wheels (never a published namesake of them) with what they declare, and other packages."""
    wheels = {wheel.name.split("-")[0].replace("_", "-"): str(wheel) for wheel in WHEELS.glob("*.whl")}
    ours = {name for line in requirements if line in LEAVES for name in (line, *own_dependencies(line))}
    install(
        run, *(wheels[name] for name in sorted(ours)), *(line for line in requirements if line not in LEAVES)
    )


def pyproject(package: str) -> dict[str, Any]:
    """A package's ``pyproject.toml``."""
    return nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")


def dependencies(package: str) -> list[str]:
    """What a package declares that it needs at run time."""
    return list(pyproject(package)["project"]["dependencies"])


def own_dependencies(package: str) -> set[str]:
    """The packages of ours that ``package`` needs, directly or through another."""
    direct = {line.split(">")[0] for line in dependencies(package) if line.startswith("cv-")}
    return direct.union(*(own_dependencies(name) for name in direct))


def test_requirements(*packages: str) -> list[str]:
    """What the tests of ``packages`` need beside the packages themselves."""
    return sorted({line for name in packages for line in pyproject(name)["dependency-groups"]["test"]})


def build_settings(run: Python) -> dict[str, str]:
    """Whether to compile the CUDA half of cv-ops: only where torch could use it, for it takes minutes."""
    if "CV_OPS_CUDA" in os.environ:
        return {}
    has_cuda = run("-c", "import torch; print(torch.version.cuda is not None)", silent=True).strip()
    return {"CV_OPS_CUDA": "AUTO" if has_cuda == "True" else "OFF"}
