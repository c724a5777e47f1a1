"""Download a file once into the cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch

from cv.utils.dist import get_dist_info

__all__ = ["download", "hash_in_name"]


def download(url: str, model_dir: str | os.PathLike[str] | None = None, sha256: str | None = None) -> str:
    """Download a file, unless the cache has it.

    A connection that breaks is opened again, and the download goes on where it stopped if the server can;
    see :class:`cv.fileio.HTTPBackend`. Processes that want the same file at once wait for the one that
    downloads it. The file appears in the cache when it is complete and has the expected hash, so the cache
    holds no broken files. The first rank shows a progress bar on standard error.

    Args:
        url: The URL. ``#sha256=<hex>`` at its end gives the hash to check against.
        model_dir: Cache directory. Default: torch's, ``hub/checkpoints`` in ``$TORCH_HOME``.
        sha256: Hexadecimal hash, or the first digits of it.

    Returns:
        Path of the file in the cache.

    Raises:
        RuntimeError: The content does not have the expected hash.
        FileNotFoundError: The server does not have the URL.
        OSError: The download failed, or the cache cannot be written.
    """
    url, _, fragment = url.partition("#")
    if fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=").lower()
    target = _cache_path(url, model_dir)
    if _is_cached(target, sha256):  # without a lock: a cache that is shared may be read-only
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(target):
        if not _is_cached(target, sha256):
            _fetch(url, target, sha256)
    return str(target)


def hash_in_name(name: str) -> str | None:
    """The first digits of the sha256 in the name of published weights (``resnet50-0676ba61.pth``)."""
    match = re.search(r"-([0-9a-f]{8,64})\.[^./]+$", name)
    return match[1] if match else None


def _cache_path(url: str, model_dir: str | os.PathLike[str] | None) -> Path:
    root = Path(model_dir) if model_dir is not None else Path(torch.hub.get_dir()) / "checkpoints"
    name = unquote(Path(urlsplit(url).path).name) or "checkpoint"
    if hash_in_name(name):
        return root / name  # where torch.hub and torchvision keep it too
    # Otherwise `…/a/epoch_12.pth` and `…/b/epoch_12.pth` would be taken for each other.
    return root / hashlib.sha256(url.encode()).hexdigest()[:12] / name


def _is_cached(target: Path, sha256: str | None) -> bool:
    return target.is_file() and (not sha256 or _hash_of(target).startswith(sha256))


def _fetch(url: str, target: Path, sha256: str | None) -> None:
    """Download to ``target``, which appears when it is complete and has the hash."""
    from cv.fileio import HTTPBackend

    hub: Any = torch.hub  # its tqdm is the real one, or a simple one where that is not installed
    bar = hub.tqdm(disable=get_dist_info()[0] != 0, unit="B", unit_scale=True, unit_divisor=1024)

    def show(received: int, total: int | None) -> None:
        bar.total = total
        bar.update(received - bar.n)

    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with bar, partial.open("wb") as file:
            HTTPBackend().download(url, file, progress=show)
            file.flush()
            os.fsync(file.fileno())
        found = _hash_of(partial) if sha256 else ""
        if sha256 and not found.startswith(sha256):
            raise RuntimeError(f'{url}: invalid hash value (expected "{sha256}", got "{found}")')
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _one_process_at_a_time(path: Path) -> Iterator[None]:
    """A lock among the processes of a machine, so that a multi-GPU job downloads once."""
    try:
        import fcntl
    except ImportError:  # Windows: the last download wins, each is complete
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
