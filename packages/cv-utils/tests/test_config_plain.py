"""The quick reader of plain configs gives what the evaluator gives, or nothing."""

from __future__ import annotations

import ast
import pprint
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cv.utils import Config
from cv.utils.config.budget import Budget, LimitError
from cv.utils.config.errors import ConfigError, UntrustedCodeError
from cv.utils.config.evaluator import Evaluator
from cv.utils.config.plain import read_plain

TEXT = """\
# a comment
name = 'FasterRCNN'  # and another
model = dict(
    type=name, depth=50, scale=-1.5, eps=1e-5, half=.5, one=1., on=True, off=False, none=None,
    anchors=[8, 16, (32,), (4), ()], nested={'a': [], "b": {}}, root='data/' + 'coco/' + name,
    **{'extra': 1},
)
norm = dict(mean=[123.675], to_rgb=True)
pipeline = [
dict(type='Normalize', **norm),
    dict(type='Pad'),  # last
]
work_dir = 'runs/' + name
lr = 0.02 / 8 * 2
"""
NOT_PLAIN = [
    "a = 1 b = 2",
    "  a = 1",
    "a = 1\n  b = 2",
    "a = \n1",
    "a = dict\n(b=1)",
    "a = 1,",
    "a = 1; b = 2",
    "a == 1",
    "a = b = 1",
    "a: int = 1",
    "a += 1",
    "a = 'x' 'y'",
    "a = 'x\\n'",
    "a = '''x'''",
    "a = ''''''",
    "a = '",
    'a = "',
    "a = f'x'",
    "a = r'x'",
    "a = 1_000",
    "a = 0x1f",
    "a = 007",
    "a = 1j",
    "a = 1.2.3",
    "a = 1-2",
    "a = --1",
    "a = 1 if True else 2",
    "a = not True",
    "a = missing",
    "a = [1",
    "a = 1]",
    "a = [,]",
    "a = (,)",
    "a = dict(,)",
    "a = dict(b=1,,)",
    "a = dict(b=1 c=2)",
    "a = dict(b=1, b=2)",
    "a = dict(if=1)",
    "a = dict(None=1)",
    "a = dict(1)",
    "a = dict(b)",
    "a = dict(b=1)(c=2)",
    "a = dict(b=1, **dict(b=2))",
    "a = dict(**{1: 2})",
    "a = dict(**[])",
    "a = dict (b=1)",
    "a = {1: 2}",
    "a = {'b'}",
    "a = {**dict(b=1)}",
    "a = {'b': 1 'c': 2}",
    "a = [*[1]]",
    "a = [i for i in [1]]",
    "a = [1][0]",
    "a = 'b'.upper()",
    "a = 1 + 2",
    "a = 'b' + 1",
    "a = 'b' +",
    "a = print(1)",
    "a = len('b')",
    "a = 2 * 3 + 4",
    "a = 'b' + 2 * 3",
    "a = 2 * -3 ** 2",
    "a = 2 * b",
    "a = 2\n * 3",
    "a = (2)\n * 3",
    "a = 'b'\n + 'c'",
    "a = ('b')\n+ 'c'",
    "a = 2 * inf",
    "a = 2 / nan",
    "a = [1] * 2",
    "a = 'b' * 2",
    "a = True * 2",
    "a = 1 / 0",
    "a = 1 // 2",
    "a = 2 * ",
    "a = 9007199254740993 * 2",
    "a = 1e400 * 2",
    "if = 1",
    "None = 1",
    "dict = 1",
    "import os",
    "a = 1\nimport os",
    "a = (\nb = 1\n)",
    "del a",
    "'a docstring'",
    "a\u00a0= 1",
    "\u00e4 = 1",
    "a = \u00e4",
    "a = '\0'",
    "a = 'b\r'",
    "a = 1\r\nb = 2",
    "a =\t1",
    "a = 1 \\\n",
    "a = " + "[" * 41 + "]" * 41,
    "a = " + "'b' + " * 50 + "'c'",
    "a = " + "9" * 101,
]


def plain(text: str) -> dict[str, Any] | None:
    result = read_plain(text, {}, Budget())
    return None if result is None else result[0]


def evaluated(text: str) -> dict[str, Any]:
    return Evaluator("config.py", text, Budget(), {}).run(ast.parse(text))


