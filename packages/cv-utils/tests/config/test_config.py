"""Config as its user sees it: reading, attributes, text, pickling, and what the reference documents."""

import copy
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cv.utils.config import Config, ConfigDict, ConfigError, UntrustedCodeError

CONTENT = dict(item1=[1, 2], item2=dict(a=0), item3=True, item4="test")
PYTHON = "item1 = [1, 2]\nitem2 = dict(a=0)\nitem3 = True\nitem4 = 'test'\n"
TEXTS = {"a.py": PYTHON, "a.b.py": PYTHON, "b.json": json.dumps(CONTENT), "c.yaml": yaml.dump(CONTENT)}
Write = Callable[[str, str], Path]


def test_empty() -> None:
    cfg = Config()
    assert cfg.filename is None
    assert cfg.text == ""
    assert len(cfg) == 0
    assert cfg._cfg_dict == {}
    assert cfg.pretty_text == ""


def test_not_a_dict() -> None:
    with pytest.raises(TypeError, match="cfg_dict must be a dict, got list"):
        Config([0, 1])  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["filename", "text", "pretty_text"])
def test_reserved_keys(key: str, write: Write) -> None:
    with pytest.raises(KeyError, match="reserved"):
        Config({key: 1})
    with pytest.raises(KeyError, match="reserved"):
        Config.fromfile(write("a.py", f"{key} = 1"))
    cfg = Config()
    with pytest.raises(KeyError, match="reserved"):
        cfg[key] = 1
    with pytest.raises(AttributeError):
        setattr(cfg, key, 1)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", [str, Path])
def test_fromfile(name: str, kind: type, write: Write) -> None:
    path = kind(write(name, TEXTS[name]))
    cfg = Config.fromfile(path)
    assert cfg._cfg_dict == CONTENT
    assert cfg.filename == str(path)
    assert cfg.text == f"{path}\n{TEXTS[name]}"
    assert cfg.item2.a == 0
    assert repr(cfg) == f"Config [path: {path}]: {CONTENT}"


@pytest.mark.parametrize("name", ["a.py", "b.json", "c.yaml"])
def test_construct_with_filename_and_dump(name: str, write: Write, tmp_path: Path) -> None:
    path = write(name, TEXTS[name])
    cfg = Config(CONTENT, filename=path)
    assert cfg.text == TEXTS[name]
    expected = {"a.py": cfg.pretty_text, "b.json": json.dumps(CONTENT), "c.yaml": yaml.dump(CONTENT)}[name]
    assert cfg.dump() == expected
    target = tmp_path / f"dumped{path.suffix}"
    assert cfg.dump(target) is None
    assert target.read_text(encoding="utf-8") == expected
    assert Config.fromfile(target)._cfg_dict == CONTENT


