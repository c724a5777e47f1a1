"""The half of the YAML handler that needs PyYAML: imported at the first YAML file, not before."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Any

import yaml

from cv.fileio.errors import ParseError, decode_text

MAX_MERGED_KEYS = 1_000_000  # a short text of "<<" keys can stand for any number of them
MAX_DEPTH = 2000  # the C parser recurses, and crashes the process where the stack ends
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class YamlParseError(ParseError, yaml.YAMLError):
    """Malformed YAML; also a ``yaml.YAMLError``."""


class SafeLoader(_BaseLoader):  # type: ignore[misc]
    """The safe loader, with a bound on what merge keys (``<<: *anchor``) may add up to."""

    _depth = 0
    _merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Called for each mapping, and from in there for each mapping that is merged into it.
        self._depth += 1
        super().flatten_mapping(node)
        self._depth -= 1
        if self._depth:
            self._merged += len(node.value)
            if self._merged > MAX_MERGED_KEYS:
                reason = f"merge keys (<<) add up to more than {MAX_MERGED_KEYS} keys"
                raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


class Dumper(_BaseDumper):  # type: ignore[misc]
    """The safe dumper, which also takes subclasses of dict, list … and what numpy computes."""

    def represent_data(self, data: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(data, (numpy.ndarray, numpy.generic)):
            data = data.tolist()
        return super().represent_data(data)

    def ignore_aliases(self, data: Any) -> bool:
        # Equal tuples and strings are often one object; an anchor for each would be noise.
        return isinstance(data, (tuple, range)) or bool(super().ignore_aliases(data))


def _represent_mapping(dumper: Any, data: dict[Any, Any]) -> Any:
    return dumper.represent_dict(data.items())


def _represent_sequence(dumper: Any, data: Any) -> Any:
    return dumper.represent_list(list(data))


# PyYAML looks a type up by its bases, so these cover subclasses too.
Dumper.add_multi_representer(dict, _represent_mapping)
for _kind in (list, tuple, range):
    Dumper.add_multi_representer(_kind, _represent_sequence)
Dumper.add_multi_representer(frozenset, lambda dumper, data: dumper.represent_set(data))
Dumper.add_multi_representer(set, lambda dumper, data: dumper.represent_set(data))
Dumper.add_multi_representer(str, lambda dumper, data: dumper.represent_str(str.__str__(data)))
Dumper.add_multi_representer(bool, lambda dumper, data: dumper.represent_bool(data))
Dumper.add_multi_representer(int, lambda dumper, data: dumper.represent_int(int(data)))
Dumper.add_multi_representer(float, lambda dumper, data: dumper.represent_float(float(data)))
Dumper.add_multi_representer(PurePath, lambda dumper, data: dumper.represent_str(str(data)))


def safe_load(text: str) -> Any:
    """The one document in a text, as plain data.

    Raises:
        yaml.YAMLError: Malformed, tags that are no plain data, or nesting deeper than ``MAX_DEPTH``.
    """
    _check_depth(text)
    return yaml.load(text, Loader=SafeLoader)


def _check_depth(text: str) -> None:
    # One level takes a bracket, or a column of a line: most texts need no closer look.
    brackets = text.count("[") + text.count("{")
    if brackets <= MAX_DEPTH and max(map(len, text.splitlines()), default=0) <= MAX_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark  # types-PyYAML has other marks for the C parser
                raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def parse_yaml(data: str | bytes, *, filename: str | None = None, Loader: Any = None) -> Any:
    """Parse one YAML document; an empty one gives None.

    Raises:
        YamlParseError: Malformed; the error names the file, line and column.
        UnicodeDecodeError: ``data`` is bytes and not UTF-8.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        data = decode_text(bytes(data), "utf-8", filename)
    try:
        return safe_load(data) if Loader is None else yaml.load(data, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        if error.context and error.context_mark and mark is not error.context_mark:
            parts[0] += f" that begins in line {error.context_mark.line + 1}"
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise YamlParseError(", ".join(parts), filename, line, column) from error
    except yaml.reader.ReaderError as error:
        line = data.count("\n", 0, error.position) + 1
        column = error.position - data.rfind("\n", 0, error.position)
        reason = f"the character {chr(error.character)!r} is not allowed in YAML"
        raise YamlParseError(reason, filename, line, column) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a timestamp such as 2001-99-99
        raise YamlParseError(str(error), filename) from error


def format_yaml(obj: Any, **kwargs: Any) -> str:
    """YAML text of ``obj``; ``kwargs`` are those of ``yaml.dump``."""
    kwargs.setdefault("Dumper", Dumper)
    kwargs.setdefault("sort_keys", False)
    kwargs.setdefault("allow_unicode", True)
    text = yaml.dump(obj, **kwargs)
    return text.decode(kwargs["encoding"]) if isinstance(text, bytes) else str(text)
