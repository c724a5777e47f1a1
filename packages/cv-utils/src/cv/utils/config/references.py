"""``{{ fileDirname }}`` and ``{{ _base_.a.b }}`` in config files.

They are not Python, JSON or YAML. So each is replaced by a token, a word that is valid everywhere, the
text is parsed, and the values are put where the tokens are. Nothing that a value contains is ever parsed, so
a quote in the name of a folder does no harm. A string that is one reference becomes the value itself, with
its type; inside a longer string the value's text is inserted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["REFERENCE", "References", "predefined_variables"]

#: Anything in a text that is replaced when the text is read as a config.
REFERENCE = re.compile(
    r"\{\{\s*(?:(?P<variable>fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)"
    r"|_base_(?P<path>(?:\.\w+|\[-?\d+\])+))\s*\}\}"
)


def predefined_variables(path: Path) -> dict[str, str]:
    """The values of ``{{ fileDirname }}`` and its kin for an absolute path."""
    return {
        "fileDirname": path.parent.as_posix(),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }


class References:
    """The references of one text.

    Args:
        text: The text of a config file.
        variables: Values of the predefined variables, or None to leave those references as they are.

    Attributes:
        text: The text with tokens in place of references.
        variables: ``token -> value`` of each predefined variable.
        bases: ``token -> path`` of each reference into the base, as ``.a.b``.
        token: Matches the tokens.
    """

    def __init__(self, text: str, variables: dict[str, str] | None) -> None:
        self.text = text
        self.variables: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        self.token = re.compile("(?!)")
        if "{{" not in text:
            return
        prefix = "_cv_reference"
        while prefix in text:
            prefix += "_"

        def token(match: re.Match[str]) -> str:
            name = match["variable"]
            if name and variables is None:
                return match[0]
            word = f"{prefix}{len(self.variables) + len(self.bases)}_"
            if name:
                assert variables is not None
                self.variables[word] = variables[name]
            else:
                self.bases[word] = match["path"]
            return word

        self.text = REFERENCE.sub(token, text)
        self.token = re.compile(f"({prefix}[0-9]+_)")

    def __bool__(self) -> bool:
        return bool(self.variables or self.bases)

    # In data read from JSON and YAML

    def fill(self, value: Any, lookup: Callable[[str], Any]) -> Any:
        """Put values into all strings of a data structure, keys included.

        Args:
            value: Nested dicts and lists.
            lookup: Gives the value for a path into the base.
        """
        if isinstance(value, str):
            return self._fill_text(value, lookup)
        if isinstance(value, dict):
            return {self.fill(key, lookup): self.fill(item, lookup) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return type(value)(self.fill(item, lookup) for item in value)
        return value

    def _fill_text(self, text: str, lookup: Callable[[str], Any]) -> Any:
        parts = self.token.split(text)
        values = [self._value(part, lookup) if index % 2 else part for index, part in enumerate(parts)]
        if len(values) == 3 and not values[0] and not values[2]:
            return values[1]
        return "".join(map(str, values))

    def _value(self, token: str, lookup: Callable[[str], Any]) -> Any:
        return self.variables[token] if token in self.variables else lookup(self.bases[token])

    def quote_in_json(self) -> str:
        """The text with quotes around the tokens that stand outside strings."""
        pattern = re.compile(r'"(?:[^"\\]|\\.)*"|' + self.token.pattern, re.DOTALL)
        return pattern.sub(lambda match: f'"{match[0]}"' if match[1] else match[0], self.text)