def test_text_is_absolute_and_with_bases_first(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("bases/base.py", "x = 1\n")
    write("sub/child.py", "_base_ = '../bases/base.py'\n")
    monkeypatch.chdir(tmp_path / "sub")
    text = Config.fromfile("child.py").text
    assert text == (
        f"{tmp_path}/bases/base.py\nx = 1\n\n{tmp_path}/sub/child.py\n_base_ = '../bases/base.py'\n"
    )


def test_home_folder(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.py", "x = 1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.fromfile("~/a.py").x == 1


def test_missing_and_unknown_files(write: Write, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config file .*no_such_file\.py"):
        Config.fromfile(tmp_path / "no_such_file.py")
    with pytest.raises(OSError, match=r"only py/yml/yaml/json type are supported now, got 'color\.jpg'"):
        Config.fromfile(write("color.jpg", ""))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        Config.fromfile(tmp_path / "folder.py")


def test_missing_base_is_named_with_the_file_that_asks_for_it(write: Write) -> None:
    path = write("a.py", "_base_ = 'gone.py'")
    with pytest.raises(FileNotFoundError, match=rf"{path}: there is no config file .*gone\.py"):
        Config.fromfile(path)


@pytest.mark.parametrize(("name", "text"), [("a.json", "[1]"), ("a.yaml", "- 1"), ("b.json", "3")])
def test_a_file_that_is_not_a_dict(name: str, text: str, write: Write) -> None:
    with pytest.raises(TypeError, match="a config must be a dict"):
        Config.fromfile(write(name, text))


@pytest.mark.parametrize("name", ["a.py", "a.yaml"])
def test_empty_file(name: str, write: Write) -> None:
    assert Config.fromfile(write(name, ""))._cfg_dict == {}


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.json", '{"a": 1,\n "b": }', "line 2: column 7"),
        ("a.yaml", "a: 1\nb: @x\n", "line 2: column 4"),
        ("a.yml", "a: !!python/object/apply:os.system ['id']", "line 1"),
    ],
)
def test_malformed_data_names_file_and_line(name: str, text: str, place: str, write: Write) -> None:
    path = write(name, text)
    with pytest.raises(ConfigError) as caught:
        Config.fromfile(path)
    assert str(caught.value).startswith(f"{path}, {place}")


@pytest.mark.parametrize("trust", [False, True])
def test_syntax_error(trust: bool, write: Write) -> None:
    path = write("a.py", "x = 1\ny = = 2\n")
    with pytest.raises(SyntaxError, match="There are syntax errors in config file") as caught:
        Config.fromfile(path, trust=trust)
    assert (caught.value.filename, caught.value.lineno, caught.value.text) == (str(path), 2, "y = = 2")
    assert str(path) in str(caught.value)


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Config.fromfile(tmp_path / "a.py")


# Being a dict


def test_dict_methods(write: Write) -> None:
    cfg = Config.fromfile(write("a.py", PYTHON))
    assert list(cfg) == list(cfg.keys()) == list(CONTENT)
    assert list(cfg.values()) == list(CONTENT.values())
    assert dict(cfg.items()) == CONTENT
    assert len(cfg) == 4
    assert "item1" in cfg
    assert "item9" not in cfg
    assert cfg.get("item9", 3) == 3
    assert cfg.pop("item4") == "test"
    assert "item4" not in cfg


def test_set_and_delete() -> None:
    cfg = Config()
    cfg.item1 = [1, 2]
    cfg.item2 = {"a": 0}
    cfg["item5"] = {"a": {"b": None}}
    assert cfg._cfg_dict["item1"] == [1, 2]
    assert cfg.item2.a == 0
    assert isinstance(cfg._cfg_dict, ConfigDict)
    cfg.item5.a.b = [{"c": 1}]
    assert cfg.item5.a.b[0].c == 1
    del cfg.item1
    del cfg["item2"]
    assert list(cfg) == ["item5"]


def test_setting_a_method_name_says_how() -> None:
    cfg = Config()
    with pytest.raises(AttributeError, match="'dump' is an attribute of Config"):
        cfg.dump = 1  # type: ignore[method-assign,assignment]
    with pytest.raises(AttributeError, match=r"cfg\['items'\]"):
        cfg.items = 1
    cfg["items"] = 1
    assert cfg["items"] == 1


def test_missing_keys_suggest() -> None:
    cfg = Config(dict(backbone=1, neck=2))
    with pytest.raises(AttributeError, match=r"no attribute 'bakbone'. Did you mean 'backbone'"):
        cfg.bakbone  # noqa: B018
    with pytest.raises(KeyError, match="Did you mean 'backbone'"):
        cfg["bakbone"]


def test_caller_keeps_its_dict() -> None:
    mine = dict(a=dict(b=[1]), c=[dict(d=2)])
    cfg = Config(mine)
    cfg.a.b.append(2)
    cfg.c[0].d = 3
    assert mine == dict(a=dict(b=[1]), c=[dict(d=2)])
    assert type(mine["a"]) is dict


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))])
def test_deep_copies(clone: Callable[[Config], Config], write: Write) -> None:
    cfg = Config.fromfile(write("a.py", PYTHON))
    other = clone(cfg)
    assert isinstance(other, Config)
    assert (other._cfg_dict, other.filename, other.text) == (cfg._cfg_dict, cfg.filename, cfg.text)
    assert type(other.item2) is ConfigDict
    other.item2.a = 5
    other.item1.append(3)
    assert (cfg.item2.a, cfg.item1) == (0, [1, 2])


def test_shallow_copy() -> None:
    cfg = Config(dict(a=dict(b=1)))
    other = copy.copy(cfg)
    other.c = 2
    assert "c" not in cfg
    assert other.a is cfg.a


def test_the_documented_access_to_the_dict() -> None:
    cfg = Config(dict(model=dict(backbone=dict(type="ResNet"))))
    cfg.merge_from_dict({"model.backbone.depth": 50, "model.backbone.with_cp": True})
    cfg_dict = super(Config, cfg).__getattribute__("_cfg_dict")
    assert cfg_dict == dict(model=dict(backbone=dict(type="ResNet", depth=50, with_cp=True)))


# Custom imports


