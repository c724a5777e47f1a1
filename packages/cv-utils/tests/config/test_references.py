"""``{{ fileDirname }}`` and its kin, and ``{{ _base_.a.b }}``, in Python, JSON and YAML."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cv.utils.config import Config, ConfigError

Write = Callable[[str, str], Path]
VARIABLES_IN_PYTHON = """d = '{{ fileDirname }}'
b = '{{fileBasename}}'
s = f'{{ fileBasenameNoExtension}}-{1 + 1}'
e = 'x{{  fileExtname}}'
"""
VARIABLES_IN_JSON = """{"d": "{{ fileDirname }}", "b": {{ fileBasename }},
"s": "{{fileBasenameNoExtension}}-2", "e": "x{{fileExtname}}"}"""
VARIABLES_IN_YAML = """d: {{ fileDirname }}
b: '{{ fileBasename }}'
s: {{fileBasenameNoExtension}}-2
e: x{{fileExtname}}
"""


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my.cfg.py", VARIABLES_IN_PYTHON),
        ("my.cfg.json", VARIABLES_IN_JSON),
        ("my.cfg.yaml", VARIABLES_IN_YAML),
    ],
)
def test_predefined_variables(name: str, text: str, trust: bool, write: Write) -> None:
    path = write(name, text)
    cfg = Config.fromfile(path, trust=trust)
    assert cfg._cfg_dict == dict(d=str(path.parent), b=path.name, s="my.cfg-2", e="x" + path.suffix)


def test_each_file_has_its_own_name(write: Write) -> None:
    write("sub/base.py", "base_name = '{{ fileBasename }}'")
    cfg = Config.fromfile(write("child.py", "_base_ = 'sub/base.py'\nname = '{{ fileBasename }}'"))
    assert cfg._cfg_dict == dict(base_name="base.py", name="child.py")


def test_turned_off(write: Write) -> None:
    path = write("a.py", "x = '{{ fileDirname }}'")
    assert Config.fromfile(path, False).x == "{{ fileDirname }}"
    assert Config.fromfile(path, use_predefined_variables=False).x == "{{ fileDirname }}"
    assert Config._file2dict(path, False)[0] == {"x": "{{ fileDirname }}"}


@pytest.mark.parametrize("trust", [False, True])
def test_names_are_never_parsed(trust: bool, write: Write) -> None:
    folder = 'it\'s "q" \\n {1/0} {{ fileExtname }} # x: y'
    path = write(
        f"{folder}/a.py", "x = '{{ fileDirname }}'\ny = f'{{ fileDirname }}{1}'\nz = \"{{ fileDirname }}/b\""
    )
    cfg = Config.fromfile(path, trust=trust)
    assert (cfg.x, cfg.y, cfg.z) == (str(path.parent), f"{path.parent}1", f"{path.parent}/b")
    path = write(f"{folder}/a.yaml", "x: {{ fileDirname }}\ny: a {{ fileDirname }}")
    cfg = Config.fromfile(path)
    assert (cfg.x, cfg.y) == (str(path.parent), f"a {path.parent}")


def test_keys_and_computed_strings(write: Write) -> None:
    path = write(
        "abc.py",
        "x = {'{{ fileBasename }}': 1}\ny = '{{ fileBasename }}'.upper()\nz = len('{{ fileBasename }}')",
    )
    assert Config.fromfile(path)._cfg_dict == dict(x={"abc.py": 1}, y="ABC.PY", z=6)


BASE = "item1 = [1, 2]\nitem2 = dict(a=dict(b=0.5), s='text')\nitem3 = [dict(x=1), dict(x=2)]\n"
EXPECTED = dict(
    item4=[1, 2],
    item5=0.5,
    item6="a/text/b",
    item7=[dict(b=0.5), 2],
    item8="text",
    item9={"text": 0},
    item10="0.5!",
)
PYTHON = """_base_ = './base.py'
item4 = {{ _base_.item1 }}
item5 = {{_base_.item2.a.b}}
item6 = 'a/{{ _base_.item2.s }}/b'
item7 = [{{ _base_.item2.a }}, {{ _base_.item3[-1].x }}]
item8 = '{{ _base_.item2.s }}'
item9 = {'{{ _base_.item2.s }}': 0}
item10 = f'{{ _base_.item2.a.b }}{"!"}'
"""
JSON = """{"_base_": "./base.py",
 "item4": {{ _base_.item1 }}, "item5": {{_base_.item2.a.b}}, "item6": "a/{{ _base_.item2.s }}/b",
 "item7": [{{ _base_.item2.a }}, "{{ _base_.item3.1.x }}"], "item8": "{{ _base_.item2.s }}",
 "item9": {"{{ _base_.item2.s }}": 0}, "item10": "{{ _base_.item2.a.b }}!"}
