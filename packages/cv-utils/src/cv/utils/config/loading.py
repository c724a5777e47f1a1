"""From a config file and its bases to a plain dict."""

from __future__ import annotations

import os
import re
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cv.utils.errors import CvDeprecationWarning

from .budget import MAX_SOURCE_CHARS, Budget, LimitError
from .errors import TRUST_HINT, ConfigError, UntrustedCodeError
from .merge import merge
from .plain import read_plain
from .references import References, predefined_variables

__all__ = ["BASE_KEY", "DEPRECATION_KEY", "Loader", "trust_from_environment"]

BASE_KEY = "_base_"
DEPRECATION_KEY = "_deprecation_"
TRUST_VARIABLE = "CV_CONFIG_TRUST"
SUFFIXES = (".py", ".yaml", ".yml", ".json")
MAX_FILES = 256
MAX_BASE_DEPTH = 32
_MISSING = object()

Tree = dict[Any, Any]
FileId = tuple[int, int]  # device and inode: the same for a file and a link to it


def trust_from_environment() -> bool:
    """Whether ``CV_CONFIG_TRUST`` asks for config files to be run as Python."""
    return os.environ.get(TRUST_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


class Loader:
    """Loads one config and all its bases.

    Args:
        trust: Run ``.py`` files as Python instead of reading them.
        use_predefined_variables: Whether ``{{ fileDirname }}`` and its kin are replaced.
        base_root: The folder that all files must lie in, or None.
    """

    def __init__(
        self, trust: bool = False, use_predefined_variables: bool = True, base_root: Path | None = None
    ) -> None:
        self.trust = trust
        self.use_predefined_variables = use_predefined_variables
        self.base_root = base_root
        self._budget = Budget()
        self._open_files: dict[FileId, Path] = {}
        self._count = 0

    def load(self, filename: str | Path) -> tuple[Tree, str]:
        """Read a file; gives the config and the texts of it and its bases.

        Raises:
            OSError: No such file, not a regular file, or not a config by its suffix.
            KeyError: A key that two bases have.
            TypeError: A file that holds no dict, or a dict that meets something else in a base.
            SyntaxError: Python that does not parse.
            ConfigError: Anything else that is wrong in a file.
            UntrustedCodeError: A ``.py`` file that is more than data.
        """
        # Absolute without "..", as cfg.text shows it; symbolic links are kept: bases are beside the link.
        path = Path(os.path.abspath(os.path.expanduser(filename)))  # noqa: PTH100, PTH111
        self._enter(path)
        try:
            source = self._read(path)
            config, base_texts = self.parse(source, path)
        finally:
            self._open_files.popitem()
        return config, "\n".join([*base_texts, f"{path}\n{source}"])

    def parse(self, source: str, path: Path) -> tuple[Tree, list[str]]:
        """Read a text that stands in ``path``; gives the config and the texts of its bases."""
        wanted = self.use_predefined_variables and "{{" in source
        references = References(source, predefined_variables(path) if wanted else None)
        bases = _Bases(self, path)
        if path.suffix == ".py":
            config = self._parse_python(source, references, path, bases)
        else:
            config = _parse_data(source, references, path)
            if not isinstance(config, dict):
                raise TypeError(f"{path}: a config must be a dict, got {type(config).__name__}")
            if references:
                names = references.fill(config.get(BASE_KEY), _no_bases)
                config = references.fill(config, lambda place: bases.look_up(place, lambda: names))
        return self._finish(config, bases, path)

    def _finish(self, config: Tree, bases: _Bases, path: Path) -> tuple[Tree, list[str]]:
        names = config.pop(BASE_KEY, None)
        deprecation = config.pop(DEPRECATION_KEY, None)
        replacement = _warn_of_deprecation(deprecation, path)
        if replacement is not None:
            config, text = self.load(replacement)
            return config, [text]
        if names is None:
            return config, []
        base, texts = bases.get(names)
        return merge(config, base), texts

    def _parse_python(self, source: str, references: References, path: Path, bases: _Bases) -> Tree:
        if not self.trust and len(source) > MAX_SOURCE_CHARS:
            reason = f"the file has more than {MAX_SOURCE_CHARS} characters"
            raise UntrustedCodeError(reason, filename=str(path), hint=TRUST_HINT)
        variables: Tree = {"__file__": str(path), "__name__": path.stem}
        if not self.trust and not references:
            plain = self._read_plain(source, path, variables)
            if plain is not None:
                return plain
        from .evaluator import Evaluator, is_dropped
        from .reference_tree import REFERENCE_FUNCTION, fill_tree

        tree = _parse_syntax(references.text, source, path)
        reference: Callable[[str, int], Any] | None = None
        if references:
            tree = fill_tree(tree, references)

            def names() -> Any:
                return variables[BASE_KEY] if BASE_KEY in variables else _literal_base(tree, path)

            def reference(place: str, lineno: int) -> Any:
                return bases.look_up(place, names, lineno)

            variables[REFERENCE_FUNCTION] = reference
        if self.trust:
            exec(compile(tree, str(path), "exec", dont_inherit=True), variables)
        else:
            Evaluator(str(path), source, self._budget, variables, reference).run(tree)
        return {name: value for name, value in variables.items() if not is_dropped(name, value)}

    def _read_plain(self, source: str, path: Path, variables: Tree) -> Tree | None:
        plain = read_plain(source, variables, self._budget)
        if plain is None:
            return None
        values, shares = plain
        if shares:  # a short text can stand for a very large value
            from .evaluator import Evaluator

            Evaluator(str(path), source, self._budget, values).check_is_data()
        return {name: value for name, value in values.items() if name[:2] != "__"}

    def _check_file(self, path: Path) -> FileId:
        try:
            status = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            reason = f"{self._named_by()}there is no config file {str(path)!r}"
            raise FileNotFoundError(reason) from None
        if path.suffix not in SUFFIXES:
            name = path.name
            raise OSError(f"{self._named_by()}only py/yml/yaml/json type are supported now, got {name!r}")
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
            raise OSError(f"{self._named_by()}{str(path)!r} is not a regular file")
        if self.base_root is not None and not path.resolve().is_relative_to(self.base_root.resolve()):
            reason = f"{str(path)!r} lies outside of base_root={str(self.base_root)!r}"
            raise UntrustedCodeError(f"{self._named_by()}{reason}")
        return status.st_dev, status.st_ino

    def _enter(self, path: Path) -> None:
        file = self._check_file(path)
        if file in self._open_files:
            way = [str(opened) for opened in self._open_files.values()]
            way = way[list(self._open_files).index(file) :]
            reason = f"{BASE_KEY} leads back to the file itself: {' -> '.join([*way, str(path)])}"
            raise ConfigError(reason, filename=way[-1])
        if len(self._open_files) >= MAX_BASE_DEPTH:
            raise ConfigError(f"more than {MAX_BASE_DEPTH} levels of {BASE_KEY}", filename=str(path))
        self._count += 1
        if self._count > MAX_FILES:
            reason = f"more than {MAX_FILES} files are read for one config"
            raise ConfigError(reason, filename=str(next(iter(self._open_files.values()))))
        self._open_files[file] = path

    def _named_by(self) -> str:
        return f"{list(self._open_files.values())[-1]}: " if self._open_files else ""

    def _read(self, path: Path) -> str:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                return file.read()
        except UnicodeDecodeError as error:
            raise ConfigError(f"the file is not UTF-8 text: {error}", filename=str(path)) from error


class _Bases:
    """The bases of one file, read when first needed."""

    def __init__(self, loader: Loader, path: Path) -> None:
        self._loader = loader
        self._path = path
        self._names: Any = _MISSING
        self._loaded: tuple[Tree, list[str]] = {}, []

    def get(self, names: Any) -> tuple[Tree, list[str]]:
        """The merged bases and their texts, for the value of ``_base_``."""
        if self._names is _MISSING or self._names != names:
            self._names = list(names) if isinstance(names, list) else names
            self._loaded = self._load(names)
        return self._loaded

    def look_up(self, place: str, names: Callable[[], Any], lineno: int | None = None) -> Any:
        """The value of ``{{_base_.a.b}}``; ``place`` is ``.a.b``."""
        import copy

        base_names = names()
        if base_names is None:
            reason = f"{{{{_base_{place}}}}} is used, but there is no {BASE_KEY}"
            raise ConfigError(reason, filename=str(self._path), lineno=lineno)
        value: Any = self.get(base_names)[0]
        for match in re.finditer(r"\.(\w+)|\[(-?\d+)\]", place):
            name = match[1] or match[2]
            try:
                value = value[int(name)] if isinstance(value, (list, tuple)) else value[name]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                reason = f"{{{{_base_{place}}}}}: the base has no {name!r} there"
                raise ConfigError(reason, filename=str(self._path), lineno=lineno) from error
        return copy.deepcopy(value)

    def _load(self, names: Any) -> tuple[Tree, list[str]]:
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"{self._path}: {BASE_KEY} must be a str or a list of str, got {names!r}")
        merged: Tree = {}
        texts = []
        origin: dict[Any, str] = {}
        for name in names:
            config, text = self._loader.load(self._path.parent / os.path.expanduser(name))  # noqa: PTH111
            duplicates = merged.keys() & config.keys()
            if duplicates:
                key = min(duplicates, key=str)
                both = f"{origin[key]!r} and {name!r}, bases of {self._path}"
                raise KeyError(f"duplicate key {key!r}: both {both}, have it")
            merged.update(config)
            origin.update(dict.fromkeys(config, name))
            texts.append(text)
        return merged, texts


