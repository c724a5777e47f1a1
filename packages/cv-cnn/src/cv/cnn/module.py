"""Modules that know how their parameters are initialised: ``init_cfg`` and ``init_weights``.

Building a module does not apply ``init_cfg``; ``init_weights`` does, once, from the top of the tree down, so
that an outer module sees its parts initialised by their own configs last, and a pretrained checkpoint is
never overwritten.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from cv.cnn.init.initializers import initialize
from cv.cnn.init.pretrained import is_pretrained_cfg
from cv.cnn.init.record import InitRecord, log_init_record, start_record, update_init_info

__all__ = ["BaseModule", "ModuleDict", "ModuleList", "Sequential"]

InitCfg = dict[str, Any] | list[dict[str, Any]] | None


class BaseModule(nn.Module):
    """An ``nn.Module`` with an initialisation config.

    Attributes:
        init_cfg: A copy of the config given; see :func:`cv.cnn.initialize` for its form.
        is_init: Whether ``init_weights`` has run.
        _params_init_info: Who set each parameter, and how; exists only while ``init_weights`` runs.

    Args:
        init_cfg: Config, or list of configs, applied by :meth:`init_weights`. Default: nothing is applied.
    """

    _params_init_info: InitRecord

    def __init__(self, init_cfg: InitCfg = None) -> None:
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self._is_init = False

    @property
    def is_init(self) -> bool:
        """Whether the parameters have been initialised by :meth:`init_weights`."""
        return self._is_init

    def init_weights(self) -> None:
        """Initialise the parameters, then write to the log who initialised which.

        The configs of ``init_cfg`` apply in their order, then ``init_weights`` of every child that has one.
        Where a list holds a Pretrained config, it and what follows it apply after the children, so that a
        child cannot overwrite what was loaded; where Pretrained is the only config the children are left
        alone (they come from the checkpoint). A second call changes nothing and warns.
        """
        if self._is_init:
            warnings.warn(
                f"init_weights of {type(self).__name__} has been called more than once.", stacklevel=2
            )
            return
        is_top_level = not hasattr(self, "_params_init_info")
        if is_top_level:
            start_record(self)
        try:
            self._apply_init_cfg()
            if is_top_level:
                log_init_record(self)
        finally:
            if is_top_level:
                for module in self.modules():
                    module.__dict__.pop("_params_init_info", None)

    def _apply_init_cfg(self) -> None:
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg] if self.init_cfg else []
        pretrained = next((i for i, cfg in enumerate(cfgs) if is_pretrained_cfg(cfg)), len(cfgs))
        before, from_checkpoint = cfgs[:pretrained], cfgs[pretrained:]

        if before:
            initialize(self, before)
        if not (from_checkpoint and len(cfgs) == 1):
            self._init_children()
        if from_checkpoint:
            initialize(self, from_checkpoint)
        self._is_init = True

    def _init_children(self) -> None:
        for child in self.children():
            if hasattr(child, "init_weights") and not getattr(child, "is_init", False):
                child.init_weights()  # type: ignore[operator]
                # Covers an `init_weights` written by hand, which records nothing itself.
                update_init_info(
                    child,
                    init_info=f"Initialized by user-defined `init_weights` in {type(child).__name__} ",
                )

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text}\ninit_cfg={self.init_cfg}" if self.init_cfg else text


class Sequential(BaseModule, nn.Sequential):
    """``nn.Sequential`` with an initialisation config.

    Args:
        *args: Modules, or one ``OrderedDict`` of named modules.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(self, *args: Any, init_cfg: InitCfg = None) -> None:
        BaseModule.__init__(self, init_cfg)
        named = args[0].items() if len(args) == 1 and isinstance(args[0], dict) else enumerate(args)
        for name, module in named:
            self.add_module(str(name), module)


class ModuleList(BaseModule, nn.ModuleList):
    """``nn.ModuleList`` with an initialisation config.

    Args:
        modules: Modules to hold.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(self, modules: Iterable[nn.Module] | None = None, init_cfg: InitCfg = None) -> None:
        BaseModule.__init__(self, init_cfg)
        if modules is not None:
            self.extend(modules)


class ModuleDict(BaseModule, nn.ModuleDict):
    """``nn.ModuleDict`` with an initialisation config.

    Args:
        modules: Mapping from names to modules, or ``(name, module)`` pairs.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]] | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        BaseModule.__init__(self, init_cfg)
        if modules is not None:
            self.update(dict(modules))
