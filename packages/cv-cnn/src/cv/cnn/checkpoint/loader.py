"""Load a checkpoint from wherever its name points to: a registry of loaders by prefix."""

from __future__ import annotations

import inspect
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, overload

from cv.cnn.checkpoint.download import download, hash_in_name
from cv.cnn.checkpoint.model_zoo import (
    MMCLS_FILES,
    OPENMMLAB_FILES,
    OPENMMLAB_RENAMED,
    TORCHVISION_BASE,
    TORCHVISION_FILES,
)
from cv.cnn.checkpoint.reading import read_checkpoint
from cv.cnn.checkpoint.state_dict import select_prefix, state_dict_of
from cv.utils import CvDeprecationWarning, print_log

__all__ = ["MIRROR_VARIABLE", "CheckpointLoader"]

MIRROR_VARIABLE = "CV_OPENMMLAB_MIRROR"

Loader = Callable[..., Any]
_L = TypeVar("_L", bound=Loader)


class CheckpointLoader:
    """Loads a checkpoint by the prefix of its name: the loader registered for the longest prefix is used.

    Built in: local files (no prefix), ``http://``, ``https://``, ``torchvision://`` and ``modelzoo://``,
    ``open-mmlab://``, ``openmmlab://`` and ``mmcls://``, and, through cv-fileio, ``s3://`` and every other
    scheme that :class:`cv.fileio.FileClient` has a backend for.
    """

    _schemes: ClassVar[dict[str, Loader]] = {}

    @overload
    @classmethod
    def register_scheme(
        cls, prefixes: str | list[str] | tuple[str, ...], loader: None = None, force: bool = False
    ) -> Callable[[_L], _L]: ...
    @overload
    @classmethod
    def register_scheme(
        cls, prefixes: str | list[str] | tuple[str, ...], loader: Loader, force: bool = False
    ) -> None: ...
    @classmethod
    def register_scheme(
        cls,
        prefixes: str | list[str] | tuple[str, ...],
        loader: Loader | None = None,
        force: bool = False,
    ) -> Any:
        """Register a loader, by a call or as a decorator.

        Args:
            prefixes: The prefix, or several.
            loader: Called as ``loader(filename, map_location)``, and with ``trust=True`` if it takes that
                and the caller trusts the file; it returns the checkpoint. None: use as a decorator.
            force: Replace what is registered for a prefix.

        Raises:
            KeyError: A prefix is taken, and ``force`` is not set.
        """
        names = [prefixes] if isinstance(prefixes, str) else list(prefixes)

        def register(function: _L) -> _L:
            for name in names:
                if name in cls._schemes and not force:
                    raise KeyError(
                        f"{name!r} is already registered as a loader backend; force=True overrides it"
                    )
            for name in names:
                cls._schemes[name] = function
            return function

        if loader is None:
            return register
        register(loader)
        return None

    @classmethod
    def load_checkpoint(
        cls,
        filename: str | os.PathLike[str],
        map_location: Any = None,
        logger: logging.Logger | str | None = None,
        *,
        trust: bool = False,
    ) -> Any:
        """Load a checkpoint.

        Args:
            filename: A path, or a name with one of the prefixes.
            map_location: As for ``torch.load``.
            logger: Where to say what is loaded from where; see :func:`cv.utils.print_log`.
            trust: Read files that ask for any class or function, which can run any code.

        Returns:
            The checkpoint: usually a dict.

        Raises:
            UntrustedCheckpointError: The file asks for more than tensors and plain data.
            FileNotFoundError: There is no such file.
            ValueError: There is no loader for the prefix, or the name behind it is unknown.
        """
        filename = os.fspath(filename)
        loader = cls._get_checkpoint_loader(filename)
        print_log(f"load checkpoint from {_origin(loader)} path: {filename}", logger)
        if trust and "trust" in inspect.signature(loader).parameters:
            return loader(filename, map_location, trust=True)
        return loader(filename, map_location)

    @classmethod
    def _get_checkpoint_loader(cls, path: str) -> Loader:
        fitting = [prefix for prefix in cls._schemes if path.startswith(prefix)]
        prefix = max(fitting, key=len)
        if prefix == "" and "://" in path:
            return load_from_storage
        return cls._schemes[prefix]


def _origin(loader: Loader) -> str:
    """``local`` for ``load_from_local``."""
    return getattr(loader, "__name__", type(loader).__name__).removeprefix("load_from_")


@CheckpointLoader.register_scheme(prefixes="")
def load_from_local(filename: str, map_location: Any = None, *, trust: bool = False) -> Any:
    """Load a local file, or the folder of a sharded checkpoint; ``~`` is the home directory."""
    path = Path(filename).expanduser()
    if path.is_dir():
        from cv.cnn.checkpoint.sharded import read_sharded_checkpoint

        return read_sharded_checkpoint(path, trust=trust)
    return read_checkpoint(path, map_location, trust=trust)


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"))
def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | os.PathLike[str] | None = None,
    *,
    trust: bool = False,
) -> Any:
    """Load from a URL through the cache; ``#sha256=<hex>`` at its end is checked.

    Args:
        filename: The URL.
        map_location: As for ``torch.load``.
        model_dir: Cache directory. Default: ``hub/checkpoints`` in ``$TORCH_HOME``.
        trust: See :meth:`CheckpointLoader.load_checkpoint`.
    """
    return read_checkpoint(download(filename, model_dir), map_location, trust=trust)


