"""Initialisation from a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import nn

from cv.cnn.init.record import default_logger, update_init_info

__all__ = ["PretrainedInit", "is_pretrained_cfg", "load_pretrained"]


class PretrainedInit:
    """Initialise a module by loading a checkpoint.

    Args:
        checkpoint: File or URI, as for :func:`cv.runner.load_checkpoint`.
        prefix: Load only the part of the checkpoint below this prefix, with the prefix removed:
            ``prefix="backbone."`` takes the backbone out of a detector. Default: all of it.
        map_location: As for ``torch.load``.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, map_location: Any = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into the module; what does not match is reported to the log."""
        from cv.cnn.checkpoint import _load_checkpoint_with_prefix, load_checkpoint, load_state_dict

        logger = default_logger()
        if self.prefix is None:
            logger.info(f"load model from: {self.checkpoint}")
            load_checkpoint(
                module, self.checkpoint, map_location=self.map_location, strict=False, logger=logger
            )
        else:
            logger.info(f"load {self.prefix} in model from: {self.checkpoint}")
            state_dict = _load_checkpoint_with_prefix(
                self.prefix, self.checkpoint, map_location=self.map_location
            )
            load_state_dict(module, state_dict, strict=False, logger=logger)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        return f"{type(self).__name__}: load from {self.checkpoint}"


def load_pretrained(module: nn.Module, pretrained: object) -> bool:
    """What ``init_weights(pretrained)`` of the classification networks begins with.

    Args:
        module: The network.
        pretrained: File or URI of a checkpoint, or None.

    Returns:
        Whether a checkpoint was loaded; otherwise the network initialises itself.

    Raises:
        TypeError: ``pretrained`` is neither a str nor None.
    """
    if pretrained is None:
        return False
    if not isinstance(pretrained, str):
        raise TypeError(f"pretrained must be a str or None, got {type(pretrained)}")
    from cv.cnn.checkpoint import load_checkpoint

    load_checkpoint(module, pretrained, strict=False, logger=default_logger())
    return True


def is_pretrained_cfg(cfg: Any) -> bool:
    """Whether an initialisation config loads a checkpoint (``checkpoint`` without a ``type`` does)."""
    if not isinstance(cfg, dict):
        return False
    kind = cfg.get("type", "Pretrained" if "checkpoint" in cfg else None)
    if isinstance(kind, type):
        return issubclass(kind, PretrainedInit)
    return kind in ("Pretrained", "PretrainedInit")