def _parse_syntax(text: str, source: str, path: Path) -> Any:
    import ast

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "\d" in a string: not ours to say
            return ast.parse(text, str(path))
    except SyntaxError as error:
        line = source.split("\n")[error.lineno - 1] if error.lineno else None
        raise SyntaxError(
            f"There are syntax errors in config file {path}: {error.msg}",
            (str(path), error.lineno, error.offset, line),
        ) from error
    except (RecursionError, MemoryError, ValueError) as error:
        reason = "null bytes" if isinstance(error, ValueError) else "nesting too deep to parse"
        raise SyntaxError(f"There are syntax errors in config file {path}: {reason}") from error


def _literal_base(tree: Any, path: Path) -> Any:
    """The value of a ``_base_`` that is set further down than where it is referred to."""
    import ast

    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == BASE_KEY for target in statement.targets
        ):
            try:
                return ast.literal_eval(statement.value)
            except ValueError as error:
                reason = f"{BASE_KEY} must be set before the first {{{{_base_.…}}}}"
                raise ConfigError(reason, filename=str(path), lineno=statement.lineno) from error
    return None


def _parse_data(source: str, references: References, path: Path) -> Any:
    import json

    try:
        if path.suffix == ".json":
            return json.loads(references.quote_in_json() if references else references.text)
        from cv.fileio import ParseError, loads

        try:
            config = loads(references.text, "yaml")
        except ParseError as error:
            raise _data_error(error.reason, source, path, error.line, error.column or 0) from error
        if "&" in source and "*" in source:  # aliases: a short text can stand for a very large value
            Budget().weigh(config)
        return {} if config is None else config
    except json.JSONDecodeError as error:
        raise _data_error(error.msg, source, path, error.lineno, error.colno) from error
    except RecursionError as error:
        raise ConfigError("nesting too deep", filename=str(path)) from error
    except LimitError as error:
        raise ConfigError(str(error), filename=str(path)) from error


