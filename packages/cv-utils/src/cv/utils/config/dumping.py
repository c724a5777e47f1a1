"""A config as the text of a ``.py``, ``.json`` or ``.yaml`` file."""

from __future__ import annotations

import json
import re
from typing import Any

from .config_dict import ConfigDict
from .pretty import format_config
from .references import REFERENCE

__all__ = ["dump_text", "write_text"]


def dump_text(config: ConfigDict, suffix: str) -> str:
    """The text for a file of that suffix; Python if it is none of ``.json``, ``.yaml``, ``.yml``.

    JSON and YAML have no tuples, and JSON no keys but strings: what is read back has lists and strings there.

    Raises:
        TypeError: The config holds something that the format cannot.
    """
    if suffix == ".json":
        # In JSON two braces can only meet inside a string.
        return REFERENCE.sub(lambda match: "\\u007b" + match[0][1:], json.dumps(config.to_dict()))
    if suffix in (".yaml", ".yml"):
        return _dump_yaml(config.to_dict())
    return format_config(config, strict=True)


def write_text(text: str, filename: str) -> None:
    """Write a text beside the target and rename it over it."""
    from cv.fileio import atomic_write

    with atomic_write(filename, "wb") as file:
        file.write(text.encode("utf-8"))


def _dump_yaml(config: dict[Any, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Without aliases, and with strings that need escapes in double quotes.

        That is strings which look like references, and strings with characters which PyYAML would write
        plainly and read back as something else (U+0085).
        """

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar(
            "tag:yaml.org,2002:str",
            text,
            style='"' if REFERENCE.search(text) or not text.isprintable() else None,
        )

    Dumper.add_representer(str, represent_str)
    try:
        text = yaml.dump(config, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    except yaml.representer.RepresenterError as error:
        raise TypeError(f"YAML cannot hold {error.args[-1]!r:.200}") from error
    return re.sub(REFERENCE.pattern, lambda match: "\\x7B" + match[0][1:], text)
