"""Build runners from config dicts."""

from __future__ import annotations

import copy
from typing import Any

from cv.utils import Registry

RUNNERS = Registry("runner", entry_point_group="cv.runner.runners")
RUNNER_BUILDERS = Registry("runner builder")


def build_runner_constructor(cfg: dict[str, Any]) -> Any:
    """The constructor that ``cfg['type']`` names in ``RUNNER_BUILDERS``."""
    return RUNNER_BUILDERS.build(cfg)


def build_runner(cfg: dict[str, Any], default_args: dict[str, Any] | None = None) -> Any:
    """Build a runner.

    Args:
        cfg: ``type`` is the runner's name; the rest are its arguments. ``constructor`` may name who puts
            it together, by default :class:`DefaultRunnerConstructor`. It is not changed.
        default_args: further arguments: model, optimizer, logger …

    Returns:
        The runner.
    """
    runner_cfg = copy.deepcopy(cfg)
    constructor = build_runner_constructor(
        {
            "type": runner_cfg.pop("constructor", "DefaultRunnerConstructor"),
            "runner_cfg": runner_cfg,
            "default_args": default_args,
        }
    )
    return constructor()
