"""Registries: registration, lookup through the tree, entry points, building, and every error text."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from cv.utils import CvDeprecationWarning, Registry, UsageError, build_from_cfg


class ResNet:
    def __init__(self, depth: int, stages: int = 4) -> None:
        self.depth = depth
        self.stages = stages


class VGG:
    pass


@pytest.fixture
def backbones() -> Registry:
    registry = Registry("backbone", scope="test")
    registry.register_module(module=ResNet)
    return registry


# --- registration


def test_three_historical_ways_to_register() -> None:
    registry = Registry("backbone")

    @registry.register_module()
    class A:
        pass

    with pytest.warns(CvDeprecationWarning, match="deprecated"):

        @registry.register_module
        class B:
            pass

    class C:
        pass

    with pytest.warns(UserWarning, match="deprecated"):
        assert registry.register_module(C) is C
    with pytest.warns(DeprecationWarning, match="deprecated"):
        registry.register_module(C, force=True)

    with pytest.warns(CvDeprecationWarning, match="deprecated"):

        @registry.deprecated_register_module(force=True)
        class C:
            pass

    assert dict(registry.module_dict) == {"A": A, "B": B, "C": C}
    assert len(registry) == 3


def test_old_way_warns_at_the_line_of_the_caller() -> None:
    with pytest.warns(CvDeprecationWarning) as caught:
        Registry("backbone").register_module(VGG)
    assert caught[0].filename == __file__


def test_register_by_call_under_one_or_several_names() -> None:
    registry = Registry("backbone")
    assert registry.register_module("vgg", module=VGG) is VGG
    registry.register_module(["vgg11", "vgg16"], module=VGG)
    registry.register_module(module=VGG)
    assert list(registry.module_dict) == ["vgg", "vgg11", "vgg16", "VGG"]
    assert registry.get("vgg16") is VGG


def test_duplicate_is_an_error_that_says_who_has_the_name(backbones: Registry) -> None:
    other = type("ResNet", (), {})
    with pytest.raises(
        KeyError, match=r"ResNet is already registered in backbone \(by .*test_registry\.ResNet\)"
    ):
        backbones.register_module(module=other)
    assert backbones.get("ResNet") is ResNet
    backbones.register_module(module=other, force=True)
    assert backbones.get("ResNet") is other


def test_a_clash_among_several_names_registers_none(backbones: Registry) -> None:
    with pytest.raises(KeyError):
        backbones.register_module(["new", "ResNet"], module=VGG)
    assert "new" not in backbones


@pytest.mark.parametrize("name", [1, 1.5, ["a", 2], {"a"}, b"a"])
def test_bad_name(backbones: Registry, name: Any) -> None:
    with pytest.raises(TypeError, match="name must be"):
        backbones.register_module(name=name, module=VGG)


def test_bad_module_and_force(backbones: Registry) -> None:
    with pytest.raises(TypeError, match="module must be a class, but got <class 'function'>"):
        backbones.register_module(module=lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="module must be a class"):
        backbones.register_module()(len)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="force must be a boolean, but got <class 'int'>"):
        backbones.register_module(force=1, module=VGG)  # type: ignore[call-overload]


def test_repr_len_contains(backbones: Registry) -> None:
    assert repr(backbones) == f"Registry(name=backbone, items={{'ResNet': {ResNet!r}}})"
    assert len(backbones) == 1
    assert "ResNet" in backbones
    assert "resnet" not in backbones
    assert len(Registry("empty")) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": 3}, TypeError),
        ({"parent": "models"}, TypeError),
        ({"scope": 3}, TypeError),
        ({"scope": "a.b"}, UsageError),
        ({"scope": ""}, UsageError),
    ],
)
def test_bad_constructor_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        Registry(**{"name": "x", **arguments})


# --- scopes and the tree


def test_infer_scope_is_the_top_package_of_the_caller() -> None:
    space: dict[str, Any] = {"__name__": "mmdet.models.builder", "Registry": Registry}
    exec("models = Registry('models'); scope = Registry.infer_scope()", space)
    assert space["models"].scope == "mmdet"
    assert space["scope"] == "mmdet"
    exec("def make(): return Registry('models').scope", space)
    assert space["make"]() == "mmdet"


def test_split_scope_key() -> None:
    assert Registry.split_scope_key("mmdet.ResNet") == ("mmdet", "ResNet")
    assert Registry.split_scope_key("ResNet") == (None, "ResNet")
    assert Registry.split_scope_key("a.b.C") == ("a", "b.C")


class Tree:
    """dogs ── hounds ── little_hounds, and dogs ── samoyeds."""

    def __init__(self) -> None:
        self.dogs = Registry("dogs", scope="dog")
        self.hounds = Registry("hounds", parent=self.dogs, scope="hound")
        self.little = Registry("little hounds", parent=self.hounds, scope="little")
        self.samoyeds = Registry("samoyeds", parent=self.dogs, scope="samoyed")
        self.everybody = [self.dogs, self.hounds, self.little, self.samoyeds]
        self.dog, self.hound, self.dachshund, self.sammy = (type(n, (), {}) for n in "ABCD")
        self.dogs.register_module("Golden", module=self.dog)
        self.hounds.register_module("Blood", module=self.hound)
        self.little.register_module("Dachshund", module=self.dachshund)
        self.samoyeds.register_module("Sammy", module=self.sammy)


def test_scoped_names_are_found_from_anywhere() -> None:
    tree = Tree()
    for registry in tree.everybody:
        assert registry.get("dog.Golden") is tree.dog
        assert registry.get("hound.Blood") is tree.hound
        assert registry.get("hound.little.Dachshund") is tree.dachshund
        assert registry.get("samoyed.Sammy") is tree.sammy
        assert registry.get("dog.hound.Blood") is tree.hound
    assert tree.hounds.get("little.Dachshund") is tree.dachshund
    assert tree.little.get("little.Dachshund") is tree.dachshund
    assert tree.dogs.get("little.Dachshund") is None  # not a child of dogs


def test_plain_names_are_looked_up_here_and_above_never_below() -> None:
    tree = Tree()
    assert all(registry.get("Golden") is tree.dog for registry in tree.everybody)
    assert tree.dogs.get("Blood") is None
    assert tree.samoyeds.get("Blood") is None
    override = type("Golden", (), {})
    tree.little.register_module("Golden", module=override)
    assert tree.little.get("Golden") is override
    assert tree.dogs.get("Golden") is tree.dog


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "nobody.Golden", "dog.Nobody", "hound.samoyed.Sammy"])
def test_unknown_keys_give_none(key: str) -> None:
    for registry in Tree().everybody:
        assert registry.get(key) is None
        assert key not in registry


def test_configs_of_mmcv_name_our_registries_by_its_name() -> None:
    ours = Registry("activations", scope="cv")
    theirs = Registry("their activations", parent=ours, scope="mmocr")
    gelu = ours.register_module(module=type("GELU", (), {}))
    for registry in (ours, theirs):
        assert registry.get("mmcv.GELU") is registry.get("cv.GELU") is gelu
    assert isinstance(theirs.build({"type": "mmcv.GELU"}), gelu)
    assert Registry("others", scope="base").get("mmcv.GELU") is None
    own = Registry("a child of that name", parent=ours, scope="mmcv")
    relu = own.register_module(module=type("ReLU", (), {}))
    assert theirs.get("mmcv.ReLU") is relu


def test_scope_clash() -> None:
    tree = Tree()
    with pytest.raises(AssertionError, match="scope hound exists in dogs registry"):
        Registry("other", parent=tree.dogs, scope="hound")


def test_build_func_is_inherited_or_given() -> None:
    def build(cfg: Any, registry: Registry, extra: int = 0) -> tuple[Any, ...]:
        return "built", cfg, registry, extra

    parent = Registry("parent", build_func=build)
    child = Registry("child", parent=parent, scope="child")
    own = Registry("own", parent=parent, scope="own", build_func=lambda cfg, registry: cfg)
    assert parent.build({"a": 1}, extra=2) == ("built", {"a": 1}, parent, 2)
    assert child.build({"a": 1}) == ("built", {"a": 1}, child, 0)
    assert own.build("anything") == "anything"


# --- building


def test_build_from_cfg(backbones: Registry) -> None:
    cfg = {"type": "ResNet", "depth": 50}
    model = build_from_cfg(cfg, backbones)
    assert isinstance(model, ResNet)
    assert (model.depth, model.stages) == (50, 4)
    assert cfg == {"type": "ResNet", "depth": 50}

    defaults = {"depth": 18, "stages": 3}
    model = backbones.build(cfg, default_args=defaults)
    assert (model.depth, model.stages) == (50, 3)
    assert defaults == {"depth": 18, "stages": 3}


def test_build_with_a_class_or_a_type_among_the_defaults(backbones: Registry) -> None:
    assert isinstance(build_from_cfg({"type": VGG}, backbones), VGG)
    assert isinstance(build_from_cfg({"depth": 50}, backbones, {"type": "ResNet"}), ResNet)


def test_build_from_a_scoped_name() -> None:
    tree = Tree()
    assert isinstance(tree.samoyeds.build({"type": "hound.little.Dachshund"}), tree.dachshund)


@pytest.mark.parametrize(
    ("cfg", "registry", "defaults", "text"),
    [
        ("ResNet", Registry("r"), None, "cfg must be a dict, but got <class 'str'>"),
        ({"type": "ResNet"}, "backbone", None, "registry must be a cv.utils.Registry object"),
        ({"type": "ResNet"}, Registry("r"), 1, "default_args must be a dict or None, but got <class 'int'>"),
        ({"type": 1000}, Registry("r"), None, "type must be a str or valid type, but got <class 'int'>"),
    ],
)
def test_type_errors(cfg: Any, registry: Any, defaults: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        build_from_cfg(cfg, registry, defaults)


@pytest.mark.parametrize("defaults", [None, {"depth": 1}])
def test_missing_type(backbones: Registry, defaults: dict[str, Any] | None) -> None:
    with pytest.raises(KeyError, match='must contain the key "type", but got'):
        backbones.build({"depth": 50}, default_args=defaults)


def test_bad_arguments_name_the_class_and_keep_the_type(backbones: Registry) -> None:
    with pytest.raises(TypeError, match=r"ResNet: .*unexpected keyword argument 'dept'") as caught:
        backbones.build({"type": "ResNet", "dept": 50})
    assert isinstance(caught.value.__cause__, TypeError)


class OwnError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad depth"), "Broken: bad depth"),
        (RuntimeError(), "Broken: "),
        (KeyError("depth"), "Broken: 'depth'"),
        (NotImplementedError("later"), "Broken: later"),
    ],
)
def test_exceptions_of_the_constructor_keep_their_type(error: Exception, text: str) -> None:
    registry = Registry("models")

    @registry.register_module()
    class Broken:
        def __init__(self) -> None:
            raise error

    with pytest.raises(type(error)) as caught:
        registry.build({"type": "Broken"})
    assert type(caught.value) is type(error)
    assert caught.value.args == (text,)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "weights.pth"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        OwnError(3, "three"),
    ],
)
def test_exceptions_with_state_pass_unchanged_with_a_note(error: Exception) -> None:
    registry = Registry("models")

    @registry.register_module()
    class Broken:
        def __init__(self) -> None:
            raise error

    with pytest.raises(type(error)) as caught:
        registry.build({"type": "Broken"})
    assert caught.value is error
    if sys.version_info >= (3, 11):
        assert "Broken was built from its config" in caught.value.__notes__[0]


def test_nested_builds_name_the_path_to_the_error(backbones: Registry) -> None:
    @backbones.register_module()
    class Detector:
        def __init__(self, backbone: dict[str, Any]) -> None:
            self.backbone = backbones.build(backbone)

    with pytest.raises(TypeError, match=r"^Detector: ResNet: "):
        backbones.build({"type": "Detector", "backbone": {"type": "ResNet"}})


def test_an_argument_that_is_not_taken_suggests_near_ones() -> None:
    registry = Registry("backbone")

    @registry.register_module()
    class Base:
        def __init__(self, depth: int = 1) -> None:
            self.depth = depth

    @registry.register_module()
    class Child(Base):
        def __init__(self, width: int = 1, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    for kind, typo, near in (("Base", "dept", "depth"), ("Child", "dpth", "depth")):
        with pytest.raises(TypeError, match=rf"^{kind}: .*'{typo}'; did you mean {near}"):
            registry.build({"type": kind, typo: 3})
    with pytest.raises(TypeError, match=r"'colour'$"):
        registry.build({"type": "Base", "colour": 3})


def test_a_key_error_of_an_inner_object_is_quoted_once() -> None:
    registry = Registry("model")

    @registry.register_module()
    class Outer:
        def __init__(self, inner: dict[str, Any]) -> None:
            self.inner = registry.build(inner)

    with pytest.raises(KeyError) as caught:
        registry.build({"type": "Outer", "inner": {"type": "Outer", "inner": {"type": "Innr"}}})
    assert caught.value.args[0].startswith("Outer: Outer: Innr is not in the model registry")


# --- misses


def test_a_miss_suggests_near_matches(backbones: Registry) -> None:
    for typo in ("Resnet", "ResNt", "resnet"):
        with pytest.raises(KeyError, match=f"{typo} is not in the backbone registry; did you mean ResNet\\?"):
            backbones.build({"type": typo})
    with pytest.raises(KeyError) as caught:
        backbones.build({"type": "Unrelated"})
    assert caught.value.args[0] == "Unrelated is not in the backbone registry"


def test_a_miss_suggests_names_of_parents_and_children() -> None:
    tree = Tree()
    assert "did you mean Golden?" in tree.little.describe_missing("Goldn")
    assert "did you mean hound.Blood?" in tree.dogs.describe_missing("hound.Blod")
    assert "hound.Blood" in tree.dogs.describe_missing("Blood")


def test_a_miss_suggests_the_name_of_a_class() -> None:
    registry = Registry("norm")
    registry.register_module(name=["LN", "L"], module=type("LayerNorm", (), {}))
    assert "did you mean LN?" in registry.describe_missing("LayerNorm")


def test_a_miss_in_an_empty_registry_asks_for_the_import() -> None:
    assert "the registry is empty" in Registry("heads").describe_missing("Head")


def test_providers_say_what_to_install() -> None:
    parent = Registry("conv layer", providers={"DCN": "absent"})
    child = Registry("conv", parent=parent, scope="child")
    for registry in (parent, child):
        with pytest.raises(KeyError, match=r"DCN is not in .*; it comes with absent: pip install absent"):
            registry.build({"type": "DCN"})
    assert "did you mean DCN?" in parent.describe_missing("DCNN")


def test_a_provider_that_is_installed_but_too_old_is_to_be_upgraded() -> None:
    registry = Registry("conv layer", providers={"NewConv": "pytest"})
    with pytest.raises(KeyError, match=r"pytest [\d.]+ is installed and lacks it: pip install --upgrade"):
        registry.require("NewConv")


def test_require(backbones: Registry) -> None:
    assert backbones.require("ResNet") is ResNet
    with pytest.raises(KeyError, match="did you mean"):
        backbones.require("ResNat")


# --- entry points, with real distributions on the path


def distribution(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> None:
    """Lay out an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    distribution(
        tmp_path,
        "plugin-one",
        """
        [test.layers]
        Good = plugin_one:Good
        Broken = plugin_one:Missing
        Function = plugin_one:function
        Both = plugin_one:Good
        """,
        {"plugin_one": "class Good:\n    pass\n\ndef function():\n    pass\n"},
    )
    distribution(tmp_path, "plugin-two", "[test.layers]\nBoth = plugin_two:Other\n", {})
    return tmp_path


