"""Functions that need what may be missing."""

import sys
from pathlib import Path

import pytest

from cv.utils import MissingPrerequisiteError, check_prerequisites, requires_executable, requires_package


def test_check_prerequisites(capsys: pytest.CaptureFixture[str]) -> None:
    @check_prerequisites(["n1", "n2", "n3"], lambda name: name == "n1")
    def combine(x: int) -> int:
        return x

    with pytest.raises(RuntimeError, match='"n2, n3" are required in method "combine"'):
        combine(1)
    assert capsys.readouterr().out == (
        'Prerequisites "n2, n3" are required in method "combine" but not found, please install them first.\n'
    )

    @check_prerequisites("n1", lambda name: name == "n1", msg_tmpl="{} for {}")
    def fine(x: int, y: int = 2) -> int:
        """Doc."""
        return x + y

    assert fine(1, y=4) == 5
    assert (fine.__name__, fine.__doc__) == ("fine", "Doc.")


def test_own_message(capsys: pytest.CaptureFixture[str]) -> None:
    @check_prerequisites("n1", lambda name: False, msg_tmpl="{} for {}")
    def read() -> None: ...

    with pytest.raises(MissingPrerequisiteError, match="n1 for read"):
        read()
    assert capsys.readouterr().out == "n1 for read\n"


def test_requires_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @requires_package("a_package_to_come")
    def one() -> int:
        return 1

    @requires_package(["json", "os.path"])
    def two() -> int:
        return 2

    assert two() == 2
    for error in (RuntimeError, ImportError):
        with pytest.raises(error, match="a_package_to_come"):
            one()
    (tmp_path / "a_package_to_come.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert one() == 1  # it is the call that is checked, not the definition
    sys.modules.pop("a_package_to_come")


def test_requires_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @requires_executable(["a-program", "a; touch injected"])
    def work() -> int:
        return 1

    program = tmp_path / "a-program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match='"a; touch injected" are required'):
        work()
    assert sorted(tmp_path.iterdir()) == [program]  # nothing went through a shell
    program.rename(tmp_path / "a; touch injected")
    with pytest.raises(RuntimeError, match='"a-program" are required'):
        work()
