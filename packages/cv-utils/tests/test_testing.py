"""The helpers for tests."""

import sys
from pathlib import Path
from typing import Any

import pytest

from cv.utils import (
    assert_attrs_equal,
    assert_dict_contains_subset,
    assert_dict_has_keys,
    assert_is_norm_layer,
    assert_keys_equal,
    assert_params_all_zeros,
    check_python_script,
)


def test_dicts_and_keys() -> None:
    whole = {"a": "x", "b": {"c": [1, 2]}, "d": (4,)}
    assert assert_dict_contains_subset(whole, {"a": "x", "b": {"c": [1, 2]}})
    assert assert_dict_contains_subset(whole, {})
    assert not assert_dict_contains_subset(whole, {"a": "y"})
    assert not assert_dict_contains_subset(whole, {"e": 1})
    assert not assert_dict_contains_subset(whole, {"b": {"c": [1, 2, 3]}})
    assert not assert_dict_contains_subset(whole, {"b": {"c": [1, 2], "x": 1}})
    assert not assert_dict_contains_subset(whole, {"d": [4]})
    assert assert_dict_has_keys(whole, ["a", "d"])
    assert not assert_dict_has_keys(whole, ["a", "z"])
    assert assert_keys_equal(["a", "b"], ["b", "a"])
    assert not assert_keys_equal(["a", "b"], ["a", "b", "c"])


def test_attrs() -> None:
    class Thing:
        a, b = 1, "x"

    assert assert_attrs_equal(Thing, {"a": 1, "b": "x"})
    assert not assert_attrs_equal(Thing(), {"a": 2})
    assert not assert_attrs_equal(Thing(), {"c": None})


def test_arrays_compare_by_shape_and_elements() -> None:
    np = pytest.importorskip("numpy", reason="needs numpy")
    whole = {"x": np.arange(4), "y": [np.zeros((2, 2))], "empty": np.zeros(0)}
    assert assert_dict_contains_subset(
        whole, {"x": np.arange(4), "y": [np.zeros((2, 2))], "empty": np.zeros(0)}
    )
    assert not assert_dict_contains_subset(whole, {"x": np.array([0, 1, 2, 4])})
    assert not assert_dict_contains_subset(whole, {"x": np.arange(3)})
    assert not assert_dict_contains_subset(whole, {"x": 0})
    assert not assert_dict_contains_subset(whole, {"y": [np.zeros(2)]})


def test_layers() -> None:
    nn = pytest.importorskip("torch.nn", reason="needs torch")
    norms = [
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
    ]
    assert all(map(assert_is_norm_layer, norms))
    assert not assert_is_norm_layer(nn.Conv2d(3, 4, 1))
    assert not assert_is_norm_layer(nn.Sequential(nn.BatchNorm2d(4)))

    layer = nn.Conv2d(3, 4, 1)
    assert not assert_params_all_zeros(layer)
    nn.init.zeros_(layer.weight)
    assert not assert_params_all_zeros(layer)
    nn.init.zeros_(layer.bias)
    assert assert_params_all_zeros(layer)
    assert assert_params_all_zeros(nn.Sequential(layer, nn.ReLU()))
    assert not assert_params_all_zeros(nn.Sequential(layer, nn.BatchNorm2d(4)))


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    (tmp_path / "sibling_module.py").write_text("GREETING = 'hello'\n")
    script = tmp_path / "say hello.py"
    script.write_text(
        "import sys\nfrom sibling_module import GREETING\n"
        "if __name__ == '__main__':\n    print(GREETING, *sys.argv[1:])\n    sys.exit(len(sys.argv) == 3)\n"
    )
    return script


@pytest.mark.parametrize("python", ["", "python "])
def test_check_python_script(hello: Path, capsys: pytest.CaptureFixture[Any], python: str) -> None:
    argv, path = list(sys.argv), list(sys.path)
    with pytest.raises(SystemExit) as caught:
        check_python_script(f"{python}'{hello}' agent")
    assert caught.value.code is False
    assert capsys.readouterr().out == "hello agent\n"
    with pytest.raises(SystemExit) as caught:
        check_python_script(f"{python}'{hello}' 'double o' seven")
    assert caught.value.code is True
    assert (sys.argv, sys.path) == (argv, path)
    sys.modules.pop("sibling_module")


def test_check_python_script_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_python_script(f"python {tmp_path}/none.py")
