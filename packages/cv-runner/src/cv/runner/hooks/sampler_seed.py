"""Tell samplers the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cv.runner.hooks.hook import HOOKS, Hook

if TYPE_CHECKING:
    from cv.runner.base_runner import BaseRunner


@HOOKS.register_module()
class DistSamplerSeedHook(Hook):
    """Tells the sampler the number of the epoch, so that every epoch is shuffled in its own way.

    For distributed training with :class:`EpochBasedRunner`; the iteration-based runner's ``IterLoader``
    does it itself.
    """

    def before_epoch(self, runner: BaseRunner) -> None:
        """Call ``set_epoch`` of the sampler, or of the batch sampler's sampler."""
        loader = runner.data_loader
        for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            if sampler is not None and hasattr(sampler, "set_epoch"):
                sampler.set_epoch(runner.epoch)
                return
