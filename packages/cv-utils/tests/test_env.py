"""collect_env and ``python -m cv.utils``: they never fail, whatever is missing or broken."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cv.utils import collect_env
from cv.utils import env as env_module

DOCUMENTED = {
    "sys.platform", "Python", "CUDA available", "GCC", "PyTorch", "PyTorch compiling details", "TorchVision",
    "OpenCV", "MMCV", "MMCV Compiler", "MMCV CUDA Compiler",
}  # fmt: skip


def test_documented_keys() -> None:
    env = collect_env()
    assert set(env) >= DOCUMENTED
    assert env["sys.platform"] == sys.platform
    assert env["Python"] == sys.version.replace("\n", "")
    assert isinstance(env["CUDA available"], bool)
    assert "cv-utils 0.1.0" in env["MMCV"]
    assert all(isinstance(value, (str, bool)) for value in env.values())


def test_versions_of_what_is_installed() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    env = collect_env()
    assert env["PyTorch"] == torch.__version__
    assert env["PyTorch compiling details"] == torch.__config__.show()
    assert env["CUDA available"] == torch.cuda.is_available()


def module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def plugin(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cv.utils.collect_env]\n{entry_points}\n")


def test_entry_points_add_lines_and_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(
        tmp_path,
        "env_plugin",
        "def lines():\n    return {'MMCV Compiler': 'GCC 13', 'Extra': '1'}\n\ndef bad():\n    1 / 0\n",
    )
    plugin(tmp_path, "good-plugin", "good = env_plugin:lines")
    plugin(tmp_path, "bad-plugin", "bad = env_plugin:bad")
    plugin(tmp_path, "gone-plugin", "gone = no_such_module:lines")
    monkeypatch.syspath_prepend(str(tmp_path))
    env = collect_env()
    assert env["Extra"] == "1"
    assert env["MMCV Compiler"] == "GCC 13"
    assert env["bad-plugin"] == "broken: ZeroDivisionError: division by zero"
    assert env["gone-plugin"].startswith("broken: ModuleNotFoundError")


def test_missing_and_broken_modules_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')\n")
    module(tmp_path, "half_module", "import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert collect_env()["TorchVision"] == "broken: RuntimeError: operator torchvision::nms does not exist"
    assert env_module._version_of_module("half_module") == "broken: No module named 'no_such_dependency'"
    assert env_module._version_of_module("no_such_module") == "n/a"


def test_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        "#!/bin/sh\necho 'nvcc: NVIDIA (R) Cuda compiler driver'\n"
        "echo 'Cuda compilation tools, release 12.9, V12.9.41'\necho 'Build cuda_12.9.r12.9/compiler.1'\n"
    )
    nvcc.chmod(0o755)
    gcc = tmp_path / "gcc"
    gcc.write_text("#!/bin/sh\necho 'gcc (Test) 99.1'\necho more\n")
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert collect_env()["GCC"] == "gcc (Test) 99.1"
    from cv.utils import parrots_wrapper

    monkeypatch.setattr(parrots_wrapper, "_get_cuda_home", lambda: str(tmp_path))
    assert env_module._cuda_toolkit()["CUDA_HOME"] == str(tmp_path)
    assert "12.9" in env_module._cuda_toolkit()["NVCC"]
    monkeypatch.setattr(parrots_wrapper, "_get_cuda_home", lambda: str(tmp_path / "none"))
    assert env_module._cuda_toolkit()["NVCC"] == "n/a"
    monkeypatch.setenv("PATH", "")
    assert collect_env()["GCC"] == "n/a"


def test_devices_are_listed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["H100", "T4", "H100"]
    cuda = types.SimpleNamespace(
        is_available=lambda: True, device_count=lambda: len(names), get_device_name=names.__getitem__
    )
    config = types.SimpleNamespace(show=lambda: "built so")
    torch = types.SimpleNamespace(cuda=cuda, __version__="9.9", __config__=config)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(env_module, "_cuda_toolkit", lambda: {"CUDA_HOME": "there", "NVCC": "12"})
    assert env_module._torch_lines() == {
        "CUDA available": True,
        "GPU 0,2": "H100",
        "GPU 1": "T4",
        "CUDA_HOME": "there",
        "NVCC": "12",
        "PyTorch": "9.9",
        "PyTorch compiling details": "built so",
    }


def test_diagnostic_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cv.utils"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for key in DOCUMENTED:
        assert f"{key}: " in done.stdout
    assert f"  cv.utils: {env_module.__file__.replace('env.py', '__init__.py')}\n" in done.stdout


README_COMMAND = "import cv; print(getattr(cv, '__file__', None))"


def bare_interpreter(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that sees this distribution and nothing that site-packages or its hooks add."""
    source = str(Path(env_module.__file__).parents[2])
    command = [sys.executable, "-S", *arguments]
    env = {**os.environ, "PYTHONPATH": source}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_foreign_cv_hides_the_namespace_and_the_readme_command_shows_it(tmp_path: Path) -> None:
    assert README_COMMAND in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert bare_interpreter(tmp_path, "-c", README_COMMAND).stdout == "None\n"
    assert bare_interpreter(tmp_path, "-c", "import cv.utils").returncode == 0

    (tmp_path / "cv.py").write_text("")
    shown = bare_interpreter(tmp_path, "-c", README_COMMAND)
    assert Path(shown.stdout.strip()) == tmp_path / "cv.py"
    hidden = bare_interpreter(tmp_path, "-m", "cv.utils")
    assert hidden.returncode != 0
    assert "cv.utils" in hidden.stderr
