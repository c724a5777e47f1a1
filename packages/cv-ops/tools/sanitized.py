"""Runs pytest with the cv.ops of a staging folder: ``sanitized.py STAGE [arguments of pytest]``.

Or the fuzz script: ``sanitized.py STAGE benchmarks/fuzz_ops.py --seconds 600``.

The checks of tracing (``torch.compile``, ``torch.export``, ``opcheck``) are left out: they are half of the
time, and the kernels that they run are run by the others too. Property tests take fewer examples.

``nox -s sanitize`` calls it. An editable install of cv-ops finds its files through an import hook that comes
before ``sys.path``, so the folder has to come before the hook; the other packages stay where they are.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

EXAMPLES = 20  # of a property test
TRACING = ("check_compile", "check_export", "check_opcheck")


class Staged:
    """Finds cv.ops and what is below it in the staging folder."""

    def __init__(self, stage: Path) -> None:
        self.path = [str(stage / "cv")]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if name == "cv.ops":
            return PathFinder.find_spec(name, self.path)
        return PathFinder.find_spec(name, path) if name.startswith("cv.ops.") else None


class Shorter:
    """A pytest plugin that leaves out what the docstring above says."""

    def pytest_collection(self) -> None:
        import cv_testing.ops

        for name in TRACING:
            setattr(cv_testing.ops, name, lambda *args, **kwargs: None)

    def pytest_itemcollected(self, item: Any) -> None:
        from hypothesis import settings

        test = getattr(item, "obj", None)
        chosen = getattr(test, "_hypothesis_internal_use_settings", None)
        if chosen is not None and chosen.max_examples > EXAMPLES:
            test = getattr(test, "__func__", test)
            test._hypothesis_internal_use_settings = settings(chosen, max_examples=EXAMPLES)


def main() -> int:
    stage = Path(sys.argv[1]).resolve()
    sys.meta_path.insert(0, Staged(stage))  # type: ignore[arg-type]
    import cv.ops._load

    library = cv.ops._load._find("cv_ops_cpu")
    if library is None or stage not in library.parents:
        raise RuntimeError(f"cv.ops must come from {stage}, got {library}")
    if Path(sys.argv[2]).name.startswith("fuzz_"):
        del sys.argv[:2]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
        return 0
    import pytest

    sys.path.insert(0, "")  # as python -m pytest does: processes that tests start import them from there
    return int(pytest.main(sys.argv[2:], plugins=[Shorter()]))


if __name__ == "__main__":
    sys.exit(main())
