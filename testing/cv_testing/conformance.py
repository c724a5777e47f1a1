"""The conformance matrix of ``cv.ops``: what the test-suite proved, per operator, device, dtype and check.

A pytest plugin (``-p cv_testing.conformance --conformance FILE.json``): the checks of ``cv_testing.ops`` tell
it what they ran, and it adds the outcome to the file. Nothing else makes a cell green.

    python -m cv_testing.conformance FILE.json PAGE.md

renders the file; ``nox -s conformance`` does both. Without the plugin the checks record nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import emulator

CHECKS = ("forward", "backward", "opcheck", "gradcheck", "compile", "export", "deterministic")
#: The third is a CPU that emulates CUDA (cv_testing.emulator): not a run on a GPU.
DEVICES = ("cpu", "cuda", "cuda-emulated")
_TITLES = {
    "cpu": "CPU",
    "cuda": "CUDA",
    "cuda-emulated": "CUDA kernels, emulated on a CPU (not a GPU run)",
}
DTYPES = ("float32", "float64", "float16", "bfloat16", "int32")

#: ``(operator, device, dtype, check) -> passed``; None where nobody records.
_cells: dict[tuple[str, str, str, str], bool] | None = None


def recording() -> bool:
    """Whether outcomes are wanted: the checks then run in every dtype."""
    return _cells is not None


@contextlib.contextmanager
def cell(check: str, fn: Callable[..., Any], args: Sequence[Any], device: str) -> Iterator[None]:
    """Records whether the block passes, for the operators that ``fn(*args)`` calls and its first dtype."""
    if _cells is None:
        yield
        return
    passed = False
    names, dtype = _operators(fn, args), _dtype(args)
    if emulator.emulated():
        device = "cuda-emulated"
    try:
        yield
        passed = True
    finally:
        for name in names:
            key = (name, device, dtype, check)
            _cells[key] = _cells.get(key, True) and passed


class _Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "cv":
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def _dtype(args: Sequence[Any]) -> str:
    """The first floating dtype among the arguments; int32 stands for operators that take none."""
    tensors = (a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point())
    return str(next((t.dtype for t in tensors), torch.int32)).removeprefix("torch.")


def _operators(fn: Callable[..., Any], args: Sequence[Any]) -> set[str]:
    """The operators in one call; for a function composed of torch's own, the name of its test file."""
    with _Names() as mode, torch.no_grad(), contextlib.suppress(Exception):
        fn(*args)
    names = {name for name in mode.names if not name.endswith("_backward")}
    file = re.search(r"test_(\w+)\.py", os.environ.get("PYTEST_CURRENT_TEST", ""))
    composed = {file[1]} if file and file[1] != "common" else set()
    return names or composed


# The plugin.


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--conformance", metavar="FILE.json", help="add what the operator checks prove to FILE")


def pytest_configure(config: Any) -> None:
    global _cells
    if config.getoption("--conformance"):
        _cells = {}


def pytest_sessionfinish(session: Any) -> None:
    option = session.config.getoption("--conformance")
    if not option:
        return
    path, cells = Path(option), dict(_cells or {})
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:  # its part of the tests: the process that started it puts the parts together
        part = [[*key, passed] for key, passed in cells.items()]
        path.with_name(f"{path.name}.{worker}").write_text(json.dumps(part), encoding="utf-8")
        return
    for file in path.parent.glob(f"{path.name}.gw*"):
        for *key, passed in json.loads(file.read_text(encoding="utf-8")):
            cells[tuple(key)] = cells.get(tuple(key), True) and passed
        file.unlink()
    if cells:
        update(path, cells)


def update(path: Path, cells: dict[tuple[str, str, str, str], bool]) -> None:
    """Put outcomes into the file; those of operators that did not run stay."""
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}, "cells": {}}
    for device in {key[1] for key in cells}:
        data["runs"][device] = {
            "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
            "date": datetime.date.today().isoformat(),
            "torch": torch.__version__.partition("+")[0],
        }
        data["cells"].setdefault(device, {})
    for device, name in {(key[1], key[0]) for key in cells}:
        data["cells"][device][name] = {}
    for (name, device, dtype, check), passed in sorted(cells.items()):
        of_operator = data["cells"][device][name]
        of_operator.setdefault(check, {})[dtype] = passed
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# The page.


_HEAD = """\
# Conformance of the operators

Made by `nox -s conformance` from runs of the test-suite; not written by hand. A cell names the dtypes in which the
check passed: 32 = float32, 64 = float64, 16 = float16, b16 = bfloat16, int = no floating input. **Bold** dtypes failed, `–` means that the
check does not apply (no gradient, or raises under `torch.use_deterministic_algorithms`).

forward and backward: against a float64 oracle. opcheck: `torch.library.opcheck`. gradcheck: against finite
differences, which only float64 can show. compile: `torch.compile(fullgraph=True)`, static and dynamic shapes.
export: `torch.export`. deterministic: three runs under `torch.use_deterministic_algorithms` are equal to the last
bit."""  # noqa: E501


_EMULATED = """\
The emulator of `packages/cv-ops/tools/emulator` ran the CUDA kernels on the CPU named below; its README says
what that cannot show. `–` here also means that the check was not run."""


def render(data: dict[str, Any]) -> str:
    """The Markdown page."""
    lines = [_HEAD]
    for device in DEVICES:
        run = data["runs"].get(device)
        lines += ["", f"## {_TITLES[device]}", ""]
        if run is None:
            lines.append("Not yet run.")
            continue
        if device == "cuda-emulated":
            lines += [_EMULATED, ""]
        lines += [f"{run['device']}, torch {run['torch']}, {run['date']}.", ""]
        lines += [f"| operator | {' | '.join(CHECKS)} |", f"|{' --- |' * (len(CHECKS) + 1)}"]
        for name, checks in sorted(data["cells"][device].items()):
            cells = [_text(checks.get(check, {})) for check in CHECKS]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _text(outcomes: dict[str, bool]) -> str:
    short = {"float32": "32", "float64": "64", "float16": "16", "bfloat16": "b16", "int32": "int"}
    words = [short[d] if outcomes[d] else f"**{short[d]}**" for d in DTYPES if d in outcomes]
    return " ".join(words) or "–"


def main() -> None:
    source, page = map(Path, sys.argv[1:])
    page.write_text(render(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
