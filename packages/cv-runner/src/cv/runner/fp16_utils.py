"""Mixed precision on ``torch.amp``: decorators for modules, and loss scaling.

``auto_fp16`` and ``force_fp32`` do nothing until the module's ``fp16_enabled`` is set, which
:func:`wrap_fp16_model` does for a whole model. The low precision is float16 unless the module's
``fp16_dtype`` says bfloat16.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import nn

_F = TypeVar("_F", bound=Callable[..., Any])

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def cast_tensor_type(inputs: Any, src_type: Any, dst_type: Any) -> Any:
    """Cast tensors of one dtype to another, at every depth of lists, tuples and mappings.

    Args:
        inputs: the value. Modules, texts, arrays and all else that holds no tensor come back as they are.
        src_type: the dtype to cast, or several.
        dst_type: the dtype to cast to.
    """
    sources = src_type if isinstance(src_type, tuple) else (src_type,)
    if isinstance(inputs, torch.Tensor):
        return inputs.to(dst_type) if inputs.dtype in sources else inputs
    if isinstance(inputs, (nn.Module, str, np.ndarray)):
        return inputs
    if isinstance(inputs, Mapping):
        return type(inputs)({k: cast_tensor_type(v, src_type, dst_type) for k, v in inputs.items()})  # type: ignore[call-arg]
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(cast_tensor_type(item, src_type, dst_type) for item in inputs))
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(cast_tensor_type(item, src_type, dst_type) for item in inputs)
    return inputs


def auto_fp16(apply_to: Iterable[str] | None = None, out_fp32: bool = False) -> Callable[[_F], _F]:
    """Decorator: run a module's method in low precision.

    Float32 tensors among the arguments are cast to low precision, and the method runs under
    ``torch.autocast``. Does nothing unless the module's ``fp16_enabled`` is set.

    Args:
        apply_to: names of the arguments to cast; all by default.
        out_fp32: cast the method's output to float32.

    Raises:
        TypeError: when called on something that is not an ``nn.Module``.

    Example:
        >>> class MyModule(nn.Module):
        ...     @auto_fp16(apply_to=('x',))
        ...     def forward(self, x, y): ...
    """

    def decorate(method: _F) -> _F:
        names = _argument_names(method)

        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            _check_module("auto_fp16", self)
            if not getattr(self, "fp16_enabled", False):
                return method(self, *args, **kwargs)
            dtype = getattr(self, "fp16_dtype", torch.float16)
            args, kwargs = _cast_arguments(names, apply_to, args, kwargs, torch.float32, dtype)
            with torch.autocast(_device_type(self, args, kwargs), dtype=dtype):
                output = method(self, *args, **kwargs)
            return cast_tensor_type(output, dtype, torch.float32) if out_fp32 else output

        return cast(_F, wrapper)

    return decorate


def force_fp32(apply_to: Iterable[str] | None = None, out_fp16: bool = False) -> Callable[[_F], _F]:
    """Decorator: run a module's method in float32, inside one that runs in low precision.

    Low-precision tensors among the arguments are cast to float32, and autocast is off within the method.
    Does nothing unless the module's ``fp16_enabled`` is set.

    Args:
        apply_to: names of the arguments to cast; all by default.
        out_fp16: cast the method's output to low precision.

    Raises:
        TypeError: when called on something that is not an ``nn.Module``.

    Example:
        >>> class MyHead(nn.Module):
        ...     @force_fp32(apply_to=('pred',))
        ...     def loss(self, pred, target): ...
    """

    def decorate(method: _F) -> _F:
        names = _argument_names(method)

        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            _check_module("force_fp32", self)
            if not getattr(self, "fp16_enabled", False):
                return method(self, *args, **kwargs)
            low = (torch.float16, torch.bfloat16)
            args, kwargs = _cast_arguments(names, apply_to, args, kwargs, low, torch.float32)
            with torch.autocast(_device_type(self, args, kwargs), enabled=False):
                output = method(self, *args, **kwargs)
            dtype = getattr(self, "fp16_dtype", torch.float16)
            return cast_tensor_type(output, torch.float32, dtype) if out_fp16 else output

        return cast(_F, wrapper)

    return decorate


def wrap_fp16_model(
    model: nn.Module, *, dtype: Literal["float16", "bfloat16"] | torch.dtype = "float16"
) -> None:
    """Switch a model to mixed precision: set ``fp16_enabled`` of every module that has it.

    The weights stay float32; ``torch.autocast`` chooses the precision of each operation.

    Args:
        model: the model.
        dtype: the low precision.

    Raises:
        ValueError: another dtype.
    """
    low = resolve_dtype(dtype)
    for module in model.modules():
        if hasattr(module, "fp16_enabled"):
            vars(module).update(fp16_enabled=True, fp16_dtype=low)


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of ``'float16'`` or ``'bfloat16'``.

    Raises:
        ValueError: another dtype.
    """
    low = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if low is None or low not in DTYPES.values():
        raise ValueError(f"dtype must be 'float16' or 'bfloat16', got {dtype!r}")
    return low


