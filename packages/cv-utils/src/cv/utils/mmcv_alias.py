"""``import mmcv`` for code that was written for mmcv 1.x, without a change to it.

Two lines before that code is imported, in a script or in the ``sitecustomize.py`` of an environment::

    from cv.utils import mmcv_alias
    mmcv_alias.install()

or nothing but another command: ``python -m cv.utils.mmcv_alias tools/train.py config.py``. From then on
``mmcv.X`` is the module ``cv.X`` itself, not a copy, and the flat names (``mmcv.imread``, ``mmcv.Config``)
are those of ``cv.image``, ``cv.utils`` and the others, as far as they are installed. Processes that are
spawned instead of forked need the lines themselves, hence ``sitecustomize.py``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cv.utils.version_utils import parse_version_info

__all__ = ["install"]

_FLAT = ("arraymisc", "fileio", "image", "utils", "video", "visualization")


def install(version: str = "1.7.1") -> None:
    """Makes ``import mmcv`` mean these packages. A second call only changes the version.

    Args:
        version: What ``mmcv.__version__`` says. Code bases check it against the releases they know, so that
            an older one may want ``"1.3.17"``.

    Raises:
        RuntimeError: The real mmcv has been imported before.
    """
    module = sys.modules.get("mmcv")
    if module is None:
        module = sys.modules["mmcv"] = _Alias("mmcv", "These packages, under the name of mmcv 1.x.")
        sys.meta_path.insert(0, _Finder())
    elif not isinstance(module, _Alias):
        raise RuntimeError(f"mmcv must not be imported before install(), got {module!r}")
    module.__dict__.update(__version__=version, version_info=parse_version_info(version))


class _Alias(ModuleType):
    """The top-level module: flat names are looked up when they are asked for."""

    def __init__(self, name: str, doc: str) -> None:
        super().__init__(name, doc)
        self.__path__: list[str] = []  # a package: its modules come from _Finder
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for leaf in _FLAT:
                module = _import_if_there(f"cv.{leaf}")
                if module is not None and name in module.__all__:
                    return getattr(module, name)
            if _import_if_there(f"cv.{name}") is not None:
                return importlib.import_module(f"mmcv.{name}")
        raise AttributeError(
            f"module 'mmcv' has no attribute {name!r}: no package of cv that is installed here has it"
        )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads ``mmcv.X`` by giving out ``cv.X``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("mmcv.") or _import_if_there(_real(fullname)) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = sys.modules[_real(spec.name)]
        spec.loader_state = module.__spec__  # importlib is about to overwrite it
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state
        # Modules that are loaded already get their second name now: importing mmcv.ops.nms later would set
        # the module as an attribute of its package, where cv.ops has the function nms.
        for name in [name for name in sys.modules if name.startswith(f"{module.__name__}.")]:
            sys.modules.setdefault(f"mmcv.{name.removeprefix('cv.')}", sys.modules[name])


def _real(name: str) -> str:
    return f"cv.{name.removeprefix('mmcv.')}"


def _import_if_there(name: str) -> ModuleType | None:
    """The module, or None if it, or a package that it is in, does not exist."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        raise


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cv.utils.mmcv_alias", description="Runs a script that was written for mmcv 1.x."
    )
    parser.add_argument("--version", default="1.7.1", help="what mmcv.__version__ says")
    parser.add_argument("script", help="path of the script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    args = parser.parse_args()
    install(args.version)
    sys.argv = [args.script, *args.args]
    sys.path[0] = str(Path(args.script).resolve().parent)  # as if Python had been given the script
    runpy.run_path(args.script, run_name="__main__")


if __name__ == "__main__":
    # This file is __main__ here; what is installed must be the module that others import.
    from cv.utils import mmcv_alias

    mmcv_alias._main()
