"""Importing: every leaf is there, and no import does anything but import."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = ("fileio", "utils", "image", "arraymisc", "visualization", "video",
          "cnn", "runner", "parallel", "engine", "ops")  # fmt: skip
# What a fresh interpreter must not have loaded after the import of a leaf.
ABSENT = {
    "fileio": ("numpy", "cv2", "torch", "PIL"),
    "utils": ("numpy", "cv2", "torch", "PIL"),
    "image": ("torch", "cv.utils", "cv.fileio", "matplotlib"),
    "arraymisc": ("torch", "cv.utils", "cv.fileio", "matplotlib"),
    "visualization": ("torch", "cv.utils", "cv.fileio", "matplotlib"),
    "video": ("torch", "matplotlib"),
    "cnn": ("cv2", "cv.image", "cv.ops", "cv.runner", "torchvision"),
    "runner": ("cv2", "cv.image", "cv.ops", "tensorboard", "torch.utils.tensorboard", "torchvision"),
    "parallel": ("cv2", "cv.image", "cv.ops", "torchvision"),
    "engine": ("cv2", "cv.image", "cv.ops", "torchvision"),
    "ops": ("cv2", "cv.image", "cv.runner", "torchvision", "triton"),
}


def fresh_interpreter(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("leaf", LEAVES)
def test_import_loads_nothing_it_should_not_and_is_silent(leaf: str) -> None:
    code = (
        f"import sys, cv.{leaf}; bad = [m for m in {ABSENT[leaf]!r} if m in sys.modules]; assert not bad, bad"
    )
    done = fresh_interpreter(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


@pytest.mark.parametrize("leaf", LEAVES)
def test_import_leaves_no_trace_outside_itself(leaf: str) -> None:
    """No handler on the root logger, no warning filter, no CUDA context, no changed signal handler."""
    code = f"""
import logging, signal, sys, warnings
try:
    import torch  # its own traces are not ours
except ImportError:
    torch = None
{"import numpy, cv2" if leaf in ("image", "video", "visualization", "arraymisc") else ""}
before = list(logging.root.handlers), list(warnings.filters), signal.getsignal(signal.SIGINT)
import cv.{leaf}
assert (list(logging.root.handlers), list(warnings.filters), signal.getsignal(signal.SIGINT)) == before
assert torch is None or not torch.cuda.is_initialized()
"""
    done = fresh_interpreter(code)
    assert done.returncode == 0, done.stderr


def test_cv_is_a_namespace_without_a_file() -> None:
    """A ``cv/__init__.py``, ours or another distribution's, would hide all packages but one."""
    cv = importlib.import_module("cv")
    assert getattr(cv, "__file__", None) is None
    for folder in cv.__path__:
        assert not (Path(folder) / "__init__.py").exists()


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_is_typed_and_lists_its_names(leaf: str) -> None:
    module = importlib.import_module(f"cv.{leaf}")
    assert module.__file__ is not None
    assert (Path(module.__file__).parent / "py.typed").is_file()
    assert len(set(module.__all__)) == len(module.__all__), "a name is exported twice"
    for name in module.__all__:
        assert hasattr(module, name), f"cv.{leaf}.__all__ names {name!r}, which does not exist"
