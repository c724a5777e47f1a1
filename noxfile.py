"""Every command a person runs here: ``nox -s NAME``; ``nox`` alone checks the code.

All sessions but ``lint`` share one environment, ``.nox/dev``, which holds every package as an editable
install: made on the first call, brought up to date on each later one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "layers", "tests"]

ROOT = Path(__file__).parent
DEV = ".nox/dev"
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
BUILD_TOOLS = ["hatchling", "scikit-build-core", "editables", "cmake", "ninja", "build"]


@nox.session(venv_location=DEV, reuse_venv=True)
def tests(session: nox.Session) -> None:
    """The tests of all packages and of the house, in one environment."""
    develop(session, *test_requirements(*LEAVES))
    session.run("pytest", *session.posargs)


@nox.session(venv_location=DEV, reuse_venv=True)
def types(session: nox.Session) -> None:
    """mypy, strict, over the whole namespace."""
    develop(session, "mypy", "types-PyYAML")
    packages = [f"cv.{leaf}" for leaves in LEAVES.values() for leaf in leaves]
    session.run("mypy", *(argument for package in packages for argument in ("-p", package)))


@nox.session(venv_location=DEV, reuse_venv=True)
def layers(session: nox.Session) -> None:
    """import-linter: who may import whom."""
    develop(session, "import-linter")
    session.run("lint-imports")


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """ruff: the rules and the formatting."""
    session.install("-c", str(CONSTRAINTS), "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(venv_location=DEV, reuse_venv=True)
def demo(session: nox.Session) -> None:
    """The main job: train a detector of handwritten digits, evaluate it, use it on a video."""
    develop(session, "tensorboard", "scikit-learn", "scikit-image", "matplotlib")
    session.run("python", "examples/digits/main.py", *session.posargs)


@nox.session(venv_location=DEV, reuse_venv=True)
def bench(session: nox.Session) -> None:
    """The benchmarks (all, or those whose names are given): ``nox -s bench -- nms roi_align``."""
    develop(session, *test_requirements(*LEAVES))
    wanted = session.posargs or [""]
    for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        if any(name in script.stem for name in wanted):
            session.run("python", str(script.relative_to(ROOT)))


@nox.session(venv_location=DEV, reuse_venv=True)
def build(session: nox.Session) -> None:
    """A wheel and an sdist of each package, in ``dist/``."""
    develop(session)
    for package in LEAVES:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", f"packages/{package}")


@nox.session(venv_location=DEV, reuse_venv=True)
def isolated(session: nox.Session) -> None:
    """Each package from its wheel, alone, with only what it declares; then all wheels together.

    Names of packages may be given: ``nox -s isolated -- cv-image``.
    """
    develop(session)
    make_wheels(session)
    for package in session.posargs or LEAVES:
        python = fresh_environment(session, package)
        install_wheels(session, python, package, *test_requirements(package))
        session.run(
            python, "-m", "pytest", "-p", "no:cacheprovider", f"packages/{package}/tests", external=True
        )
    if not session.posargs:
        python = fresh_environment(session, "house")
        install_wheels(session, python, *LEAVES, *test_requirements(*LEAVES))
        pytest_with(session, python, "tests")
        # One editable among wheels: the namespace must still be whole.
        install_editable(session, "cv-utils", python=python)
        pytest_with(session, python, "tests/test_imports.py")


@nox.session(venv_location=DEV, reuse_venv=True)
def cuda(session: nox.Session) -> None:
    """Compile the CUDA half of cv-ops for one architecture; needs nvcc, not a GPU."""
    develop(session)
    folder = ROOT / ".nox" / "cuda"
    session.run("cmake", "-S", "packages/cv-ops", "-B", str(folder), "-G", "Ninja", "-DCV_OPS_CUDA=ON",
                f"-DPython_EXECUTABLE={session.bin}/python", "-DCMAKE_CUDA_ARCHITECTURES=90")  # fmt: skip
    session.run("cmake", "--build", str(folder), "--parallel", str(min(4, os.cpu_count() or 1)))


# --- helpers -----------------------------------------------------------------------------------------------


def develop(session: nox.Session, *requirements: str) -> None:
    """Every package editable in the session's environment, with what they and ``requirements`` need."""
    external = [line for package in LEAVES for line in dependencies(package) if not line.startswith("cv-")]
    session.install("-c", str(CONSTRAINTS), *sorted({*external, *BUILD_TOOLS, *requirements}))
    for package in LEAVES:
        install_editable(session, package)


def install_editable(session: nox.Session, package: str, *, python: str = "python") -> None:
    """Install one package of ours in place, without asking the index for anything."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--editable", f"packages/{package}"]
    env = {"CV_OPS_CUDA": os.environ.get("CV_OPS_CUDA", _cuda_of_torch(session, python))}
    session.run(python, "-m", "pip", "install", *options, env=env, external=python != "python")


def dependencies(package: str) -> list[str]:
    """What a package declares that it needs at run time."""
    return list(
        nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")["project"]["dependencies"]
    )


def test_requirements(*packages: str) -> list[str]:
    """What the tests of ``packages`` need beside the packages themselves."""
    return sorted({line for name in packages for line in pyproject(name)["dependency-groups"]["test"]})


def pyproject(package: str) -> dict[str, Any]:
    """A package's ``pyproject.toml``."""
    return nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")


def make_wheels(session: nox.Session) -> None:
    """Build every package's wheel into ``.nox/wheels``, replacing what lies there."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    env = {"CV_OPS_CUDA": os.environ.get("CV_OPS_CUDA", _cuda_of_torch(session, "python"))}
    for package in LEAVES:
        session.run("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(WHEELS),
                    f"packages/{package}", env=env, silent=True)  # fmt: skip


def pytest_with(session: nox.Session, python: str, tests: str) -> None:
    """Run tests with an environment's own Python."""
    session.run(python, "-m", "pytest", "-p", "no:cacheprovider", tests, external=True)


def fresh_environment(session: nox.Session, name: str) -> str:
    """Make an empty virtual environment and return its Python."""
    folder = ROOT / ".nox" / "isolated" / name
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "venv", str(folder))
    return str(folder / "bin" / "python")


def install_wheels(session: nox.Session, python: str, *requirements: str) -> None:
    """Install our wheels (never a published namesake of them) with what they declare."""
    found = {wheel.name.split("-")[0].replace("_", "-"): str(wheel) for wheel in WHEELS.glob("*.whl")}
    wanted = [found.get(line, line) for line in requirements]
    ours = [line for name in requirements if name in found for line in _own_dependencies(name)]
    session.run(python, "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS),
                *{*wanted, *(found[name] for name in ours)}, external=True)  # fmt: skip


def _own_dependencies(package: str) -> set[str]:
    """The packages of ours that ``package`` needs, directly or through another."""
    direct = {line.split(">")[0] for line in dependencies(package) if line.startswith("cv-")}
    return direct.union(*(_own_dependencies(name) for name in direct))


def _cuda_of_torch(session: nox.Session, python: str) -> str:
    """Whether to compile the CUDA half: AUTO where torch can use it, else OFF (it takes minutes)."""
    code = "import torch; print('AUTO' if torch.version.cuda else 'OFF')"
    answer = session.run(python, "-c", code, silent=True, external=python != "python", log=False)
    return str(answer).strip()
