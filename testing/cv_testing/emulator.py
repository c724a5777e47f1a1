"""The CUDA kernels of ``cv.ops`` on CPU tensors, run by the emulator in ``packages/cv-ops/tools/emulator``.

A pytest plugin (``-p cv_testing.emulator``) that ``packages/cv-ops/tools/emulate.py`` starts: it loads the
emulated library as if it were the CUDA half, and every operator that has a CUDA kernel then runs it for CPU
tensors. Tests need not know: what they ask of an operator on the CPU is asked of its CUDA kernels.

    with cpu_kernels(): ...          # the CPU's own kernels again, to compare with
    with thread_order("random:7"): ...

As a program: ``python -m cv_testing.emulator SCRIPT [arguments]`` runs a script in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch

#: What a result that is the same in every run is asked for.
ORDERS = ("ascending", "descending", "random:1")

_VARIABLE = "CV_OPS_EMULATOR_LIBRARY"
_library: ctypes.CDLL | None = None
_use_cuda_kernels = True
_overrides: Any = None  # a torch.library.Library: its registrations live as long as it does


def emulated() -> bool:
    """Whether operators on CPU tensors run their CUDA kernels."""
    return _library is not None and _use_cuda_kernels


@contextlib.contextmanager
def cpu_kernels() -> Iterator[None]:
    """The CPU's own kernels inside the block."""
    global _use_cuda_kernels
    before, _use_cuda_kernels = _use_cuda_kernels, False
    try:
        yield
    finally:
        _use_cuda_kernels = before


@contextlib.contextmanager
def thread_order(order: str) -> Iterator[None]:
    """Threads and blocks of a launch run in this order: ascending, descending or random:SEED."""
    if _library is None:
        raise RuntimeError("the CUDA kernels are not emulated in this process")
    before = os.environ.get("CV_OPS_EMULATOR_ORDER", "ascending")
    _library.cv_ops_emulator_order(order.encode())
    try:
        yield
    finally:
        _library.cv_ops_emulator_order(before.encode())


def start(library: Path) -> None:
    """Load the library in place of the CUDA half of cv.ops, and give its kernels the CPU tensors."""
    global _library
    if "cv.ops" in sys.modules:
        raise RuntimeError("cv.ops was imported before the emulator could take the place of its CUDA half")
    sys.meta_path.insert(0, _CudaHalf(library))  # type: ignore[arg-type]
    version = torch.version.cuda
    torch.version.cuda = "emulated"
    try:
        import cv.ops._load as load
    finally:
        torch.version.cuda = version
    if load._cuda_library is None:
        raise RuntimeError(f"the emulated library did not load: {load.cuda_error}")
    _library = load._cuda_library
    _divert()


class _CudaHalf:
    """Finds the emulated library under the name of the CUDA half."""

    def __init__(self, library: Path) -> None:
        self.library = library

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if name == "cv.ops.lib.libcv_ops_cuda":
            return ModuleSpec(name, None, origin=str(self.library))
        return None


def _divert() -> None:
    global _overrides
    _overrides = torch.library.Library("cv", "IMPL")  # type: ignore[no-untyped-call]
    names = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
    for name in sorted(n for n in names if n.startswith("cv::")):
        op = getattr(torch.ops.cv, name.removeprefix("cv::")).default
        kernel = _kernel(op, torch.library.get_kernel(op, "CPU"), torch.library.get_kernel(op, "CUDA"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[oO]verrid", category=UserWarning)  # as is meant
            _overrides.impl(op, kernel, "CPU", with_keyset=True, allow_override=True)


def _kernel(op: Any, cpu: Any, cuda: Any) -> Any:
    def kernel(keyset: Any, *args: Any) -> Any:
        return (cuda if _use_cuda_kernels else cpu).call_boxed(keyset, *args)

    return kernel


# The plugin.


def pytest_configure(config: Any) -> None:
    start(Path(os.environ[_VARIABLE]))


def pytest_collection_modifyitems(items: list[Any]) -> None:
    reason = pytest.mark.skip(reason="about the CPU's own loops")
    for item in items:
        if any(words in item.name for words in ("instruction_set", "number_of_threads", "on_the_cpu")):
            item.add_marker(reason)


def pytest_report_header(config: Any) -> str:
    order = os.environ.get("CV_OPS_EMULATOR_ORDER", "ascending")
    return f"cv.ops: CUDA kernels, emulated on the CPU, threads {order}"


def main() -> None:
    start(Path(os.environ[_VARIABLE]))
    del sys.argv[:1]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    # The module under its own name, so that scripts which import it see the same state.
    from cv_testing.emulator import main as run

    run()
