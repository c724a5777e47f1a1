"""The parser behind ``Config.auto_argparser``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .config import Config
from .dict_action import parse_value

__all__ = ["build_parser"]


def build_parser(description: str | None) -> tuple[argparse.ArgumentParser, Config]:
    """See ``Config.auto_argparser``."""
    first = argparse.ArgumentParser(description=description, add_help=False)
    first.add_argument("config", nargs="?")
    filename = first.parse_known_args()[0].config
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file path")
    if filename is None:
        parser.parse_args()  # --help, or the error that the config is missing
    cfg = Config.fromfile(filename)
    _add_options(parser, cfg._cfg_dict, "")
    return parser, cfg


def _add_options(parser: argparse.ArgumentParser, config: Mapping[Any, Any], prefix: str) -> None:
    for key, value in config.items():
        if not isinstance(key, str):
            continue
        option = f"--{prefix}{key}"
        if isinstance(value, Mapping):
            _add_options(parser, value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        elif isinstance(value, (str, int, float)):
            parser.add_argument(option, type=type(value), metavar=type(value).__name__.upper())
        elif isinstance(value, (list, tuple)):
            element = (
                type(value[0]) if value and all(type(item) is type(value[0]) for item in value) else None
            )
            read = element if element in (str, int, float) else parse_value
            parser.add_argument(option, type=read, nargs="+", metavar="VALUE")
        else:
            parser.add_argument(option, type=parse_value, metavar="VALUE")