def test_a_config_of_the_usual_form_is_plain() -> None:
    values = plain(TEXT)
    assert values == evaluated(TEXT)
    assert values is not None
    assert values["model"]["anchors"] == [8, 16, (32,), 4, ()]
    assert values["model"]["root"] == "data/coco/FasterRCNN"
    assert list(values["model"])[-1] == "extra"


def test_numbers_keep_their_type_and_value() -> None:
    values = plain("a = [0, -0, -0.0, 1., .5, -.5, 1e5, 1E-5, 1.5e+3, 10, 1.e2]")
    assert values is not None
    expected = [0, 0, -0.0, 1.0, 0.5, -0.5, 1e5, 1e-5, 1500.0, 10, 100.0]
    assert repr(values["a"]) == repr(expected)


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_everything_else_is_left_to_the_evaluator(text: str) -> None:
    budget = Budget(1000)
    assert read_plain(text, {}, budget) is None
    assert budget.left == 1000  # the evaluator starts with all of it


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "  # indented\n"])
def test_a_config_may_be_empty(text: str) -> None:
    assert plain(text) == {}


def test_products_and_quotients() -> None:
    text = "a = 0.02 / 2\n\nb = [8 * 2, 3 / 4 * 2, -1 * 2, 2\n * -1.5]\nc = dict(d=a * 4 / 2, e=1)\n"
    assert repr(plain(text)) == repr(evaluated(text))


def test_names_stand_for_the_same_object() -> None:
    result = read_plain("a = [1]\nb = [a, a]\n", {}, Budget())
    assert result is not None
    values, shares = result
    assert shares
    assert values["b"][0] is values["a"]
    assert not (read_plain("a = 1\nb = a\nc = [b]\n", {}, Budget()) or ({}, True))[1]


def test_variables_that_are_set_before_are_seen_and_kept() -> None:
    before = {"__file__": "config.py"}
    result = read_plain("__file__ = 'other'\na = __file__", before, Budget())
    assert result is not None
    assert result[0] == {"__file__": "other", "a": "other"}
    assert before == {"__file__": "config.py"}


@pytest.mark.parametrize(
    "text",
    [
        "a = ['x']\n" + "".join("a = [a, a, a, a]\n" for _ in range(30)),
        "a = 'xxxxxxxx'\n" + "".join("a = a + a\n" for _ in range(40)),
        "a = dict(b=1)\n" + "".join(f"a = dict(x{i}=a, y{i}=a)\n" for i in range(40)),
    ],
    ids=["lists", "strings", "dicts"],
)
def test_short_texts_cannot_stand_for_huge_values(text: str) -> None:
    with pytest.raises(UntrustedCodeError, match=r"too large|too much time or memory"):
        Config.fromstring(text, ".py")


def test_errors_come_from_the_evaluator_with_their_line() -> None:
    with pytest.raises(ConfigError, match="mising") as caught:
        Config.fromstring("missing = 1\na = [\n    mising]\n", ".py")
    assert "line 3" in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
KEYS = st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)
NAMES = st.sampled_from(["a", "b", "model", "_c", "x1"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_random_values_are_read_as_the_evaluator_reads_them(config: dict[str, Any]) -> None:
    text = "".join(f"{name} = {pprint.pformat(value, sort_dicts=False)}\n" for name, value in config.items())
    values = plain(text)
    if values is not None:
        assert repr(values) == repr(evaluated(text)) == repr(config)


PIECES = st.sampled_from(
    [*"\n\n  ,,()[]{}==:+-*/.#'\"01ae_", "dict(", "a = ", "b=", "**", "'x'", "1.5", "\n\na", " if ", "not "]
)


@settings(max_examples=500, deadline=None)
@example(["a = ", "dict(", "b=", "1", ")", "\n", "(", ")"])
@given(st.lists(PIECES, max_size=25))
def test_random_texts_are_read_as_the_evaluator_reads_them(pieces: list[str]) -> None:
    check_same("a = " + "".join(pieces))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(TEXT)), st.integers(0, 3), PIECES | st.just(""))
def test_damaged_texts_are_read_as_the_evaluator_reads_them(place: int, length: int, insert: str) -> None:
    check_same(TEXT[:place] + insert + TEXT[place + length :])


def check_same(text: str) -> None:
    values = plain(text)
    if values is not None:
        try:
            expected = evaluated(text)
        except (SyntaxError, ConfigError, LimitError) as error:
            raise AssertionError(f"only the quick reader takes {text!r}") from error
        assert repr(values) == repr(expected)
