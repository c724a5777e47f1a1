"""Writing configs: whatever is dumped reads back as the same config."""

import enum
import itertools
import json
import math
import pathlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cv.utils.config import Config

Write = Callable[[str, str], Path]

awkward = ["{{ fileDirname }}", "a{{_base_.x}}b", "{{fileExtname}}'\"", "_cv_reference0_"]
awkward += ["\\", "'\"\n", "no", "1", "=", "<<", "~", "\x85"]
texts = st.text(max_size=8) | st.sampled_from(awkward)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
ranges = st.builds(range, st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 3))
python_leaves = scalars | st.binary(max_size=4) | st.complex_numbers(allow_nan=False) | st.just(...) | ranges
hashable = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=2), max_leaves=4
)
keys = st.sampled_from(["a", "type", "lr", "class", "dict", "float", "set", "a-b", "", "1", "range"]) | texts
python_values = st.recursive(
    python_leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys | hashable, inner, max_size=4)
        | st.sets(hashable, max_size=3)
        | st.frozensets(hashable, max_size=3)
    ),
    max_leaves=25,
)


def plain_values(key: Any) -> Any:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(key, inner, max_size=4),
        max_leaves=20,
    )


def top_level(values: Any) -> Any:
    reserved = ("filename", "text", "pretty_text", "_base_", "_deprecation_")
    names = keys.filter(lambda key: key not in reserved and not key.startswith("__"))
    return st.dictionaries(names, values, max_size=5)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types, and in the same order, but for keys that are no names at the top."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)
    return bool(a == b)


def in_order(content: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(content.items()))


@settings(max_examples=80, deadline=None)
@given(top_level(python_values))
@example({"dict": 1, "float": math.inf, "x": {"a": -math.inf}})
@example({"a-b": 1, "class": 2, "ok": -0.0})
def test_python_round_trip(content: dict[str, Any]) -> None:
    cfg = Config(content)
    text = cfg.pretty_text
    assert cfg.dump() == text
    compile(text, "config", "exec")
    for trust in (False, True):
        again = Config.fromstring(text, "py", trust=trust)
        assert same(in_order(again._cfg_dict), in_order(cfg._cfg_dict))
    assert again.pretty_text == text


@settings(max_examples=60, deadline=None)
@given(top_level(plain_values(keys)))
def test_json_round_trip(content: dict[str, Any]) -> None:
    cfg = Config(content, filename=None)
    text = dump_as(cfg, "a.json")
    assert json.loads(text) == content
    assert same(Config.fromstring(text, "json")._cfg_dict, cfg._cfg_dict)


@settings(max_examples=60, deadline=None)
@given(top_level(plain_values(keys | st.integers() | st.none() | st.floats(allow_nan=False))))
def test_yaml_round_trip(content: dict[str, Any]) -> None:
    cfg = Config(content)
    text = dump_as(cfg, "a.yaml")
    assert yaml.safe_load(text) == content
    assert same(Config.fromstring(text, "yaml")._cfg_dict, cfg._cfg_dict)


def dump_as(cfg: Config, filename: str) -> str:
    text = Config(cfg._cfg_dict, cfg_text="", filename=filename).dump()
    assert text is not None
    return text


def test_nan() -> None:
    for file_format in ("py", "json", "yaml"):
        text = dump_as(
            Config(dict(x=math.nan, y=complex(math.nan, 1)))
            if file_format == "py"
            else Config(dict(x=math.nan)),
            f"a.{file_format}",
        )
        assert math.isnan(Config.fromstring(text, file_format).x)


CONTENT = dict(model=dict(type="A", scale=(1, 2), mean=[0.5, 1]), items=[1])


@pytest.mark.parametrize("target", ["x.py", "x.json", "x.yaml", "x.yml", "x.txt", "x"])
def test_the_suffix_of_the_target_says_the_format(target: str, tmp_path: Path, write: Write) -> None:
    cfg = Config(CONTENT)
    cfg.dump(tmp_path / target)
    text = (tmp_path / target).read_text(encoding="utf-8")
    if target in ("x.txt", "x"):  # then that of the source; Python if there is none
        assert text == cfg.pretty_text
        return
    again = Config.fromfile(tmp_path / target)
    expected = (
        CONTENT if target == "x.py" else dict(model=dict(type="A", scale=[1, 2], mean=[0.5, 1]), items=[1])
    )
    assert again._cfg_dict == expected


def test_a_failed_dump_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    for name in ("a.py", "a.json", "a.yaml"):
        with pytest.raises(TypeError, match=r"function|JSON|object"):
            Config(dict(m=dict(f=[len, test_nan]))).dump(tmp_path / name)
    assert path.read_text() == "x = 1"
    assert [child.name for child in tmp_path.iterdir()] == ["a.py"]


def test_what_cannot_be_written_is_named() -> None:
    cfg = Config(dict(model=dict(hooks=[1, Fraction(1, 3), object])))
    with pytest.raises(
        TypeError, match=r"^model\.hooks\[2\] is a builtins\.type, which a config file cannot hold"
    ):
        cfg.dump()
    # The text to look at is valid all the same.
    assert Config.fromstring(cfg.pretty_text, "py").model.hooks[2] == "<class 'object'>"


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


def test_relatives_of_plain_types() -> None:
    cfg = Config(dict(a=Color.RED, b=Level.LOW, c=pathlib.PurePosixPath("a/b"), d=[True, 2]))
    assert Config.fromstring(cfg.dump() or "", "py")._cfg_dict == dict(a="red", b=1, c="a/b", d=[True, 2])


def test_numpy_scalars() -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    cfg = Config(dict(a=np.float32(0.5), b=np.int64(3), c=[np.bool_(True)]))
    again = Config.fromstring(cfg.dump() or "", "py")
    assert again._cfg_dict == dict(a=0.5, b=3, c=[True])
    assert type(again.b) is int


LAYOUT = """model = dict(
    type='FasterRCNN',
    backbone=dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3)),
    bbox_head=[
        dict(
            type='Shared2FCBBoxHead',
            target_means=[0.0, 0.0, 0.0, 0.0],
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        ),
    ],
    one=(1,),
    empty=[dict(), [], (), set()],
    names={1: 'a', 'b-c': None},
)
palette = [
    [0, 0, 0],
    [1, 1, 1],
    [2, 2, 2],
    [3, 3, 3],
    [4, 4, 4],
    [5, 5, 5],
    [6, 6, 6],
    [7, 7, 7],
    [8, 8, 8],
]
classes = (
    'class number 0', 'class number 1', 'class number 2', 'class number 3', 'class number 4',
    'class number 5',
)
seed = None
globals().update({'my-key': 1})
"""


def test_layout() -> None:
    cfg = Config.fromstring(LAYOUT, "py")
    assert cfg.pretty_text == LAYOUT
    assert max(map(len, LAYOUT.splitlines())) <= 100


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=40, max_size=80))
def test_long_lists_fill_lines(numbers: list[int]) -> None:
    first, *lines, last = Config(dict(numbers=numbers)).pretty_text.splitlines()
    assert (first, last) == ("numbers = [", "]")
    for line, following in itertools.pairwise(lines):
        assert len(line) <= 100 < len(line) + 1 + len(following.split()[0])
