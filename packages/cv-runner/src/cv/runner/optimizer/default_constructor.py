"""Optimizers whose parameters may have settings of their own."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torch.nn import GroupNorm, LayerNorm
from torch.nn.modules.batchnorm import _NormBase

from cv.cnn import DeformableLayer
from cv.runner.optimizer.builder import OPTIMIZER_BUILDERS, OPTIMIZERS

_DECAY_RULES = ("bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult")


@OPTIMIZER_BUILDERS.register_module()
class DefaultOptimizerConstructor:
    """Default constructor for optimizers.

    By default all parameters share the optimizer's settings. ``paramwise_cfg`` may hold:

    - ``custom_keys`` (dict): settings by name. The longest key that is part of a parameter's name (the
      first in the alphabet among equally long ones) gives its ``lr_mult`` and ``decay_mult``; the rules
      below then leave the parameter alone.
    - ``bias_lr_mult`` (float): multiplies the learning rate of biases, except in normalisation layers and
      deformable convolutions' offset layers.
    - ``bias_decay_mult`` (float): multiplies the weight decay of biases, except in normalisation layers,
      depth-wise convolutions and deformable convolutions' offset layers.
    - ``norm_decay_mult`` (float): multiplies the weight decay of normalisation layers.
    - ``dwconv_decay_mult`` (float): multiplies the weight decay of depth-wise convolutions.
    - ``dcn_offset_lr_mult`` (float): multiplies the learning rate of the offset layers (``conv_offset``)
      of deformable convolutions, in place of ``bias_lr_mult``.
    - ``bypass_duplicate`` (bool): leave a parameter out that is there already, with a warning.

    Args:
        optimizer_cfg: ``type`` is the optimizer's name, the rest its arguments.
        paramwise_cfg: see above.

    Raises:
        TypeError: an argument is not a dict.
        ValueError: a decay multiplier without a ``weight_decay``; when called, a parameter that occurs
            twice without ``bypass_duplicate``.

    Example:
        >>> optimizer_cfg = dict(type='SGD', lr=0.01, weight_decay=0.95)
        >>> paramwise_cfg = dict(custom_keys={'.backbone': dict(lr_mult=0.1, decay_mult=0.9)})
        >>> optimizer = DefaultOptimizerConstructor(optimizer_cfg, paramwise_cfg)(model)
    """

    def __init__(self, optimizer_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        if not isinstance(optimizer_cfg, dict):
            raise TypeError(f"optimizer_cfg should be a dict, but got {type(optimizer_cfg)}")
        self.optimizer_cfg = optimizer_cfg
        self.paramwise_cfg = {} if paramwise_cfg is None else paramwise_cfg
        self.base_lr = optimizer_cfg.get("lr")
        self.base_wd = optimizer_cfg.get("weight_decay")
        self._validate_cfg()

    def _validate_cfg(self) -> None:
        if not isinstance(self.paramwise_cfg, dict):
            raise TypeError(f"paramwise_cfg should be None or a dict, but got {type(self.paramwise_cfg)}")
        custom_keys = self.paramwise_cfg.get("custom_keys", {})
        if not isinstance(custom_keys, dict):
            raise TypeError(f"custom_keys should be a dict of dicts, but got {type(custom_keys)}")
        if self.base_wd is not None:
            return
        asking = [f"custom_keys[{key!r}]" for key, cfg in custom_keys.items() if "decay_mult" in cfg]
        asking += [rule for rule in _DECAY_RULES if rule in self.paramwise_cfg]
        if asking:
            raise ValueError(f"optimizer_cfg must have a weight_decay for {', '.join(asking)} to multiply")

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add all parameters of a module to the list of parameter groups, one group each.

        Args:
            params: the groups so far; added to in place.
            module: the module whose parameters are added.
            prefix: the module's name.
            is_dcn_module: whether it is part of a deformable convolution.
        """
        for name, param in module.named_parameters(recurse=False):
            group: dict[str, Any] = {"params": [param]}
            if not param.requires_grad:
                params.append(group)
                continue
            if self.paramwise_cfg.get("bypass_duplicate", False) and self._is_in(group, params):
                warnings.warn(
                    f"{prefix} is duplicate. It is skipped since "
                    f"bypass_duplicate={self.paramwise_cfg['bypass_duplicate']}",
                    stacklevel=2,
                )
                continue
            custom = self._custom_settings(f"{prefix}.{name}")
            if custom is None:
                custom = self._settings_by_kind(module, prefix, name, bool(is_dcn_module))
            params.append({**group, **custom})
        for child_name, child in module.named_children():
            self.add_params(
                params,
                child,
                prefix=f"{prefix}.{child_name}" if prefix else child_name,
                is_dcn_module=isinstance(module, DeformableLayer),
            )

    def _is_in(self, param_group: dict[str, Any], param_group_list: list[dict[str, Any]]) -> bool:
        """Whether a parameter of the group is in one of the groups already."""
        known = {id(param) for group in param_group_list for param in group["params"]}
        return any(id(param) in known for param in param_group["params"])

    def _custom_settings(self, full_name: str) -> dict[str, Any] | None:
        """The settings that ``custom_keys`` has for a parameter; None if it has none."""
        custom_keys = self.paramwise_cfg.get("custom_keys", {})
        for key in sorted(sorted(custom_keys), key=len, reverse=True):
            if key in full_name:
                return self._scaled(
                    custom_keys[key].get("lr_mult", 1.0), custom_keys[key].get("decay_mult", 1.0)
                )
        return None

    def _settings_by_kind(self, module: nn.Module, prefix: str, name: str, in_dcn: bool) -> dict[str, Any]:
        """The settings that a parameter gets for being a bias, or for the kind of its layer."""
        cfg = self.paramwise_cfg
        is_norm = isinstance(module, (_NormBase, GroupNorm, LayerNorm))
        is_dwconv = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
        lr_mult = decay_mult = None
        if name == "bias" and not (is_norm or in_dcn):
            lr_mult = cfg.get("bias_lr_mult")
        if in_dcn and "conv_offset" in prefix and isinstance(module, nn.Conv2d):
            lr_mult = cfg.get("dcn_offset_lr_mult")
        if is_norm:
            decay_mult = cfg.get("norm_decay_mult")
        elif is_dwconv:
            decay_mult = cfg.get("dwconv_decay_mult")
        elif name == "bias" and not in_dcn:
            decay_mult = cfg.get("bias_decay_mult")
        return self._scaled(lr_mult, decay_mult)

    def _scaled(self, lr_mult: float | None, decay_mult: float | None) -> dict[str, Any]:
        settings = {}
        if lr_mult is not None and self.base_lr is not None:
            settings["lr"] = self.base_lr * lr_mult
        if decay_mult is not None and self.base_wd is not None:
            settings["weight_decay"] = self.base_wd * decay_mult
        return settings

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimizer for a model (that a wrapper may be around)."""
        module = model.module if hasattr(model, "module") else model
        assert isinstance(module, nn.Module)
        if not self.paramwise_cfg:
            return OPTIMIZERS.build({**self.optimizer_cfg, "params": module.parameters()})
        params: list[dict[str, Any]] = []
        self.add_params(params, module)
        return OPTIMIZERS.build({**self.optimizer_cfg, "params": params})