"""
YAML = """_base_: ./base.py
item4: {{ _base_.item1 }}
item5: {{_base_.item2.a.b}}
item6: a/{{ _base_.item2.s }}/b
item7: [{{ _base_.item2.a }}, "{{ _base_.item3.1.x }}"]
item8: '{{ _base_.item2.s }}'
item9: {"{{ _base_.item2.s }}": 0}
item10: "{{ _base_.item2.a.b }}!"
"""


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(("name", "text"), [("c.py", PYTHON), ("c.json", JSON), ("c.yaml", YAML)])
def test_references_into_the_base(name: str, text: str, trust: bool, write: Write) -> None:
    write("base.py", BASE)
    cfg = Config.fromfile(write(name, text), trust=trust)
    assert {key: cfg[key] for key in EXPECTED} == EXPECTED
    assert cfg.item7[0].b == 0.5
    assert cfg.item2.a.b == 0.5


@pytest.mark.parametrize("trust", [False, True])
def test_a_reference_is_a_copy_and_may_be_computed_with(trust: bool, write: Write) -> None:
    write("base.py", BASE)
    text = "_base_ = ['base.py']\nx = {{ _base_.item1 }}\nx.append(3)\ny = {{ _base_.item2.a.b }} * 2\n"
    cfg = Config.fromfile(write("c.py", text), trust=trust)
    assert (cfg.item1, cfg.x, cfg.y) == ([1, 2], [1, 2, 3], 1.0)


@pytest.mark.parametrize("trust", [False, True])
def test_base_set_after_the_reference(trust: bool, write: Write) -> None:
    write("base.py", BASE)
    assert Config.fromfile(write("c.py", "x = {{ _base_.item1 }}\n_base_ = 'base.py'"), trust=trust).x == [
        1,
        2,
    ]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "_base_ = 'base.py'\n\nx = {{ _base_.item2.c.d }}",
            r"c\.py, line 3: .*_base_\.item2\.c\.d.* no 'c' there",
        ),
        ("_base_ = 'base.py'\nx = [{{ _base_.item1[7] }}]", r"line 2: .*no '7' there"),
        ("_base_ = 'base.py'\nx = {{ _base_.item1.append }}", r"line 2: .*no 'append' there"),
        ("_base_ = 'base.py'\nx = {{ _base_.item2.__class__ }}", r"line 2: .*no '__class__' there"),
        ("x = 'a {{ _base_.item1 }}'", r"c\.py, line 1: .*there is no _base_"),
    ],
)
def test_bad_references(text: str, message: str, trust: bool, write: Write) -> None:
    write("base.py", BASE)
    with pytest.raises(ConfigError, match=message):
        Config.fromfile(write("c.py", text), trust=trust)


def test_bad_reference_in_data(write: Write) -> None:
    write("base.py", BASE)
    with pytest.raises(ConfigError, match="no 'zzz' there"):
        Config.fromfile(write("c.json", '{"_base_": "base.py", "x": {{ _base_.zzz }}}'))
    with pytest.raises(ConfigError, match="_base_ itself cannot refer"):
        Config.fromfile(write("c.yaml", "_base_: '{{ _base_.x }}'"))


def test_other_braces_are_left_alone(write: Write) -> None:
    text = "a = {'x': {'y': 1}}\nb = f'{{x}}'\nc = '{{ other }}'\nd = '_cv_reference0_ {{ fileExtname }}'\n"
    cfg = Config.fromfile(write("c.py", text))
    assert cfg._cfg_dict == dict(a=dict(x=dict(y=1)), b="{x}", c="{{ other }}", d="_cv_reference0_ .py")
