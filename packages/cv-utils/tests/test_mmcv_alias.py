"""cv.utils.mmcv_alias, in processes of its own: it changes what ``import`` does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def check(code: str) -> None:
    code = "from cv.utils import mmcv_alias\nmmcv_alias.install()\n" + textwrap.dedent(code)
    result = run("-W", "error", "-c", code)
    assert result.returncode == 0, result.stderr


def test_modules_are_the_same_objects() -> None:
    check(
        """
        import mmcv, mmcv.utils, cv.utils
        from mmcv.utils.config import ConfigDict
        from mmcv.utils import Config
        assert mmcv.utils is cv.utils and Config is cv.utils.Config and ConfigDict is cv.utils.ConfigDict
        assert cv.utils.__name__ == cv.utils.__spec__.name == "cv.utils"
        assert mmcv.utils.config is cv.utils.config
        import importlib
        assert importlib.reload(mmcv.utils) is cv.utils
        """
    )


def test_flat_names() -> None:
    check(
        """
        import mmcv, cv.fileio, cv.utils
        from mmcv import Config, FileClient
        assert Config is cv.utils.Config and FileClient is cv.fileio.FileClient
        assert mmcv.load is cv.fileio.load and mmcv.fileio is cv.fileio
        assert mmcv.utils.Registry is cv.utils.Registry
        """
    )


def test_a_function_with_the_name_of_its_module_stays(tmp_path: Path) -> None:
    package = tmp_path / "likeops"
    package.mkdir()
    (package / "__init__.py").write_text("from cv.utils.likeops.nms import nms\n")
    (package / "nms.py").write_text("def nms(): return 1\ndef batched_nms(): return 2\n")
    check(
        f"""
        import cv.utils
        cv.utils.__path__.append({str(tmp_path)!r})
        from mmcv.utils.likeops.nms import batched_nms
        import cv.utils.likeops
        assert batched_nms() == 2 and cv.utils.likeops.nms() == 1
        """
    )


def test_what_is_missing() -> None:
    check(
        """
        import mmcv
        try:
            import mmcv.nothing
        except ModuleNotFoundError as error:
            assert error.name == "mmcv.nothing", error.name
        else:
            raise SystemExit("imported")
        try:
            mmcv.nothing
        except AttributeError as error:
            assert "module 'mmcv' has no attribute 'nothing'" in str(error)
        else:
            raise SystemExit("found")
        assert not hasattr(mmcv, "__wrapped__")
        """
    )


def test_an_import_error_inside_a_module_is_not_swallowed(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_there_either\n")
    check(
        f"""
        import cv.utils
        cv.utils.__path__.append({str(tmp_path)!r})
        try:
            import mmcv.utils.broken
        except ModuleNotFoundError as error:
            assert error.name == "not_there_either"
        else:
            raise SystemExit("imported")
        """
    )


def test_version() -> None:
    check(
        """
        import mmcv
        assert mmcv.__version__ == "1.7.1" and mmcv.version_info[:3] == (1, 7, 1)
        mmcv_alias.install("1.3.17")
        assert mmcv.__version__ == "1.3.17" and mmcv.version_info[:3] == (1, 3, 17)
        """
    )


def test_the_real_one_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / "mmcv.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mmcv\n"
        "from cv.utils import mmcv_alias; mmcv_alias.install()"
    )
    result = run("-c", code)
    assert "RuntimeError: mmcv must not be imported before install()" in result.stderr


def test_scripts_run_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("from mmcv import Config\n")
    (tmp_path / "train.py").write_text(
        "import sys, mmcv\nfrom helper import Config\n"
        "if __name__ == '__main__':\n    print(mmcv.__version__, Config.__module__, sys.argv[1:])\n"
    )
    script = str(tmp_path / "train.py")
    result = run("-m", "cv.utils.mmcv_alias", "--version", "1.4.0", script, "--work-dir", "x")
    assert result.stdout == "1.4.0 cv.utils.config.config ['--work-dir', 'x']\n", result.stderr


def test_nothing_happens_before_it_is_asked_for() -> None:
    result = run("-c", "import sys, cv.utils; sys.exit('mmcv' in sys.modules)")
    assert result.returncode == 0, result.stderr
