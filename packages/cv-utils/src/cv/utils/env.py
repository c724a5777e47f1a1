"""What this environment consists of, for bug reports."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

__all__ = ["collect_env"]

# Distributions contribute lines by an entry point of this group: a callable without arguments that returns
# a dict[str, str].
ENTRY_POINT_GROUP = "cv.utils.collect_env"
DISTRIBUTIONS = ("cv-fileio", "cv-utils", "cv-image", "cv-video", "cv-cnn", "cv-runner", "cv-ops")


def collect_env() -> dict[str, Any]:
    """Collect what matters about the running environment.

    Nothing in it raises: what is missing or broken is reported as that. GPUs are asked for their names,
    which initialises CUDA.

    Returns:
        A dict with these keys:

        - ``sys.platform``, ``Python``: the platform; the version of Python.
        - ``CUDA available`` (bool), ``GPU 0,1 …`` (the name of these devices), ``CUDA_HOME`` and ``NVCC``
          (the toolkit, with CUDA only).
        - ``GCC``: its version, "n/a" if there is none.
        - ``PyTorch``, ``PyTorch compiling details``, ``TorchVision``, ``OpenCV``: versions, "n/a" if not
          installed.
        - ``MMCV``: the cv distributions that stand in its place, and their versions.
        - ``MMCV Compiler``, ``MMCV CUDA Compiler``: what the operators were built with, "n/a" if cv-ops is
          not installed.
        - what installed distributions add by entry points of the group ``cv.utils.collect_env``.
    """
    from importlib.metadata import entry_points

    env: dict[str, Any] = {"sys.platform": sys.platform, "Python": sys.version.replace("\n", "")}
    env.update(_torch_lines())
    env["GCC"] = _first_line(["gcc", "--version"])
    env["TorchVision"] = _version_of_module("torchvision")
    env["OpenCV"] = _version_of_module("cv2")
    env["MMCV"] = ", ".join(f"{name} {release}" for name, release in _installed().items())
    env["MMCV Compiler"] = env["MMCV CUDA Compiler"] = "n/a"
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            env.update(entry_point.load()())
        except Exception as error:
            source = entry_point.dist.name if entry_point.dist is not None else entry_point.value
            env[source] = f"broken: {type(error).__name__}: {error}"
    return env


def _torch_lines() -> dict[str, Any]:
    torch = _import("torch")
    if isinstance(torch, str):
        return {"CUDA available": False, "PyTorch": torch, "PyTorch compiling details": torch}
    lines: dict[str, Any] = {"CUDA available": torch.cuda.is_available()}
    if lines["CUDA available"]:
        devices: dict[str, list[str]] = {}
        for index in range(torch.cuda.device_count()):
            devices.setdefault(torch.cuda.get_device_name(index), []).append(str(index))
        lines.update({f"GPU {','.join(indices)}": name for name, indices in devices.items()})
        lines.update(_cuda_toolkit())
    lines["PyTorch"] = str(torch.__version__)
    lines["PyTorch compiling details"] = torch.__config__.show()
    return lines


def _cuda_toolkit() -> dict[str, str]:
    from cv.utils.parrots_wrapper import _get_cuda_home

    home = _get_cuda_home()
    if home is None:
        return {"CUDA_HOME": "n/a", "NVCC": "n/a"}
    lines = _run([os.path.join(home, "bin", "nvcc"), "-V"])  # noqa: PTH118
    build = re.search(r"^Build .*$|release [\d.]+.*$", lines, re.MULTILINE)
    return {"CUDA_HOME": home, "NVCC": build[0] if build else "n/a"}


def _installed() -> dict[str, str]:
    """The versions of the cv distributions that are there."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _version_of_module(name: str) -> str:
    module = _import(name)
    return module if isinstance(module, str) else str(getattr(module, "__version__", "unknown"))


def _import(name: str) -> Any:
    """The module, or a str that says why there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        return "n/a" if error.name == name else f"broken: {error}"
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        return f"broken: {type(error).__name__}: {error}"


def _first_line(cmd: list[str]) -> str:
    return _run(cmd).partition("\n")[0].strip() or "n/a"


def _run(cmd: list[str]) -> str:
    """The output of a command, nothing if it cannot be run."""
    import subprocess

    try:
        done = subprocess.run(cmd, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