def test_entry_points_are_found_on_a_miss(plugins: Path) -> None:
    registry = Registry("layers", entry_point_group="test.layers")
    good = registry.get("Good")
    assert good is not None
    assert good.__module__ == "plugin_one"
    assert registry.get("Good") is good
    assert isinstance(registry.build({"type": "Good"}), good)
    assert "Good" in registry
    assert "did you mean Good?" in registry.describe_missing("Goood")
    assert len(registry) == 0  # nothing was registered
    assert Registry("child", parent=registry, scope="child").get("Good") is good


def test_explicit_registration_wins(plugins: Path) -> None:
    registry = Registry("layers", entry_point_group="test.layers")
    assert registry.get("Good") is not VGG
    registry.register_module("Good", module=VGG)  # no clash, although it was looked up before
    registry.register_module("Both", module=VGG)
    assert registry.get("Good") is VGG
    assert registry.get("Both") is VGG


def test_entry_points_are_read_once_and_only_on_a_miss(
    plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    calls: list[str] = []
    real = importlib.metadata.entry_points

    def counted(**params: Any) -> Any:
        calls.append(params["group"])
        return real(**params)

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    registry = Registry("layers", entry_point_group="test.layers")
    registry.register_module(module=VGG)
    registry.get("VGG")
    assert calls == []
    for name in ("Nobody", "Good", "Nobody"):
        registry.get(name)
    assert calls == ["test.layers"]


def test_a_failing_entry_point_names_its_distribution(plugins: Path) -> None:
    registry = Registry("layers", entry_point_group="test.layers")
    with pytest.raises(
        ImportError, match=r"'Broken' .* distribution plugin-one as plugin_one:Missing"
    ) as caught:
        registry.build({"type": "Broken"})
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(ImportError, match=r"plugin-one as plugin_one:function, which is not a class"):
        registry.get("Function")


def test_two_claims_to_a_name_name_both(plugins: Path) -> None:
    registry = Registry("layers", entry_point_group="test.layers")
    with pytest.raises(RuntimeError, match="plugin-one") as caught:
        registry.get("Both")
    assert "plugin-two (plugin_two:Other)" in str(caught.value)
    assert registry.get("Good") is not None  # the other names still work


def test_one_distribution_seen_twice_is_no_clash(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = plugins / "again"
    distribution(again, "plugin-one", "[test.layers]\nGood = plugin_one:Good\n", {})
    monkeypatch.syspath_prepend(str(again))
    assert Registry("layers", entry_point_group="test.layers").get("Good") is not None


def test_making_a_registry_reads_no_metadata() -> None:
    code = "import sys; from cv.utils import Registry; Registry('a', entry_point_group='x'); "
    code += "assert 'importlib.metadata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_usage_error_can_be_pickled() -> None:
    assert str(pickle.loads(pickle.dumps(UsageError("text")))) == "text"
