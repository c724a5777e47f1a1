"""``load`` and ``dump``: one pair of functions for every file format and every place.

The format follows from the suffix (``annotations.json``, ``results.pkl``) or is given; a second suffix
``.gz``, ``.xz`` or ``.zst`` compresses. A path with a scheme (``https://…``, ``s3://…``) goes through the
:class:`~cv.fileio.FileClient` of that scheme.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeVar, overload

from .atomic import atomic_write
from .compression import SUFFIXES, compress, decompress, split_suffix
from .errors import decode_text
from .file_client import FileClient
from .handlers import BaseFileHandler, JsonHandler, PickleHandler, YamlHandler
from .handlers.base import stream_name

HandlerClass = TypeVar("HandlerClass", bound=type[BaseFileHandler])

file_handlers: dict[str, BaseFileHandler] = {
    "json": JsonHandler(),
    "yaml": YamlHandler(),
    "yml": YamlHandler(),
    "pickle": PickleHandler(),
    "pkl": PickleHandler(),
}
"""The handler of each suffix; :func:`register_handler` adds to it."""


def load(
    file: str | os.PathLike[str] | IO[Any],
    file_format: str | None = None,
    *,
    file_client_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Read an object from a json, yaml or pickle file, or one of a registered format.

    JSON and YAML are data only. A pickle can run code of its writer's choice: load only pickles from
    sources you trust.

    Args:
        file: Path, URI, or an open file (text or binary). ``.gz``, ``.xz`` and ``.zst`` paths are
            decompressed; an open file is read as it is.
        file_format: ``'json'``, ``'yaml'``/``'yml'``, ``'pickle'``/``'pkl'`` or a registered name. By
            default the suffix says it.
        file_client_args: Arguments of the :class:`FileClient` to read through, such as
            ``dict(backend='lmdb', db_path='train.lmdb')``. By default the scheme of a URI decides, and
            plain paths are on disk.
        **kwargs: Passed to the handler (``json.loads``, ``yaml.load``, ``pickle.load``).

    Returns:
        The content.

    Raises:
        TypeError: The format is unknown (the error lists the known ones), or ``file`` is neither a path
            nor a file.
        ParseError: The content is malformed; the error names the file, line and column.
        UnicodeDecodeError: A text file is not UTF-8; the error names the file and line.
        OSError: The file cannot be read.
    """
    if isinstance(file, (str, os.PathLike)):
        path = os.fspath(file)
        handler, suffix = _handler_for_path(file, file_format)
        if not suffix and file_client_args is None and not FileClient.parse_uri_prefix(file):
            return _load_from_disk(handler, path, kwargs)
        data = bytes(FileClient.infer_client(file_client_args, file).get(file))
        if suffix:
            data = decompress(data, suffix, path)
        return _load_from_bytes(handler, data, path, kwargs)
    if hasattr(file, "read"):
        if file_format is None:
            file_format = _format_of(split_suffix(stream_name(file) or "")[0]) or None
        return _handler(file_format, "file").load_from_fileobj(file, **kwargs)
    raise TypeError(f"file must be a path or an open file, got {type(file).__name__}")


def loads(content: str | bytes, file_format: str, **kwargs: Any) -> Any:
    """Read an object from text or bytes: the counterpart of :func:`dump` without a file.

    Args:
        content: JSON or YAML text, a pickle's bytes …
        file_format: As for :func:`load`.
        **kwargs: Passed to the handler.

    Raises:
        TypeError: The format is unknown, or is binary and ``content`` is a str.
        ParseError: The content is malformed.
    """
    handler = _handler(file_format, "content")
    if isinstance(content, str):
        if not handler.str_like:
            raise TypeError(f"content must be bytes for the binary format {file_format!r}, got str")
        return handler.load_from_fileobj(io.StringIO(content), **kwargs)
    return _load_from_bytes(handler, bytes(content), None, kwargs)


