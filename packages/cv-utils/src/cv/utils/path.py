"""Files and folders: checks, opening, making, linking, listing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["check_file_exist", "fopen", "is_filepath", "mkdir_or_exist", "scandir", "symlink"]

StrPath = str | os.PathLike[str]


def is_filepath(x: object) -> bool:
    """Whether this is a path: a str or a Path."""
    return isinstance(x, (str, os.PathLike))


def fopen(filepath: StrPath, *args: Any, **kwargs: Any) -> IO[Any]:
    """Open a file given by a str or a Path; the other arguments are those of ``open``.

    Raises:
        ValueError: ``filepath`` is something else (an int, which ``open`` would take for a descriptor).
    """
    if not is_filepath(filepath):
        raise ValueError(f"`filepath` should be a string or a Path, got {type(filepath)}")
    file: IO[Any] = Path(filepath).open(*args, **kwargs)  # noqa: SIM115  (the caller closes it)
    return file


def check_file_exist(filename: StrPath, msg_tmpl: str = 'file "{}" does not exist') -> None:
    """Raise if there is no such file.

    Args:
        filename: The path.
        msg_tmpl: The message, with ``{}`` for the path.

    Raises:
        FileNotFoundError: There is no file of that name.
    """
    if not Path(filename).is_file():
        raise FileNotFoundError(msg_tmpl.format(filename))


def mkdir_or_exist(dir_name: StrPath, mode: int = 0o777) -> None:
    """Make a folder and those above it, if they are not there yet.

    Args:
        dir_name: The folder; ``~`` stands for the home folder; an empty str is the current folder.
        mode: Permissions of a new folder, before the umask.

    Raises:
        FileExistsError: There is a file of that name.
    """
    Path(dir_name).expanduser().mkdir(mode=mode, parents=True, exist_ok=True)


def symlink(src: StrPath, dst: StrPath, overwrite: bool = True, **kwargs: Any) -> None:
    """Make ``dst`` a symbolic link to ``src``.

    The link replaces an older file or link in one step: at no time is there no ``dst``.

    Args:
        src: What the link points to; relative paths count from the folder of ``dst``.
        dst: The link.
        overwrite: Replace an existing file or link.
        **kwargs: For ``os.symlink``.

    Raises:
        FileExistsError: ``dst`` exists and ``overwrite`` is False.
        OSError: ``dst`` is a folder.
    """
    link = Path(dst)
    if not (overwrite and os.path.lexists(link)):
        link.symlink_to(src, **kwargs)
        return
    beside = link.with_name(f".{link.name}.{os.urandom(8).hex()}")
    beside.symlink_to(src, **kwargs)
    try:
        beside.replace(link)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def scandir(
    dir_path: StrPath,
    suffix: str | tuple[str, ...] | None = None,
    recursive: bool = False,
    case_sensitive: bool = True,
) -> Iterator[str]:
    """List the files of a folder.

    Args:
        dir_path: The folder.
        suffix: Only files that end so, or in one of several ways.
        recursive: Also the files of folders inside.
        case_sensitive: Whether ``suffix`` tells upper from lower case.

    Returns:
        An iterator over the paths relative to ``dir_path``, sorted by name within each folder. Files whose
        name begins with a dot are left out.

    Raises:
        TypeError: ``dir_path`` is not a path or ``suffix`` not a str or tuple of str.
    """
    if not is_filepath(dir_path):
        raise TypeError(f'"dir_path" must be a string or Path object, got {type(dir_path)}')
    if suffix is not None and not isinstance(suffix, (str, tuple)):
        raise TypeError(f'"suffix" must be a string or tuple of strings, got {type(suffix)}')
    if suffix is not None and not case_sensitive:
        suffix = suffix.lower() if isinstance(suffix, str) else tuple(item.lower() for item in suffix)

    def walk(folder: Path, below: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link back to a folder we are in
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_file():
                name = entry.name if case_sensitive else entry.name.lower()
                if not entry.name.startswith(".") and (suffix is None or name.endswith(suffix)):
                    yield f"{below}{entry.name}"
            elif recursive and entry.is_dir():
                yield from walk(folder / entry.name, f"{below}{entry.name}{os.sep}", above | {identity})

    return walk(Path(dir_path), "", frozenset())
