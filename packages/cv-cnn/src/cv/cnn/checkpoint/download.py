"""Download a file once into the cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from cv.utils.dist import get_dist_info

__all__ = ["download", "hash_in_name"]


def download(url: str, model_dir: str | os.PathLike[str] | None = None, sha256: str | None = None) -> str:
    """Download a file, unless the cache has it.

    Processes that want the same file at once wait for the one that downloads it. The file is moved into
    place when it is complete and has the expected hash, so the cache holds no broken files.

    Args:
        url: The URL. ``#sha256=<hex>`` at its end gives the hash to check against.
        model_dir: Cache directory. Default: torch's, ``hub/checkpoints`` in ``$TORCH_HOME``.
        sha256: Hexadecimal hash, or the first digits of it.

    Returns:
        Path of the file in the cache.

    Raises:
        RuntimeError: The content does not have the expected hash.
        OSError: The download failed; what urllib raises.
    """
    url, _, fragment = url.partition("#")
    if fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=").lower()
    target = _cache_path(url, model_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(target):
        if not target.is_file() or (sha256 and not _hash_of(target).startswith(sha256)):
            progress = get_dist_info()[0] == 0
            torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256, progress=progress)
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