@overload
def dump(
    obj: Any,
    file: None = None,
    file_format: str | None = None,
    *,
    file_client_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any: ...
@overload
def dump(
    obj: Any,
    file: str | os.PathLike[str] | IO[Any],
    file_format: str | None = None,
    *,
    file_client_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> bool: ...
def dump(
    obj: Any,
    file: str | os.PathLike[str] | IO[Any] | None = None,
    file_format: str | None = None,
    *,
    file_client_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Write an object as json, yaml or pickle, or in a registered format.

    A file on disk is written beside its name and renamed over it: if ``obj`` cannot be written, the disk
    fills up or the process is killed, the old file is still there and whole.

    Args:
        obj: What to write. JSON also takes numpy scalars and arrays, sets and ranges.
        file: Path, URI, or a file open for writing; None gives the text back. A path that ends in
            ``.gz``, ``.xz`` or ``.zst`` is compressed.
        file_format: As for :func:`load`.
        file_client_args: As for :func:`load`.
        **kwargs: Passed to the handler (``json.dumps``, ``yaml.dump``, ``pickle.dump``).

    Returns:
        True when written; without ``file`` the str (bytes for pickle).

    Raises:
        ValueError: Neither ``file`` nor ``file_format`` is given.
        TypeError: The format is unknown, or ``obj`` has no form in it.
        OSError: The file cannot be written.
    """
    if file is None:
        if file_format is None:
            raise ValueError("file_format must be given when file is None, got None for both")
        return _handler(file_format, "file_format").dump_to_str(obj, **kwargs)
    if isinstance(file, (str, os.PathLike)):
        path = os.fspath(file)
        handler, suffix = _handler_for_path(file, file_format)
        on_disk = file_client_args is None and not FileClient.parse_uri_prefix(file)
        if on_disk and not suffix:
            handler.dump_to_path(obj, path, **kwargs)
            return True
        data = _dump_to_bytes(handler, obj, kwargs)
        if suffix:
            data = compress(data, suffix)
        if on_disk:
            with atomic_write(path) as stream:
                stream.write(data)
        else:
            FileClient.infer_client(file_client_args, file).put(data, file)
        return True
    if hasattr(file, "write"):
        if file_format is None:
            file_format = _format_of(split_suffix(stream_name(file) or "")[0]) or None
        _handler(file_format, "file").dump_to_fileobj(obj, file, **kwargs)
        return True
    raise TypeError(f"file must be a path or a file open for writing, got {type(file).__name__}")


def register_handler(
    file_formats: str | Sequence[str], **kwargs: Any
) -> Callable[[HandlerClass], HandlerClass]:
    """Decorate a :class:`BaseFileHandler` so that :func:`load` and :func:`dump` know its format.

    Args:
        file_formats: One suffix or several, without the dot. A known one is replaced.
        **kwargs: Passed to the class when its instance is made.

    Raises:
        TypeError: A format is not a str, or the class is no :class:`BaseFileHandler`.
    """
    formats = [file_formats] if isinstance(file_formats, str) else list(file_formats)
    for name in formats:
        if not isinstance(name, str):
            raise TypeError(f"file_formats must be a str or a list of str, got {file_formats!r}")

    def register(cls: HandlerClass) -> HandlerClass:
        if not _is_handler(cls):
            raise TypeError(f"a handler must be a subclass of BaseFileHandler, got {cls!r}")
        handler = cls(**kwargs)
        for name in formats:
            file_handlers[name] = handler
        return cls

    return register


def _is_handler(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, BaseFileHandler)


def _handler_for_path(file: str | os.PathLike[str], file_format: str | None) -> tuple[BaseFileHandler, str]:
    """The handler, and the suffix of a compression ('' for none)."""
    path = os.fspath(file)
    if FileClient.parse_uri_prefix(file):
        path = path.split("?", 1)[0].split("#", 1)[0]
    name, suffix = split_suffix(path)
    if suffix[1:] in file_handlers:  # somebody registered a handler for 'gz': theirs
        name, suffix = path, ""
    return _handler(_format_of(name) if file_format is None else file_format, path), suffix


def _format_of(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()  # noqa: PTH122 (also for URIs)


def _handler(file_format: str | None, source: str) -> BaseFileHandler:
    handler = file_handlers.get(file_format) if file_format is not None else None
    if handler is None:
        known = ", ".join(sorted(file_handlers))
        raise TypeError(
            f"unsupported format {file_format!r} of {source}; known are {known}, "
            f"each also with {', '.join(SUFFIXES)}; cv.fileio.register_handler adds others"
        )
    return handler


def _load_from_disk(handler: BaseFileHandler, path: str, kwargs: dict[str, Any]) -> Any:
    try:
        return handler.load_from_path(path, **kwargs)
    except UnicodeDecodeError as error:
        if path in error.reason:
            raise
        with open(path, "rb") as file:  # noqa: PTH123
            decode_text(file.read(), error.encoding, path)
        raise


def _load_from_bytes(handler: BaseFileHandler, data: bytes, name: str | None, kwargs: dict[str, Any]) -> Any:
    file: _NamedText | _NamedBytes
    if handler.str_like:
        file = _NamedText(decode_text(data, "utf-8", name), newline=None)
    else:
        file = _NamedBytes(data)
    file.name = name
    return handler.load_from_fileobj(file, **kwargs)


def _dump_to_bytes(handler: BaseFileHandler, obj: Any, kwargs: dict[str, Any]) -> bytes:
    text = handler.dump_to_str(obj, **kwargs)
    return text.encode() if isinstance(text, str) else bytes(text)


class _NamedText(io.StringIO):
    name: str | None = None


class _NamedBytes(io.BytesIO):
    name: str | None = None