@CheckpointLoader.register_scheme(prefixes=("torchvision://", "modelzoo://"))
def load_from_torchvision(filename: str, map_location: Any = None, *, trust: bool = False) -> Any:
    """Load published weights of torchvision by the name of the network: ``torchvision://resnet50``."""
    if filename.startswith("modelzoo://"):
        warnings.warn(
            'The URL scheme of "modelzoo://" is deprecated, please use "torchvision://" instead',
            CvDeprecationWarning,
            stacklevel=2,
        )
    name = filename.partition("://")[2]
    file = TORCHVISION_FILES.get(name.lower())
    if file is None:
        raise ValueError(f"{filename}: {name!r} is not one of {', '.join(TORCHVISION_FILES)}; use its URL")
    return read_checkpoint(
        download(TORCHVISION_BASE + file, sha256=hash_in_name(file)), map_location, trust=trust
    )


@CheckpointLoader.register_scheme(prefixes=("open-mmlab://", "openmmlab://"))
def load_from_openmmlab(filename: str, map_location: Any = None, *, trust: bool = False) -> Any:
    """Load weights that OpenMMLab published, from a mirror that the user names.

    Their host is gone. The environment variable ``CV_OPENMMLAB_MIRROR`` names a folder or URL with the same
    layout; a file ``open_mmlab.json`` in ``$MMCV_HOME`` maps further names to URLs, files, or paths below
    the mirror.
    """
    name = filename.partition("://")[2]
    if name in OPENMMLAB_RENAMED:
        warnings.warn(
            f"open-mmlab://{name} is deprecated in favor of open-mmlab://{OPENMMLAB_RENAMED[name]}",
            CvDeprecationWarning,
            stacklevel=2,
        )
        name = OPENMMLAB_RENAMED[name]
    table = {**OPENMMLAB_FILES, **_own_openmmlab_table()}
    if name not in table:
        raise ValueError(
            f"{filename}: {name!r} is not a known model; known are {', '.join(sorted(table))}. "
            "$MMCV_HOME/open_mmlab.json can add names."
        )
    return _load_from_mirror(filename, table[name], map_location, trust=trust)


@CheckpointLoader.register_scheme(prefixes="mmcls://")
def load_from_mmcls(filename: str, map_location: Any = None, *, trust: bool = False) -> Any:
    """Load the backbone of a classifier that mmclassification published; see :func:`load_from_openmmlab`.

    The checkpoint's ``state_dict`` has the entries below ``backbone.``, without that prefix.
    """
    name = filename.partition("://")[2]
    if name not in MMCLS_FILES:
        raise ValueError(
            f"{filename}: {name!r} is not a known model; known are {', '.join(MMCLS_FILES)}. "
            "Use the path or URL of the file."
        )
    checkpoint = _load_from_mirror(filename, MMCLS_FILES[name], map_location, trust=trust)
    return {"state_dict": select_prefix(state_dict_of(checkpoint, filename), "backbone.")}


@CheckpointLoader.register_scheme(prefixes="s3://")
def load_from_storage(filename: str, map_location: Any = None, *, trust: bool = False) -> Any:
    """Load from any storage that cv-fileio has a backend for, chosen by the scheme of the name."""
    from cv.fileio import FileClient

    try:
        client = FileClient.infer_client(uri=filename)
    except ValueError as error:
        scheme = filename.partition("://")[0]
        raise ValueError(
            f"{filename}: there is no loader for {scheme}://, nor a storage backend ({error}); "
            f'CheckpointLoader.register_scheme("{scheme}://", loader) adds one'
        ) from error
    content = client.get(filename)
    return read_checkpoint(bytes(content), map_location, name=filename, trust=trust)


def _load_from_mirror(filename: str, place: str, map_location: Any, *, trust: bool) -> Any:
    """Load from a URL, a file, or a path below the mirror."""
    if "://" not in place and not Path(place).is_absolute():
        mirror = os.environ.get(MIRROR_VARIABLE, "")
        if not mirror:
            raise FileNotFoundError(
                f"{filename}: download.openmmlab.com, which had {place}, is gone. Set the environment "
                f"variable {MIRROR_VARIABLE} to a URL or folder with the same layout, or load the file by "
                "its path."
            )
        place = f"{mirror.rstrip('/')}/{place}"
    if place.startswith(("http://", "https://")):
        return read_checkpoint(download(place, sha256=hash_in_name(place)), map_location, trust=trust)
    return CheckpointLoader.load_checkpoint(place, map_location, logger="silent", trust=trust)


def _own_openmmlab_table() -> dict[str, str]:
    home = os.environ.get("MMCV_HOME")
    path = Path(home) / "open_mmlab.json" if home else None
    if path is None or not path.is_file():
        return {}
    table = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold a JSON object from names to places, got {type(table)}")
    return {str(name): str(place) for name, place in table.items()}