def _data_error(problem: str, source: str, path: Path, lineno: int | None, column: int) -> ConfigError:
    line = source.split("\n")[lineno - 1] if lineno is not None and lineno <= source.count("\n") + 1 else None
    reason = f"column {column}: {problem}" if lineno is not None else problem
    return ConfigError(reason, filename=str(path), lineno=lineno, line=line)


def _no_bases(place: str) -> Any:
    raise ConfigError(f"{BASE_KEY} itself cannot refer to {{{{_base_{place}}}}}")


def _warn_of_deprecation(info: Any, path: Path) -> Path | None:
    """Warn about a file with ``_deprecation_``; gives the file to read instead, if there is one."""
    if info is None:
        return None
    if not isinstance(info, dict):
        raise TypeError(f"{path}: {DEPRECATION_KEY} must be a dict, got {type(info).__name__}")
    text = f"The config file {path} is deprecated and will be removed."
    replacement = None
    if info.get("expected"):
        text += f" Use {info['expected']} instead."
        candidate = path.parent / str(info["expected"])
        replacement = candidate if candidate.is_file() else None
    if info.get("reference"):
        text += f" More information: {info['reference']}."
    warnings.warn(text, CvDeprecationWarning, stacklevel=_frames_to_caller())
    return replacement


def _frames_to_caller() -> int:
    """The ``stacklevel`` that makes a warning point at the code that called into this package."""
    package = __name__.rpartition(".")[0]
    frame = sys._getframe(1)
    level = 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
        level += 1
    return level
