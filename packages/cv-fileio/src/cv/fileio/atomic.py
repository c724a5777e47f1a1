"""Write a file so that a reader sees the old content or the new one, never half of it.

The content goes to a temporary file beside the target, is flushed to the disk (``fsync``) and renamed
over the target (``os.replace``, atomic on POSIX and Windows when both are on one file system, which
being in one folder gives).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, overload

_MODES = ("w", "wb", "wt", "x", "xb", "xt")


@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["wb", "xb"] = "wb",
    *,
    encoding: None = None,
    newline: None = None,
) -> AbstractContextManager[IO[bytes]]: ...
@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["w", "wt", "x", "xt"],
    *,
    encoding: str | None = None,
    newline: str | None = None,
) -> AbstractContextManager[IO[str]]: ...
@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "wb",
    *,
    encoding: str | None = None,
    newline: str | None = None,
) -> AbstractContextManager[IO[Any]]: ...
@contextmanager
def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "wb",
    *,
    encoding: str | None = None,
    newline: str | None = None,
) -> Iterator[IO[Any]]:
    """Open ``path`` for writing; the file appears under its name only when the block succeeds.

    If the block raises (or the process dies) the target stays as it was; on an exception the temporary
    file is removed. A symbolic link is written through: the link stays and its target is replaced. An
    existing file keeps its permission bits, a new one gets those the umask gives. Something that is
    not a regular file (``/dev/stdout``, a named pipe) is simply opened and written.

    The temporary file is named ``.<name>.<random>.tmp``, so a process that was killed leaves nothing
    that a pattern such as ``*.pth`` would pick up.

    Args:
        path: The file to write. Its folder must exist and be writable.
        mode: ``'wb'`` or ``'w'`` (text); ``'xb'`` or ``'x'`` refuse an existing target.
        encoding: Text encoding; ``'utf-8'`` if not given.
        newline: As for :func:`open`, in text mode.

    Yields:
        A file object open for writing. It need not be closed by the caller, but may be.

    Raises:
        ValueError: ``mode`` is none of the above.
        FileExistsError: The target exists and ``mode`` begins with ``'x'``.
        OSError: The folder is missing or not writable, or the disk is full.

    Example:
        >>> with atomic_write('state.json', 'w') as file:
        ...     file.write('{}')
    """
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if "b" not in mode and encoding is None:
        encoding = "utf-8"
    target = Path(os.path.realpath(path))
    exclusive = mode.startswith("x")
    if exclusive and os.path.lexists(path):
        raise FileExistsError(f"{os.fspath(path)} exists already and mode is {mode!r}")
    permissions = _permissions(target)
    if permissions is None:
        with target.open(mode, encoding=encoding, newline=newline) as file:
            yield file
        return

    temporary = _temporary_name(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)  # the umask decides, unlike with mkstemp
    try:
        with os.fdopen(descriptor, mode.replace("x", "w"), encoding=encoding, newline=newline) as file:
            yield file
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
        if permissions:
            with suppress(OSError):  # a file system without permission bits
                temporary.chmod(permissions)
        if exclusive:
            os.link(temporary, target)  # unlike replace, this fails if somebody was faster
            temporary.unlink()
        else:
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _permissions(target: Path) -> int | None:
    """Permission bits of an existing regular file, 0 for a new file, None for devices and pipes."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{target} is a folder, not a file that can be written")
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def _temporary_name(target: Path) -> Path:
    # File systems allow 255 bytes a name; the tail of a very long one is cut off.
    stem = os.fsdecode(os.fsencode(target.name)[:200])
    return target.with_name(f".{stem}.{os.urandom(6).hex()}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems refuse it; the content is safe all the same
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
