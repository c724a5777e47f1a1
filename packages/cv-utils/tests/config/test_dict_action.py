"""DictAction and auto_argparser."""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.utils import UsageError
from cv.utils.config import Config, DictAction
from cv.utils.config.dict_action import parse_value


def parse(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction)
    parser.add_argument("--one", action=DictAction)
    return parser.parse_args(list(arguments))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-3", -3), ("0.1", 0.1), ("1e-3", 1e-3), ("x", "x"), ("", ""), ("None", None),
        ("none", "none"),
        ("true", True), ("False", False), ("FALSE", False), ("a b", "a b"), (" a ", "a"), ("a=b", "a=b"),
        ("a,b", ["a", "b"]), ("[a,b]", ["a", "b"]), ("(a,b)", ("a", "b")), ("a,", ["a"]), ("(a,)", ("a",)),
        ("(a)", ("a",)), ("[]", []), ("()", ()), ("[ ]", []), ("[[1]]", [[1]]), ("[(),[]]", [(), []]),
        ("[(a,b), [1,2], false]", [("a", "b"), [1, 2], False]), ("(1,2),(3,4)", [(1, 2), (3, 4)]),
        ("[(1,2),(3,(4,5))]", [(1, 2), (3, (4, 5))]), ("((1))", ((1,),)),
        ("'1'", "1"), ('"a,b"', "a,b"), ("'[a'", "[a"), ("['a,b', \"c)\"]", ["a,b", "c)"]), ("''", ""),
        ("'it''", "'it''"),
        ("'a','b'", ["a", "b"]), ("don't", "don't"), ("[don't, 'x y']", ["don't", "x y"]),
        ("f(x)", "f(x)"), ("f(x,y)", "f(x,y)"), ("[f(1,2),3]", ["f(1,2)", 3]), ("(a)(b)", "(a)(b)"),
        ("http://h:80/p?q=1", "http://h:80/p?q=1"),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    result = parse_value(text)
    assert result == value
    assert type(result) is type(value)


def test_documented_example() -> None:
    args = parse("--options", "item2.a=a,b", "item2.b=[(a,b), [1,2], false]", "item3=KEY=V")
    assert args.options == {"item2.a": ["a", "b"], "item2.b": [("a", "b"), [1, 2], False], "item3": "KEY=V"}


def test_given_twice_adds_up() -> None:
    assert parse("--options", "a=1", "b=1", "--options", "b=2").options == {"a": 1, "b": 2}
    assert parse("--one", "a=1", "--one", "b=2").one == {"a": 1, "b": 2}
    assert parse().options is None


def test_defaults_are_not_changed() -> None:
    default = {"a": 1}
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction, default=default)
    assert parser.parse_args(["--options", "b=2"]).options == {"a": 1, "b": 2}
    assert default == {"a": 1}


@pytest.mark.parametrize("text", ["[(a,b), [1,2], false", "(1,2]", "a]", "[1", ")(", "'a", "[1,'b]"])
def test_unbalanced(text: str) -> None:
    with pytest.raises(AssertionError, match="unbalanced"):
        parse("--options", f"x={text}")
    with pytest.raises(ValueError, match="unbalanced"):
        parse("--options", f"x={text}")


@pytest.mark.parametrize("argument", ["novalue", "=3", " =3"])
def test_not_key_value(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--options", argument)
    assert f"expected KEY=VALUE, got {argument!r}" in capsys.readouterr().err


def write_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(write_value, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{write_value(item)}," for item in value) + ")"
    return f'"{value}"' if isinstance(value, str) else str(value)


leaves = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.text("ab1,.[](){}= '", max_size=6)
)


@given(
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple))
)
def test_whatever_is_written_is_read_back(value: Any) -> None:
    assert parse("--options", f"k={write_value(value)}").options == {"k": value}


@given(st.text("ab,[]()'\" =1", max_size=12))
def test_any_text_gives_a_value_or_the_documented_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse_value(text), (str, int, float, bool, list, tuple, type(None)))


# auto_argparser

CONFIG = """name = 'a'
depth = 50
lr = 0.1
flag = False
model = dict(type='R', steps=[1, 2], mixed=[1, 'a'])
nothing = None
"""


def test_auto_argparser(write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write("a.py", CONFIG))
    arguments = "--name b --depth 101 --lr 0.5 --flag --nothing (1,2)"
    arguments += " --model.type X --model.steps 3 4 --model.mixed 1 b"
    monkeypatch.setattr("sys.argv", ["train.py", path, *arguments.split()])
    parser, cfg = Config.auto_argparser("Train it")
    assert parser.description == "Train it"
    assert cfg.filename == path
    options = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    assert options.pop("config") == path
    cfg.merge_from_dict(options)
    assert cfg._cfg_dict == dict(
        name="b",
        depth=101,
        lr=0.5,
        flag=True,
        model=dict(type="X", steps=[3, 4], mixed=[1, "b"]),
        nothing=(1, 2),
    )


def test_auto_argparser_leaves_what_is_not_given(
    write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write("a.py", CONFIG))
    monkeypatch.setattr("sys.argv", ["train.py", path, "--no-flag"])
    parser, _ = Config.auto_argparser()
    assert {k: v for k, v in vars(parser.parse_args()).items() if v is not None} == {
        "config": path,
        "flag": False,
    }


def test_auto_argparser_without_a_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit):
        Config.auto_argparser()
    assert "config" in capsys.readouterr().err
