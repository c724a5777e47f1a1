"""YAML, read and written safely: plain data only, no tags that build Python objects."""

from __future__ import annotations

from typing import IO, Any

from .base import BaseFileHandler, stream_name, write_text


class YamlHandler(BaseFileHandler):
    """YAML 1.1 as PyYAML reads it, with its C parser where that is built in."""

    def load_from_fileobj(self, file: IO[Any], **kwargs: Any) -> Any:
        """Read one document from a text or binary stream.

        ``Loader=`` may name another PyYAML loader. Loaders other than the safe ones can run code that
        is written in the file.
        """
        from ._yaml import parse_yaml

        return parse_yaml(file.read(), filename=stream_name(file), **kwargs)

    def dump_to_fileobj(self, obj: Any, file: IO[Any], **kwargs: Any) -> None:
        """Write to a text or binary stream; ``kwargs`` are those of ``yaml.dump``."""
        write_text(self.dump_to_str(obj, **kwargs), file)

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:
        """Turn an object into YAML text; ``kwargs`` are those of ``yaml.dump``.

        Keys keep their order unless ``sort_keys=True``. Tuples and ranges become lists, numpy scalars
        and arrays plain numbers and lists, paths strings.
        """
        from ._yaml import format_yaml

        return format_yaml(obj, **kwargs)
