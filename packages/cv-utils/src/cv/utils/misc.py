"""The names that mmcv 1.x kept in ``utils.misc``; each is defined in a module of its own topic."""

from __future__ import annotations

from cv.utils.deprecation import deprecated_api_warning
from cv.utils.imports import has_method, import_modules_from_strings, is_method_overridden
from cv.utils.prerequisites import check_prerequisites, requires_executable, requires_package
from cv.utils.sequence import (
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

__all__ = [
    "check_prerequisites",
    "deprecated_api_warning",
    "has_method",
    "import_modules_from_strings",
    "is_method_overridden",
    "requires_executable",
    "requires_package",
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
]
