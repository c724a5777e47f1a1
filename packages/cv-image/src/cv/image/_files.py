"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and rename it over, keeping the permissions of a file that is replaced.

    A link is followed; what is not a regular file (a pipe, a device) is written to directly.
    """
    target = Path(os.path.realpath(path))
    try:
        mode: int | None = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        target.write_bytes(content)
        return
    # A short name of its own: the target's may already be as long as the file system allows.
    temporary = target.parent / f".cv-{os.urandom(8).hex()}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
