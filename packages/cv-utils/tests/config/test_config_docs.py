"""The examples in the guide and in the docstrings run as they are shown."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from cv.utils.config import UntrustedCodeError
from cv.utils.config.handlers import BUILTIN_HANDLERS
from cv.utils.config.loading import Loader

GUIDE = Path(__file__).parents[4] / "docs" / "config.md"
needs_guide = pytest.mark.skipif(not GUIDE.exists(), reason="the guide is not part of a source distribution")


@needs_guide
def test_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        file = re.match(r"# file: (\S+)\n", block)
        if file:
            (tmp_path / file[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, "guide", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "resolved.py").exists()


@needs_guide
def test_guide_lists_the_builtins() -> None:
    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    listed = re.search(r"the pure builtins: `([^`]*)`, and `globals\(\)`", text)
    assert listed is not None
    assert listed[1].split() == sorted(
        function.__name__ for function in BUILTIN_HANDLERS if function is not globals
    )


@needs_guide
def test_guide_shows_the_real_error(tmp_path: Path) -> None:
    (tmp_path / "exp.py").write_text("import os\nos.system('…')", encoding="utf-8")
    with pytest.raises(UntrustedCodeError) as caught:
        Loader().load(tmp_path / "exp.py")
    shown = " ".join(str(caught.value).replace(f"{tmp_path}/", "").split())
    assert shown in " ".join(GUIDE.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", ["config", "config_dict", "dict_action"])
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"cv.utils.config.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