class LossScaler:
    """A scale for the loss, so that small gradients survive in float16.

    In dynamic mode it begins high, halves (``scale_factor``) whenever gradients overflow and doubles after
    ``scale_window`` iterations without: close to the largest scale that works (Micikevicius et al. 2018,
    Mixed Precision Training, section 3.2). ``Fp16OptimizerHook`` uses torch's GradScaler; this class is
    for loops of your own.

    Args:
        init_scale: the scale at the beginning.
        mode: ``'dynamic'`` or ``'static'``.
        scale_factor: by how much the scale changes.
        scale_window: iterations without overflow after which it grows.

    Raises:
        AssertionError: another mode.
    """

    def __init__(
        self,
        init_scale: float = 2**32,
        mode: Literal["dynamic", "static"] | str = "dynamic",
        scale_factor: float = 2.0,
        scale_window: int = 1000,
    ) -> None:
        if mode not in ("dynamic", "static"):
            raise AssertionError(f"mode can only be 'dynamic' or 'static', got {mode!r}")
        self.cur_scale = init_scale
        self.cur_iter = 0
        self.mode = mode
        self.last_overflow_iter = -1
        self.scale_factor = scale_factor
        self.scale_window = scale_window

    @property
    def loss_scale(self) -> float:
        """The current scale."""
        return self.cur_scale

    def has_overflow(self, params: Iterable[torch.Tensor]) -> bool:
        """Whether a gradient holds inf or nan; never in static mode."""
        if self.mode != "dynamic":
            return False
        return any(p.grad is not None and not bool(torch.isfinite(p.grad).all()) for p in params)

    def update_scale(self, overflow: bool) -> None:
        """Count an iteration; shrink the scale on overflow, grow it when it is time."""
        if self.mode != "dynamic":
            return
        if overflow:
            self.cur_scale = max(self.cur_scale / self.scale_factor, 1)
            self.last_overflow_iter = self.cur_iter
        elif (self.cur_iter - self.last_overflow_iter) % self.scale_window == 0:
            self.cur_scale *= self.scale_factor
        self.cur_iter += 1

    def state_dict(self) -> dict[str, Any]:
        """All of its state."""
        return {
            "cur_scale": self.cur_scale,
            "cur_iter": self.cur_iter,
            "mode": self.mode,
            "last_overflow_iter": self.last_overflow_iter,
            "scale_factor": self.scale_factor,
            "scale_window": self.scale_window,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        for name in self.state_dict():
            setattr(self, name, state_dict[name])


# ---------------------------------------------------------------------------------------- helpers


def _argument_names(method: Callable[..., Any]) -> list[str]:
    """The names of a method's arguments that can be given by position, without ``self``."""
    return inspect.getfullargspec(method).args[1:]


def _cast_arguments(
    names: list[str],
    apply_to: Iterable[str] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    source: Any,
    target: torch.dtype,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cast the chosen arguments, however they were given."""
    chosen = None if apply_to is None else set(apply_to)

    def cast_if_chosen(name: str | None, value: Any) -> Any:
        if chosen is None or name in chosen:
            return cast_tensor_type(value, source, target)
        return value

    positional = [*names, *[None] * (len(args) - len(names))]
    new_args = tuple(cast_if_chosen(name, arg) for name, arg in zip(positional, args, strict=False))
    return new_args, {name: cast_if_chosen(name, value) for name, value in kwargs.items()}


def _check_module(decorator: str, owner: object) -> None:
    if not isinstance(owner, nn.Module):
        raise TypeError(
            f"@{decorator} can only be used to decorate the method of nn.Module, got {type(owner)}"
        )


def _device_type(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Where the method computes: where its first tensor is, or else the module's first parameter."""
    for tensor in _tensors((args, kwargs)):
        return tensor.device.type
    first = next(module.parameters(), None)
    return "cpu" if first is None else first.device.type


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
