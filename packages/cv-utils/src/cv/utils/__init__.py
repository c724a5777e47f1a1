"""Registries, logging, progress and small helpers.

Names that come from torch (``_BatchNorm``, ``DataLoader``, ``TORCH_VERSION`` …) are looked up when first
used; importing this package needs neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv.utils import _torch
from cv.utils.errors import CvDeprecationWarning, UsageError
from cv.utils.logging import get_logger, print_log
from cv.utils.misc import (
    concat_list,
    is_list_of,
    is_seq_of,
    is_str,
    is_tuple_of,
    iter_cast,
    list_cast,
    slice_list,
    to_1tuple,
    to_2tuple,
    to_3tuple,
    to_4tuple,
    to_ntuple,
    tuple_cast,
)
from cv.utils.parrots_wrapper import _get_cuda_home, get_build_config, is_rocm_pytorch, load_url
from cv.utils.path import check_file_exist, fopen, is_filepath, mkdir_or_exist, scandir, symlink
from cv.utils.registry import Registry, build_from_cfg
from cv.utils.version_utils import digit_version, get_git_hash, parse_version_info

if TYPE_CHECKING:
    from cv.utils.parrots_wrapper import *  # noqa: F403  (the names of _torch.TABLE, for type checkers)

__all__ = [
    # registries
    "Registry",
    "build_from_cfg",
    # logging
    "get_logger",
    "print_log",
    # sequences
    "concat_list",
    "is_list_of",
    "is_seq_of",
    "is_str",
    "is_tuple_of",
    "iter_cast",
    "list_cast",
    "slice_list",
    "to_1tuple",
    "to_2tuple",
    "to_3tuple",
    "to_4tuple",
    "to_ntuple",
    "tuple_cast",
    # paths
    "check_file_exist",
    "fopen",
    "is_filepath",
    "mkdir_or_exist",
    "scandir",
    "symlink",
    # versions
    "digit_version",
    "get_git_hash",
    "parse_version_info",
    # about torch; the names of _torch.TABLE are left out, so that `import *` works without it
    "_get_cuda_home",
    "get_build_config",
    "is_rocm_pytorch",
    "load_url",
    # errors
    "CvDeprecationWarning",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    value = _torch.lookup(__name__, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_torch.TABLE})
