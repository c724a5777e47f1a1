"""Return cached GPU memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cv.runner.hooks.hook import HOOKS, Hook, acts_if

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class EmptyCacheHook(Hook):
    """Gives cached GPU memory back to the device. Does nothing without CUDA.

    Args:
        before_epoch: before every epoch.
        after_epoch: after every epoch.
        after_iter: after every iteration.
    """

    def __init__(
        self, before_epoch: bool = False, after_epoch: bool = True, after_iter: bool = False
    ) -> None:
        self._before_epoch = before_epoch
        self._after_epoch = after_epoch
        self._after_iter = after_iter

    def before_epoch(self, runner: BaseRunner) -> None:
        """Empty the cache, if asked to here."""
        if self._before_epoch:
            torch.cuda.empty_cache()

    def after_epoch(self, runner: BaseRunner) -> None:
        """Empty the cache, if asked to here."""
        if self._after_epoch:
            torch.cuda.empty_cache()

    @acts_if(lambda hook: hook._after_iter)
    def after_iter(self, runner: BaseRunner) -> None:
        """Empty the cache, if asked to here."""
        if self._after_iter:
            torch.cuda.empty_cache()
