"""The record of who initialised which parameter: kept while ``init_weights`` runs, then logged.

A parameter counts as set when its version counter has moved (any in-place change that autograd sees) or its
mean differs (writes through ``.data``, which the counter does not see).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from cv.utils.errors import UsageError
from cv.utils.logging import logger_initialized

__all__ = ["InitRecord", "default_logger", "log_init_record", "start_record", "update_init_info"]

# By parameter: "init_info", the text for the log; "tmp_mean_value" and "version", to notice a change.
InitRecord = dict[nn.Parameter, dict[str, Any]]


def start_record(module: nn.Module) -> None:
    """Give a module and everything below it one common record, in which nothing has been set yet."""
    record: InitRecord = defaultdict(dict)
    untouched = f"The value is the same before and after calling `init_weights` of {type(module).__name__} "
    for parameter in module.parameters():
        record[parameter] = {"init_info": untouched, **_fingerprint(parameter)}
    for child in module.modules():
        child.__dict__["_params_init_info"] = record


def update_init_info(module: nn.Module, init_info: str) -> None:
    """Note in the record that the parameters of a module which have changed were set by ``init_info``.

    Args:
        module: A module with ``_params_init_info``.
        init_info: What to log for the changed parameters.

    Raises:
        UsageError: A parameter is not in the record: it was replaced while ``init_weights`` ran, so an
            optimizer or a wrapper that holds the old one would not see it.
    """
    record: InitRecord = module._params_init_info  # type: ignore[assignment]
    for name, parameter in module.named_parameters():
        if parameter not in record:
            raise UsageError(
                f"{name} of {type(module).__name__} is a new Parameter, made while `init_weights` ran; "
                f"change parameters in place there"
            )
        now, entry = _fingerprint(parameter), record[parameter]
        if now["version"] != entry.get("version", now["version"]) or not _same(
            now["tmp_mean_value"], entry["tmp_mean_value"]
        ):
            entry.update(now, init_info=init_info)


def log_init_record(module: nn.Module) -> None:
    """Write the record of a module to the log, a parameter's name above what set it.

    It goes to the log files of :func:`default_logger`; where that has no file, to the logger itself, in one
    record.
    """
    record: InitRecord = module._params_init_info  # type: ignore[assignment]
    lines = ["Name of parameter - Initialization information"]
    for name, parameter in module.named_parameters():
        lines.append(f"\n{name} - {parameter.shape}: \n{record[parameter]['init_info']} ")
    text = "\n".join(lines)

    logger = default_logger()
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if not files:
        logger.info(text)
    elif logger.isEnabledFor(logging.INFO):
        entry = logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None)
        for handler in files:
            handler.handle(entry)


def default_logger() -> logging.Logger:
    """The first logger that :func:`cv.utils.get_logger` has set up, which is the one of the training run.

    Where there is none it is the logger ``"cv"`` without a handler: Python shows its warnings only.
    """
    return logging.getLogger(next(iter(logger_initialized), "cv"))


def _fingerprint(parameter: nn.Parameter) -> dict[str, Any]:
    data: Tensor = parameter.data
    if not (data.is_floating_point() or data.is_complex()):
        data = data.float()
    return {"tmp_mean_value": data.mean() if data.numel() else None, "version": parameter._version}


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.is_meta or b.is_meta:
        return True  # nothing to compare: the version counter decides
    return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True))