def test_custom_imports_run_and_can_be_turned_off(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("cv_test_custom_module.py", "LOADED = True\n")
    path = write("a.py", "custom_imports = dict(imports=['cv_test_custom_module'])")
    monkeypatch.syspath_prepend(str(tmp_path))
    Config.fromfile(path, import_custom_modules=False)
    assert "cv_test_custom_module" not in sys.modules
    Config.fromfile(path)
    assert sys.modules.pop("cv_test_custom_module").LOADED


def test_custom_imports_that_fail(write: Write) -> None:
    path = write("a.py", "custom_imports = dict(imports=['cv_test_no_such_module'])")
    with pytest.raises(ImportError):
        Config.fromfile(path)
    path = write(
        "b.py", "custom_imports = dict(imports=['cv_test_no_such_module'], allow_failed_imports=True)"
    )
    with pytest.warns(UserWarning, match="cv_test_no_such_module"):
        Config.fromfile(path)
    with pytest.raises(TypeError, match="custom_imports must be a dict"):
        Config.fromfile(write("c.py", "custom_imports = 3"))


# fromstring


@pytest.mark.parametrize(
    ("text", "file_format"),
    [
        (PYTHON, "py"),
        (PYTHON, ".py"),
        (TEXTS["b.json"], ".json"),
        (TEXTS["c.yaml"], "yaml"),
        (TEXTS["c.yaml"], ".yml"),
    ],
)
def test_fromstring(text: str, file_format: str) -> None:
    cfg = Config.fromstring(text, file_format)
    assert cfg._cfg_dict == CONTENT
    assert cfg.text == text


def test_fromstring_errors(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="file_format='xml'"):
        Config.fromstring("", "xml")
    with pytest.raises(ConfigError, match=r"<string>.json, line 1"):
        Config.fromstring(PYTHON, ".json")
    with pytest.raises(UntrustedCodeError, match="importing 'sys'"):
        Config.fromstring("import sys", "py")
    write("base.py", "x = 1")
    monkeypatch.chdir(tmp_path)
    assert Config.fromstring("_base_ = 'base.py'\ny = {{_base_.x}}", "py")._cfg_dict == dict(x=1, y=1)


# Trust


CODE = """import sys

def add(a, b):
    return a + b

class A:
    pass

x = add(1, 2)
modules = len(sys.modules) > 0
"""


def test_trust_runs_the_file(write: Write) -> None:
    path = write("a.py", CODE)
    with pytest.raises(
        UntrustedCodeError,
        match=r"line 1: importing 'sys' .*\n    import sys\n.*trust=True.*CV_CONFIG_TRUST=1",
    ):
        Config.fromfile(path)
    # Modules, functions and classes are no keys.
    assert Config.fromfile(path, trust=True)._cfg_dict == dict(x=3, modules=True)
    assert Config.fromstring(CODE, "py", trust=True).x == 3
    assert Config._file2dict(path, trust=True)[0] == dict(x=3, modules=True)


@pytest.mark.parametrize(
    ("value", "trusted"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)]
)
def test_trust_by_environment(
    value: str, trusted: bool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.py", CODE)
    monkeypatch.setenv("CV_CONFIG_TRUST", value)
    if trusted:
        assert Config.fromfile(path).x == 3
    else:
        with pytest.raises(UntrustedCodeError):
            Config.fromfile(path)
    with pytest.raises(UntrustedCodeError):
        Config.fromfile(path, trust=False)  # the argument is stronger


def test_trust_reaches_the_bases(write: Write) -> None:
    write("base.py", CODE)
    path = write("a.py", "_base_ = './base.py'")
    with pytest.raises(UntrustedCodeError, match=r"base\.py, line 1"):
        Config.fromfile(path)
    assert Config.fromfile(path, trust=True).x == 3


def test_errors_of_trusted_code_are_its_own(write: Write) -> None:
    with pytest.raises(ZeroDivisionError):
        Config.fromfile(write("a.py", "x = 1 / 0"), trust=True)


def test_file_and_name(write: Write) -> None:
    path = write("a.py", "import os.path as osp\nfolder = osp.dirname(__file__)\nname = __name__")
    for trust in (False, True):
        assert Config.fromfile(path, trust=trust)._cfg_dict == dict(folder=str(path.parent), name="a")


def test_file2dict(write: Write) -> None:
    path = write("a.py", PYTHON)
    content, text = Config._file2dict(str(path))
    assert content == CONTENT
    assert type(content["item2"]) is dict
    assert text == f"{path}\n{PYTHON}"


def test_errors_can_be_pickled(write: Write) -> None:
    with pytest.raises(UntrustedCodeError) as caught:
        Config.fromfile(write("a.py", "x = 1\nimport sys"))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.lineno, error.filename) == (str(caught.value), 2, caught.value.filename)
