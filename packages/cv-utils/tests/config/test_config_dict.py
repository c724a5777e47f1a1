"""ConfigDict: a dict, and attributes at every depth."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.utils.config import ConfigDict

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def only_config_dicts(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is ConfigDict and all(map(only_config_dicts, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(only_config_dicts, value))


@given(st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_is_the_same_dict(content: dict[str, Any]) -> None:
    cfg = ConfigDict(content)
    assert cfg == content
    assert repr(cfg) == repr(content)
    assert list(cfg) == list(content)
    assert only_config_dicts(cfg)
    plain = cfg.to_dict()
    assert plain == content
    assert type(plain) is dict
    assert repr(plain) == repr(content)
    for clone in (copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg)), cfg.deepcopy(), ConfigDict(cfg)):
        assert clone == cfg
        assert only_config_dicts(clone)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4), values)
def test_whatever_puts_values_in_converts_them(content: dict[str, Any], value: Any) -> None:
    ways = [ConfigDict(content) for _ in range(6)]
    ways[0]["k"] = value
    ways[1].update(k=value)
    ways[2].update({"k": value})
    ways[3] |= {"k": value}
    ways[4].pop("k", None)
    assert ways[4].setdefault("k", value) == value
    ways[5] = ways[5] | {"k": value}
    for cfg in ways:
        assert cfg == {**content, "k": value}
        assert only_config_dicts(cfg)


def test_attributes() -> None:
    cfg = ConfigDict(a=dict(b=[dict(c=1)]))
    assert cfg.a.b[0].c == 1
    cfg.a.d = dict(e=(dict(f=2),))
    assert cfg["a"]["d"]["e"][0].f == 2
    del cfg.a.d
    assert "d" not in cfg.a
    assert hasattr(cfg, "a")
    assert not hasattr(cfg, "z")
    assert getattr(cfg, "z", 3) == 3
    assert cfg.get("z") is None
    assert "a" in dir(cfg)


def test_set_keeps_identity_where_nothing_is_converted() -> None:
    cfg = ConfigDict()
    mine = [1, [2]]
    cfg.mine = mine
    assert cfg.mine is mine
    inner = ConfigDict(a=1)
    cfg.inner = [inner]
    assert cfg.inner[0] is inner


def test_constructor_copies_containers() -> None:
    mine: dict[str, Any] = {"a": [1], "b": {"c": [2]}}
    cfg = ConfigDict(mine)
    cfg.a.append(3)
    cfg.b.c.append(4)
    assert mine == {"a": [1], "b": {"c": [2]}}


def test_copy_is_shallow_and_keeps_the_type() -> None:
    cfg = ConfigDict(a=dict(b=1))
    for other in (cfg.copy(), copy.copy(cfg)):
        assert type(other) is ConfigDict
        assert other.a is cfg.a
        other.z = 1
        assert "z" not in cfg


def test_update_replaces_like_a_dict() -> None:
    cfg = ConfigDict(a=dict(b=1, c=2))
    cfg.update(a=dict(b=3))
    assert cfg == dict(a=dict(b=3))


def test_or_gives_config_dicts() -> None:
    assert type(ConfigDict(a=1) | {"b": 2}) is ConfigDict
    assert type({"b": 2} | ConfigDict(a=1)) is ConfigDict
    assert {"a": 2, "b": 2} | ConfigDict(a=1) == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        ConfigDict() | 3


def test_missing_keys() -> None:
    cfg = ConfigDict(backbone=1, neck=2, head=3)
    with pytest.raises(
        AttributeError, match=r"^'ConfigDict' object has no attribute 'haed'. Did you mean 'head'\?$"
    ):
        cfg.haed  # noqa: B018
    with pytest.raises(AttributeError, match=r"'zzz'; the keys are 'backbone', 'neck', 'head'$"):
        cfg.zzz  # noqa: B018
    with pytest.raises(KeyError, match=r"'haed'. Did you mean 'head'\?"):
        cfg["haed"]
    with pytest.raises(AttributeError, match="it is empty"):
        ConfigDict().x  # noqa: B018
    with pytest.raises(KeyError) as caught:
        cfg[3]
    assert caught.value.args == (3,)
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        del cfg.x


def test_method_names_stay_methods() -> None:
    cfg = ConfigDict({"items": 1})
    assert dict(cfg.items()) == {"items": 1}
    with pytest.raises(AttributeError, match=r"cfg\['items'\]"):
        cfg.items = 2  # type: ignore[method-assign,assignment]
