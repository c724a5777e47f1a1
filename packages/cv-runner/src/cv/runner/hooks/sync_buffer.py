"""Keep buffers equal on all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cv.runner.dist_utils import allreduce_params
from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Averages the model's buffers, such as batch norm's statistics, over ranks after every epoch.

    Args:
        distributed: whether training is distributed; does nothing otherwise.
    """

    def __init__(self, distributed: bool = True) -> None:
        self.distributed = distributed

    def after_epoch(self, runner: BaseRunner) -> None:
        """Average the buffers."""
        if self.distributed:
            allreduce_params(runner.model.buffers())
