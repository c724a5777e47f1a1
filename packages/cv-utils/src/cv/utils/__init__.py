"""Configs, registries, logging, progress and small helpers.

Importing this package is quick and needs neither torch nor numpy: names that come from torch
(``_BatchNorm``, ``DataLoader``, ``TORCH_VERSION`` …), and configs, are looked up when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cv.utils import _torch
from cv.utils.env import collect_env
from cv.utils.errors import CvDeprecationWarning, UsageError, WorkerError
from cv.utils.logging import get_logger, print_log
from cv.utils.misc import (
    check_prerequisites,
    concat_list,
    deprecated_api_warning,
    has_method,
    import_modules_from_strings,
    is_list_of,
    is_method_overridden,
    is_seq_of,
    is_str,
    is_tuple_of,
    iter_cast,
    list_cast,
    requires_executable,
    requires_package,
    slice_list,
    to_1tuple,
    to_2tuple,
    to_3tuple,
    to_4tuple,
    to_ntuple,
    tuple_cast,
)
from cv.utils.parrots_jit import jit, skip_no_elena
from cv.utils.parrots_wrapper import _get_cuda_home, get_build_config, is_rocm_pytorch, load_url
from cv.utils.path import check_file_exist, fopen, is_filepath, mkdir_or_exist, scandir, symlink
from cv.utils.prerequisites import MissingPrerequisiteError
from cv.utils.progressbar import ProgressBar, track_iter_progress, track_parallel_progress, track_progress
from cv.utils.registry import Registry, build_from_cfg
from cv.utils.testing import (
    assert_attrs_equal,
    assert_dict_contains_subset,
    assert_dict_has_keys,
    assert_is_norm_layer,
    assert_keys_equal,
    assert_params_all_zeros,
    check_python_script,
)
from cv.utils.timer import Timer, TimerError, check_time
from cv.utils.trace import is_jit_tracing
from cv.utils.version_utils import digit_version, get_git_hash, parse_version_info

if TYPE_CHECKING:
    from cv.utils.config import Config, ConfigDict, ConfigError, DictAction, UntrustedCodeError
    from cv.utils.parrots_wrapper import *  # noqa: F403  (the names of _torch.TABLE, for type checkers)

__all__ = [
    # registries
    "Registry",
    "build_from_cfg",
    # configs
    "Config",
    "ConfigDict",
    "DictAction",
    # logging
    "get_logger",
    "print_log",
    # progress and time
    "ProgressBar",
    "track_iter_progress",
    "track_parallel_progress",
    "track_progress",
    "Timer",
    "TimerError",
    "check_time",
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
    # checks, imports, deprecation
    "check_prerequisites",
    "requires_executable",
    "requires_package",
    "deprecated_api_warning",
    "has_method",
    "import_modules_from_strings",
    "is_method_overridden",
    # versions and environment
    "collect_env",
    "digit_version",
    "get_git_hash",
    "parse_version_info",
    # about torch; the names of _torch.TABLE are left out, so that `import *` works without it
    "_get_cuda_home",
    "get_build_config",
    "is_rocm_pytorch",
    "load_url",
    "is_jit_tracing",
    "jit",
    "skip_no_elena",
    # for tests
    "assert_attrs_equal",
    "assert_dict_contains_subset",
    "assert_dict_has_keys",
    "assert_is_norm_layer",
    "assert_keys_equal",
    "assert_params_all_zeros",
    "check_python_script",
    # errors
    "ConfigError",
    "CvDeprecationWarning",
    "MissingPrerequisiteError",
    "UntrustedCodeError",
    "UsageError",
    "WorkerError",
]


_FROM_CONFIG = ("Config", "ConfigDict", "ConfigError", "DictAction", "UntrustedCodeError")


def __getattr__(name: str) -> Any:
    if name == "config" or name in _FROM_CONFIG:
        config = importlib.import_module("cv.utils.config")
        globals().update({item: getattr(config, item) for item in _FROM_CONFIG})
    else:
        globals()[name] = _torch.lookup(__name__, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_torch.TABLE})
