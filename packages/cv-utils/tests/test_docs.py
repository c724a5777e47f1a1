"""The examples in docstrings, in the README and in the guide run as they are shown."""

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.mark.parametrize("name", ["registry", "sequence", "version_utils", "imports", "timer"])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"cv.utils.{name}")
    result = doctest.testmod(module, optionflags=OPTIONS)
    assert result.attempted > 0
    assert result.failed == 0


def examples() -> list[Any]:
    found = []
    for path in (PACKAGE / "README.md", PACKAGE.parents[1] / "docs" / "utils.md"):
        if path.exists():  # the guide is not part of a source distribution
            blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
            found += [pytest.param(block, id=f"{path.name}-{i}") for i, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("code", examples())
def test_guides(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
