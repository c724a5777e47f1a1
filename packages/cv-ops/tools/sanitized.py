"""Runs pytest with the cv.ops of a staging folder: ``sanitized.py STAGE [arguments of pytest]``.

Or the fuzz script: ``sanitized.py STAGE benchmarks/fuzz_ops.py --seconds 600``.

``nox -s sanitize`` calls it. An editable install of cv-ops finds its files through an import hook that comes
before ``sys.path``, so the folder has to come before the hook; the other packages stay where they are.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


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


def main() -> int:
    stage = Path(sys.argv[1]).resolve()
    sys.meta_path.insert(0, Staged(stage))  # type: ignore[arg-type]
    import cv.ops._load

    library = cv.ops._load._find("cv_ops_cpu")
    if library is None or stage not in library.parents:
        raise RuntimeError(f"cv.ops must come from {stage}, got {library}")
    if Path(sys.argv[2]).name.startswith("fuzz_"):
        del sys.argv[:2]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return 0
    import pytest

    return int(pytest.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
