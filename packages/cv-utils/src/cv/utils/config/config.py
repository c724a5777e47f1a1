"""``Config``: what the user holds."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .config_dict import ConfigDict
from .loading import SUFFIXES, Loader, trust_from_environment
from .merge import merge, nest_options

__all__ = ["Config"]

RESERVED_KEYS = ("filename", "text", "pretty_text")


class Config:
    """A config: a dict with attribute access at every depth, read from ``.py``, ``.json`` or ``.yaml`` files.

    Args:
        cfg_dict: The content; dicts and lists in it are copied.
        cfg_text: The text it came from.
        filename: The file it came from; if it is given without ``cfg_text``, its text is read.

    Raises:
        TypeError: ``cfg_dict`` is not a dict.
        KeyError: A key is reserved: ``filename``, ``text``, ``pretty_text``.

    Example:
        >>> cfg = Config(dict(a=1, b=dict(b1=[0, 1])))
        >>> cfg.a
        1
        >>> cfg.b.b1
        [0, 1]
    """

    _cfg_dict: ConfigDict
    _filename: str | None
    _text: str

    def __init__(
        self,
        cfg_dict: Mapping[str, Any] | None = None,
        cfg_text: str | None = None,
        filename: str | os.PathLike[str] | None = None,
    ) -> None:
        if cfg_dict is None:
            cfg_dict = {}
        elif not isinstance(cfg_dict, dict):
            raise TypeError(f"cfg_dict must be a dict, got {type(cfg_dict).__name__}")
        for key in RESERVED_KEYS:
            if key in cfg_dict:
                raise KeyError(f"{key!r} is reserved and cannot be a key of a config")
        name = None if filename is None else str(filename)
        if cfg_text is None:
            cfg_text = Path(name).read_text(encoding="utf-8") if name else ""
        self.__setstate__((ConfigDict(cfg_dict), name, cfg_text))

    # Reading

    @staticmethod
    def fromfile(
        filename: str | os.PathLike[str],
        use_predefined_variables: bool = True,
        import_custom_modules: bool = True,
        *,
        trust: bool | None = None,
        base_root: str | os.PathLike[str] | None = None,
    ) -> Config:
        """Read a config file and the files in its ``_base_``.

        ``.py`` files are read, not run: see the guide for what they may hold. What does run code is
        ``custom_imports``: the installed modules that the config names there are imported.

        Args:
            filename: A ``.py``, ``.json``, ``.yaml`` or ``.yml`` file.
            use_predefined_variables: Replace ``{{ fileDirname }}``, ``{{ fileBasename }}``,
                ``{{ fileBasenameNoExtension }}`` and ``{{ fileExtname }}`` by the parts of each file's name.
            import_custom_modules: Import what ``custom_imports=dict(imports=[…])`` of the config names. Turn
                it off for configs of people you do not trust.
            trust: Run ``.py`` files as Python, with all they may do. By default what the environment variable
                ``CV_CONFIG_TRUST`` says (``1`` to run them), else False.
            base_root: If given, the folder that the file and all its bases must lie in.

        Raises:
            OSError: No such file, or a kind of file that is not supported.
            UntrustedCodeError: A ``.py`` file would have to be run, or takes too much work. A ValueError.
            ConfigError: Anything else that is wrong in a file; says the file and the line. A ValueError.
            SyntaxError: A ``.py`` file that is not Python.
            KeyError: Two bases have the same key.
            TypeError: A file holds no dict, or a dict meets something else in a base.
        """
        loader = Loader(
            trust=trust_from_environment() if trust is None else trust,
            use_predefined_variables=use_predefined_variables,
            base_root=None if base_root is None else Path(base_root),
        )
        cfg_dict, cfg_text = loader.load(Path(filename))
        if import_custom_modules and cfg_dict.get("custom_imports"):
            _import_custom_modules(cfg_dict["custom_imports"])
        return Config(cfg_dict, cfg_text=cfg_text, filename=filename)

    @staticmethod
    def fromstring(cfg_str: str, file_format: str, *, trust: bool | None = None) -> Config:
        """Read a config from a text; ``_base_`` is relative to the current folder.

        Args:
            cfg_str: The text.
            file_format: ``'py'``, ``'json'``, ``'yaml'`` or ``'yml'``, with or without a dot.
            trust: As for ``fromfile``.

        Raises:
            OSError: Another ``file_format``. Else as ``fromfile``.
        """
        suffix = f".{file_format.removeprefix('.')}"
        if suffix not in SUFFIXES:
            raise OSError(f"only py/yml/yaml/json type are supported now, got file_format={file_format!r}")
        loader = Loader(trust=trust_from_environment() if trust is None else trust)
        cfg_dict, _ = loader.parse(cfg_str, Path.cwd() / f"<string>{suffix}")
        return Config(cfg_dict, cfg_text=cfg_str)

    @staticmethod
    def auto_argparser(description: str | None = None) -> tuple[argparse.ArgumentParser, Config]:
        """A parser with one option per value of the config file that the command line names first.

        Example:
            ``python train.py config.py --model.depth 101``: the parser has ``--model.depth`` if the config
            has ``model=dict(depth=50)``. Options that are not given are None, so
            ``cfg.merge_from_dict({k: v for k, v in vars(args).items() if v is not None and k != 'config'})``
            applies the others.

        Returns:
            The parser, and the config.
        """
        from .argparser import build_parser

        return build_parser(description)

    @staticmethod
    def _file2dict(
        filename: str | os.PathLike[str], use_predefined_variables: bool = True, *, trust: bool | None = None
    ) -> tuple[dict[str, Any], str]:
        """The merged content and text of a file, as a plain dict: ``fromfile`` without ``custom_imports``."""
        trusted = trust_from_environment() if trust is None else trust
        return Loader(trusted, use_predefined_variables).load(Path(filename))

    @staticmethod
    def _merge_a_into_b(a: Mapping[Any, Any], b: Any, allow_list_keys: bool = False) -> Any:
        """``a`` merged into a copy of ``b``, by the rules of ``_base_``."""
        return merge(a, b, allow_list_keys)

    # Changing

    def merge_from_dict(self, options: Mapping[str, Any], allow_list_keys: bool = True) -> None:
        """Merge options into the config; dots in their keys lead into nested dicts and lists.

        Args:
            options: For example ``{'model.backbone.depth': 50, 'data.train.pipeline.0.type': 'Load'}``.
            allow_list_keys: Whether keys that are numbers stand for elements of lists. They replace that
                element, or are merged into it where both are dicts.

        Raises:
            KeyError: An index past the end of a list.
            TypeError: A dict that meets something else: ``_delete_=True`` in it replaces the old value.

        Example:
            >>> cfg = Config(dict(pipeline=[dict(type='Load'), dict(type='Flip')]))
            >>> cfg.merge_from_dict({'pipeline.1.prob': 0.5})
            >>> cfg.pipeline[1]
            {'type': 'Flip', 'prob': 0.5}
        """
        merged = merge(nest_options(options), self._cfg_dict, allow_list_keys)
        object.__setattr__(self, "_cfg_dict", ConfigDict(merged))

    # Writing

    @property
    def pretty_text(self) -> str:
        """The config as Python source, ready to be saved as a ``.py`` config."""
        from .pretty import format_config

        return format_config(self._cfg_dict)

    def dump(self, file: str | os.PathLike[str] | None = None) -> str | None:
        """Write the config to a file, or return its text.

        Args:
            file: Where to; the suffix says the format. By default the text is returned, in the format of the
                file that the config came from (Python, if it came from none).

        Raises:
            TypeError: The config holds something that the format cannot, such as a function. Nothing is
                written then.
        """
        from .dumping import dump_text, write_text

        own_suffix = Path(self._filename or "").suffix
        suffix = own_suffix if file is None else Path(file).suffix
        if suffix not in SUFFIXES:
            suffix = own_suffix
        text = dump_text(self._cfg_dict, suffix)
        if file is None:
            return text
        write_text(text, os.fspath(file))
        return None

    # Being a dict

    @property
    def filename(self) -> str | None:
        """The file that the config came from, as it was given."""
        return self._filename

    @property
    def text(self) -> str:
        """The text of the config file, its path in the line before; its bases come first, likewise."""
        return self._text

    def __getattr__(self, name: str) -> Any:
        if name in ("_cfg_dict", "_filename", "_text"):  # not set yet, while unpickling
            raise AttributeError(name)
        return getattr(self._cfg_dict, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in RESERVED_KEYS or hasattr(type(self), name):
            raise AttributeError(f"{name!r} is an attribute of {type(self).__name__} and cannot be set")
        setattr(self._cfg_dict, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._cfg_dict, name)

    def __getitem__(self, name: str) -> Any:
        return self._cfg_dict[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in RESERVED_KEYS:
            raise KeyError(f"{name!r} is reserved and cannot be a key of a config")
        self._cfg_dict[name] = value

    def __delitem__(self, name: str) -> None:
        del self._cfg_dict[name]

    def __contains__(self, name: object) -> bool:
        return name in self._cfg_dict

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cfg_dict)

    def __len__(self) -> int:
        return len(self._cfg_dict)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *dir(self._cfg_dict)]

    def __repr__(self) -> str:
        return f"Config [path: {self._filename}]: {self._cfg_dict!r}"

    def __getstate__(self) -> tuple[ConfigDict, str | None, str]:
        return self._cfg_dict, self._filename, self._text

    def __setstate__(self, state: tuple[ConfigDict, str | None, str]) -> None:
        for name, value in zip(("_cfg_dict", "_filename", "_text"), state, strict=True):
            object.__setattr__(self, name, value)

    def __copy__(self) -> Config:
        other = type(self).__new__(type(self))
        other.__setstate__((self._cfg_dict.copy(), self._filename, self._text))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        import copy

        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__((copy.deepcopy(self._cfg_dict, memo), self._filename, self._text))
        return other


def _import_custom_modules(custom_imports: Any) -> None:
    from cv.utils import import_modules_from_strings

    if not isinstance(custom_imports, dict):
        raise TypeError(f"custom_imports must be a dict, got {custom_imports!r}")
    import_modules_from_strings(**custom_imports)
