"""Merging: bases, ``_delete_``, options with dots and list indices."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.utils.config import Config, ConfigDict, ConfigError
from cv.utils.config.merge import merge

Write = Callable[[str, str], Path]
BASE = "item1 = [1, 2]\nitem2 = dict(a=0, b=dict(c=1, d=2))\nitem3 = True\nitem4 = 'test_base'\n"


def load(write: Write, text: str) -> Config:
    return Config.fromfile(write("child.py", text))


def test_child_changes_base(write: Write) -> None:
    write("base.py", BASE)
    cfg = load(write, "_base_ = './base.py'\nitem1 = [2, 3]\nitem2 = dict(b=dict(c=5), e=6)\nitem5 = 7\n")
    assert cfg._cfg_dict == dict(
        item1=[2, 3], item2=dict(a=0, b=dict(c=5, d=2), e=6), item3=True, item4="test_base", item5=7
    )
    assert type(cfg.item2.b) is ConfigDict
    assert "_base_" not in cfg


def test_several_and_nested_bases_in_all_formats(write: Write) -> None:
    write("l1.py", "item1 = [1]\n")
    write("l2.yaml", "item2: {a: 0}\n")
    write("l3.json", '{"item3": false, "_base_": "l4.py"}')
    write("l4.py", "item4 = 'x'\nitem5 = dict(a=dict(b=1))\n")
    cfg = load(write, "_base_ = ['./l1.py', './l2.yaml', 'l3.json']\nitem5 = dict(a=dict(c=2))\n")
    assert cfg._cfg_dict == dict(
        item1=[1], item2=dict(a=0), item3=False, item4="x", item5=dict(a=dict(b=1, c=2))
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.json", '{"_base_": ["base.py"], "item3": 1}'), ("c.yml", "_base_: base.py\nitem3: 1\n")],
)
def test_json_and_yaml_have_bases_too(name: str, text: str, write: Write) -> None:
    write("base.py", BASE)
    cfg = Config.fromfile(write(name, text))
    assert cfg.item3 == 1
    assert cfg.item2.b.d == 2


def test_duplicate_keys_in_bases(write: Write) -> None:
    write("a.py", "x = 1")
    write("b.py", "x = 2")
    with pytest.raises(KeyError, match=r"duplicate key 'x': both 'a\.py' and 'b\.py'"):
        load(write, "_base_ = ['a.py', 'b.py']")


@pytest.mark.parametrize("value", ["3", "dict(a=1)", "['a.py', 3]"])
def test_bad_base(value: str, write: Write) -> None:
    with pytest.raises(TypeError, match="_base_ must be a str or a list of str"):
        load(write, f"_base_ = {value}")


def test_dict_over_something_else(write: Write) -> None:
    write("base.py", BASE)
    with pytest.raises(TypeError, match=r"item3 is a dict here but a bool.*_delete_=True"):
        load(write, "_base_ = 'base.py'\nitem3 = dict(a=1)")
    with pytest.raises(TypeError, match=r"item2\.b\.c is a dict here but a int"):
        load(write, "_base_ = 'base.py'\nitem2 = dict(b=dict(c=dict()))")
    cfg = load(write, "_base_ = 'base.py'\nitem3 = dict(a=1, _delete_=True)")
    assert cfg.item3 == dict(a=1)


def test_delete(write: Write) -> None:
    write("base.py", BASE)
    cfg = load(
        write,
        "_base_ = 'base.py'\nitem2 = dict(b=dict(_delete_=True, z=dict(_delete_=True, y=1)))\n"
        "new = dict(_delete_=True, a=[dict(_delete_=True, b=1)])",
    )
    assert cfg.item2 == dict(a=0, b=dict(z=dict(y=1)))
    assert cfg.new == dict(a=[dict(b=1)])
    cfg = load(write, "_base_ = 'base.py'\nitem2 = dict(b=dict(_delete_=False, z=1))")
    assert cfg.item2.b == dict(c=1, d=2, z=1)
    cfg = load(write, "_base_ = 'base.py'\n_delete_ = True\nx = 1")
    assert cfg._cfg_dict == dict(x=1)


def test_variables_of_the_child_are_its_own(write: Write) -> None:
    write("base.py", "n = 1\nx = dict(a=n)")
    assert load(write, "_base_ = 'base.py'\nn = 2\ny = n")._cfg_dict == dict(n=2, x=dict(a=1), y=2)


def test_cycle_says_the_way(write: Write, tmp_path: Path) -> None:
    write("a.py", "_base_ = 'b.py'")
    write("b.py", "_base_ = './sub/../a.py'")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    for name in ("a", "link"):
        with pytest.raises(
            ConfigError, match=r"_base_ leads back to the file itself: .*(a|link)\.py -> .*b\.py -> .*a\.py"
        ):
            Config.fromfile(tmp_path / f"{name}.py")


def test_chains_and_trees_of_bases_end(write: Write) -> None:
    write("b0.py", "")
    for i in range(1, 41):  # each twice: two to the fortieth files, if nobody counts
        write(f"b{i}.py", f"_base_ = ['b{i - 1}.py', 'b{i - 1}.py']")
    assert Config.fromfile(write("ok.py", "_base_ = 'b5.py'"))._cfg_dict == {}
    with pytest.raises(ConfigError, match="more than 256 files"):
        Config.fromfile(write("many.py", "_base_ = 'b20.py'"))
    with pytest.raises(ConfigError, match="more than 32 levels"):
        Config.fromfile(write("deep.py", "_base_ = 'b40.py'"))


def test_base_root(write: Write, tmp_path: Path) -> None:
    write("outside.py", "secret = 1")
    path = write("tree/a.py", "_base_ = '../outside.py'")
    assert Config.fromfile(path).secret == 1
    with pytest.raises(ConfigError, match=r"a\.py: .*outside\.py' lies outside of base_root"):
        Config.fromfile(path, base_root=tmp_path / "tree")
    (tmp_path / "tree" / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(ConfigError, match="outside of base_root"):
        Config.fromfile(tmp_path / "tree" / "link.py", base_root=tmp_path / "tree")
    inside = write("tree/sub/b.py", "_base_ = '../c.py'")
    write("tree/c.py", "x = 1")
    assert Config.fromfile(inside, base_root=tmp_path / "tree").x == 1


# Deprecation


def test_deprecated_file_is_replaced(write: Write) -> None:
    write("new/expected.py", "item1 = 'expected'")
    text = "_base_ = './new/expected.py'\n_deprecation_ = dict(expected='./new/expected.py', reference='http://x.y')"
    path = write("deprecated.py", text)
    with pytest.warns(
        UserWarning, match=r"deprecated\.py is deprecated.*expected\.py.*http://x\.y"
    ) as caught:
        cfg = Config.fromfile(path)
    assert caught[0].filename == __file__
    assert cfg._cfg_dict == dict(item1="expected")
    as_base = write("as_base.py", "_base_ = 'deprecated.py'\nitem2 = 1")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert Config.fromfile(as_base)._cfg_dict == dict(item1="expected", item2=1)
    own = write("own.py", "item1 = 'old'\n_deprecation_ = dict(expected='new/expected.py')")
    with pytest.warns(UserWarning, match="deprecated"):
        assert Config.fromfile(own).item1 == "expected"


def test_deprecated_file_without_replacement(write: Write) -> None:
    path = write("a.py", "x = 1\n_deprecation_ = dict(expected='gone.py')")
    with pytest.warns(UserWarning, match="deprecated"):
        assert Config.fromfile(path)._cfg_dict == dict(x=1)
    with pytest.raises(TypeError, match="_deprecation_ must be a dict"):
        Config.fromfile(write("b.py", "_deprecation_ = 3"))


# merge_from_dict


def test_merge_from_dict() -> None:
    cfg = Config(dict(item1=[1, 2], item2=dict(a=0), item3=True))
    options: dict[str, Any] = {"item2.a": 1, "item2.b": 0.1, "item3": False, "new.deep.key": dict(x=1)}
    before = copy.deepcopy(options)
    cfg.merge_from_dict(options)
    assert cfg._cfg_dict == dict(
        item1=[1, 2], item2=dict(a=1, b=0.1), item3=False, new=dict(deep=dict(key=dict(x=1)))
    )
    assert cfg.new.deep.key.x == 1
    assert options == before


def test_merge_list_elements() -> None:
    cfg = Config(
        dict(
            pipeline=[dict(type="LoadImage"), dict(type="LoadAnnotations")],
            scale=(1, 2),
            grid=[[1, 2], [3, 4]],
        )
    )
    cfg.merge_from_dict(dict(pipeline={"0": dict(type="SelfLoadImage")}))
    assert cfg.pipeline == [dict(type="SelfLoadImage"), dict(type="LoadAnnotations")]
    cfg.merge_from_dict({"pipeline.1.prob": 0.5, "scale.0": 7, "grid.1.0": 9})
    assert cfg.pipeline[1] == dict(type="LoadAnnotations", prob=0.5)
    assert cfg.scale == (7, 2)
    assert cfg.grid == [[1, 2], [9, 4]]


def test_merge_list_errors() -> None:
    cfg = Config(dict(pipeline=[dict(type="A")]))
    with pytest.raises(KeyError, match=r"index 1 of 'pipeline.1' exceeds the length 1"):
        cfg.merge_from_dict({"pipeline.1.type": "B"})
    with pytest.raises(TypeError, match="pipeline is a dict here but a list"):
        cfg.merge_from_dict({"pipeline.0.type": "B"}, allow_list_keys=False)
    with pytest.raises(TypeError, match=r"set by index, like 'pipeline.0', got 'first'"):
        cfg.merge_from_dict({"pipeline.first": 1})
    assert cfg.pipeline == [dict(type="A")]


def test_conflicting_options() -> None:
    with pytest.raises(KeyError, match=r"'a.b' lies below 'a', which is set to 1"):
        Config().merge_from_dict({"a": 1, "a.b": 2})
    with pytest.raises(TypeError, match="str keys"):
        Config().merge_from_dict({1: 2})  # type: ignore[dict-item]
    cfg = Config()
    cfg.merge_from_dict({"a": dict(x=1), "a.b": 2})
    assert cfg.a == dict(x=1, b=2)


trees = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
dicts = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(dicts, dicts)
def test_merge_properties(child: dict[str, Any], base: dict[str, Any]) -> None:
    child_before, base_before = copy.deepcopy(child), copy.deepcopy(base)
    try:
        merged = merge(child, base)
    except TypeError:
        assert conflict(child, base)
        return
    finally:
        assert (child, base) == (child_before, base_before)
    assert not conflict(child, base)
    # Everything of the child is there, and of the base all that the child does not name.
    assert flat(merged) == {**{k: v for k, v in flat(base).items() if not shadowed(k, child)}, **flat(child)}
    assert merge(child, merged) == merged
    assert merge({}, base) == base


def flat(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    result: dict[tuple[str, ...], Any] = {path: "dict"} if path else {}
    for key, value in tree.items():
        result.update(flat(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value})
    return result


def shadowed(path: tuple[str, ...], child: Any) -> bool:
    for key in path:
        if not isinstance(child, dict):
            return True
        if key not in child:
            return False
        child = child[key]
    return not isinstance(child, dict)


def conflict(child: Any, base: Any) -> bool:
    return any(
        key in base and (not isinstance(base[key], dict) or conflict(value, base[key]))
        for key, value in child.items()
        if isinstance(value, dict)
    )
