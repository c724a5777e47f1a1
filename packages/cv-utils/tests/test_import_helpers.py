"""Importing by name, and questions about methods."""

import os.path
import sys
from pathlib import Path
from typing import Any

import pytest

from cv.utils import has_method, import_modules_from_strings, is_method_overridden, jit, skip_no_elena


def test_imports() -> None:
    assert import_modules_from_strings("os.path") is os.path
    assert import_modules_from_strings(["os.path", "sys"]) == [os.path, sys]
    assert import_modules_from_strings(None) is None
    assert import_modules_from_strings([]) is None
    assert import_modules_from_strings("") is None


@pytest.mark.parametrize(
    ("imports", "text"),
    [(1, "custom_imports must be a list"), ([1], "cannot be imported"), (("os",), "list")],
)
def test_bad_imports(imports: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        import_modules_from_strings(imports)


def test_all_names_are_checked_before_anything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "has_effects.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TypeError):
        import_modules_from_strings(["has_effects", 1])  # type: ignore[list-item]


def test_failing_imports() -> None:
    with pytest.raises(ImportError, match="Failed to import no_such_module: No module named"):
        import_modules_from_strings("no_such_module")
    with pytest.warns(UserWarning, match="no_such_module failed to import and is ignored") as caught:
        assert import_modules_from_strings("no_such_module", allow_failed_imports=True) is None
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="no_such_module failed"):
        assert import_modules_from_strings(["no_such_module", "sys"], allow_failed_imports=True) == [
            None,
            sys,
        ]


class Base:
    attribute = 1

    def method(self) -> None: ...

    @classmethod
    def class_method(cls) -> None: ...

    @staticmethod
    def static_method() -> None: ...


class Same(Base):
    pass


class Other(Base):
    def method(self) -> None: ...

    @classmethod
    def class_method(cls) -> None: ...

    @staticmethod
    def static_method() -> None: ...


def test_has_method() -> None:
    assert has_method(Base(), "method")
    assert not has_method(Base(), "attribute")
    assert not has_method(Base(), "nothing")


@pytest.mark.parametrize("name", ["method", "class_method", "static_method"])
def test_is_method_overridden(name: str) -> None:
    assert is_method_overridden(name, Base, Other)
    assert is_method_overridden(name, Base, Other())
    assert not is_method_overridden(name, Base, Same)
    assert not is_method_overridden(name, Base, Same())


def test_is_method_overridden_errors() -> None:
    with pytest.raises(AssertionError, match="base_class must be a class"):
        is_method_overridden("method", Base(), Other)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        is_method_overridden("nothing", Base, Other)


def test_jit_leaves_functions_alone() -> None:
    def function() -> int:
        return 1

    assert jit(function) is function
    assert jit()(function) is function
    assert jit(derivate=True, coderize=True)(function) is function
    assert skip_no_elena(function) is function
