"""The names that come from torch: the very classes if it is there, a helpful error if not."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cv.utils
from cv.utils import _torch, parrots_wrapper

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import cv.utils, cv.utils.parrots_wrapper\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_import_loads_nothing_heavy() -> None:
    heavy = (
        "numpy",
        "cv2",
        "torch",
        "PIL",
        "yaml",
        "multiprocessing",
        "subprocess",
        "importlib.metadata",
        "packaging",
    )
    done = run(f"import sys, cv.utils; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_without_torch_the_errors_say_what_to_install() -> None:
    functions = {"_get_cuda_home": (), "get_build_config": (), "is_rocm_pytorch": (), "load_url": ("url",)}
    code = f"""
for module in (cv.utils, cv.utils.parrots_wrapper):
    for name, arguments in {dict.fromkeys(_torch.TABLE) | functions}.items():
        try:
            value = getattr(module, name)
            value(*arguments)
        except ImportError as error:
            text = name + " needs PyTorch, which is not installed: pip install torch"
            print(name, str(error).endswith(text))
"""
    done = run(WITHOUT_TORCH + code)
    expected = "".join(f"{name} True\n" for name in [*_torch.TABLE, *functions])
    assert done.stdout == expected * 2, done.stderr


def test_everything_else_works_without_torch() -> None:
    code = """
from cv.utils import *
from cv.utils import collect_env, get_logger, is_jit_tracing
import cv.utils.misc
assert collect_env()["PyTorch"] == "n/a"
assert is_jit_tracing() is False
get_logger("x").info("hello")
try:
    assert_is_norm_layer(None)
except ImportError as error:
    assert "pip install torch" in str(error)
else:
    raise SystemExit("no error")
"""
    done = run(WITHOUT_TORCH + code)
    assert done.returncode == 0, done.stderr


def test_configs_are_looked_up_when_used() -> None:
    code = "import sys, cv.utils; assert 'cv.utils.config' not in sys.modules; "
    for access in ("cv.utils.config.Config", "cv.utils.DictAction", "cv.utils.ConfigDict"):
        done = run(f"{code}{access}; assert cv.utils.Config is cv.utils.config.Config")
        assert done.returncode == 0, done.stderr


def test_unknown_names() -> None:
    for module in (cv.utils, parrots_wrapper):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Nothing'"):
            module.Nothing  # noqa: B018
    assert {"_BatchNorm", "DataLoader", "Registry"} <= set(dir(cv.utils))


def test_the_names_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    from torch import nn

    u: Any = cv.utils
    assert torch.__version__ == u.TORCH_VERSION
    assert u.DataLoader is u.PoolDataLoader is torch.utils.data.DataLoader
    assert u.SyncBatchNorm is nn.SyncBatchNorm
    kinds = {
        "_BatchNorm": nn.BatchNorm2d(3),
        "_InstanceNorm": nn.InstanceNorm3d(3),
        "_ConvNd": nn.Conv1d(3, 3, 1),
        "_ConvTransposeMixin": nn.ConvTranspose2d(3, 3, 1),
        "_MaxPoolNd": nn.MaxPool2d(2),
        "_AvgPoolNd": nn.AvgPool2d(2),
        "_AdaptiveAvgPoolNd": nn.AdaptiveAvgPool2d(2),
        "_AdaptiveMaxPoolNd": nn.AdaptiveMaxPool2d(2),
    }
    for name, layer in kinds.items():
        assert isinstance(layer, getattr(u, name))
        assert getattr(parrots_wrapper, name) is getattr(u, name)
    assert not isinstance(nn.Conv2d(3, 3, 1), u._ConvTransposeMixin)
    assert parrots_wrapper._get_dataloader() == (u.DataLoader, u.PoolDataLoader)


def test_the_build_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    assert "PyTorch built with" in cv.utils.get_build_config()
    assert cv.utils.is_rocm_pytorch() == (torch.version.hip is not None)
    from torch.utils import cpp_extension

    assert cv.utils._get_cuda_home() in (cpp_extension.CUDA_HOME, cpp_extension.ROCM_HOME)
    assert cv.utils.BuildExtension is cpp_extension.BuildExtension  # type: ignore[attr-defined]
    assert cv.utils.CUDAExtension is cpp_extension.CUDAExtension  # type: ignore[attr-defined]
    assert cv.utils.CppExtension("x", ["x.cpp"]).sources == ["x.cpp"]  # type: ignore[attr-defined]


def test_is_jit_tracing() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    seen = []

    def function(x: Any) -> Any:
        seen.append(cv.utils.is_jit_tracing())
        return x + 1

    function(torch.zeros(1))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own tracer
        torch.jit.trace(function, torch.zeros(1), check_trace=False)
    assert seen == [False, True]


class Evil:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_load_url(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    import pickle

    source = tmp_path / "net.pth"
    torch.save({"weight": torch.arange(3)}, source)
    loaded = cv.utils.load_url(source.as_uri(), model_dir=tmp_path / "cache", progress=False)
    assert loaded["weight"].tolist() == [0, 1, 2]

    # A hash in the name is checked.
    digits = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    for name, matches in ((f"net-{digits}.pth", True), ("net-00000000.pth", False)):
        (tmp_path / name).write_bytes(source.read_bytes())
        url = (tmp_path / name).as_uri()
        if matches:
            cv.utils.load_url(url, tmp_path / "cache", progress=False)
        else:
            with pytest.raises(RuntimeError, match="invalid hash value"):
                cv.utils.load_url(url, tmp_path / "cache", progress=False)

    # A file that would run code is refused.
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        cv.utils.load_url((tmp_path / "evil.pth").as_uri(), tmp_path / "cache", progress=False)
