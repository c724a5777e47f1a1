"""Count the operations and parameters of a model by running it once.

One multiply-add counts as one FLOP, as papers on vision count. What each layer counts:

==================  ======================================================================
convolution         output positions × kernel × input channels × (output channels / groups),
                    and one per output element for a bias
transposed conv.    the same with input positions, and one per output element for a bias
linear              input elements × output features
norm                input elements, twice with an affine map
pooling             input elements
ReLU and relatives  output elements
upsampling          output elements
==================  ======================================================================

Products of matrices and convolutions that other code does directly, such as attention, are counted by
:mod:`torch.utils.flop_counter` (halved, since it counts a multiply-add as two) for the module that does them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd
from torch.utils._python_dispatch import TorchDispatchMode

from cv.cnn.bricks.drop import DropPath
from cv.utils.errors import UsageError

__all__ = ["flops_to_string", "get_model_complexity_info", "params_to_string"]


def get_model_complexity_info(
    model: nn.Module,
    input_shape: tuple[int, ...],
    print_per_layer_stat: bool = True,
    as_strings: bool = True,
    input_constructor: Callable[[tuple[int, ...]], Any] | None = None,
    flush: bool = False,
    ost: TextIO = sys.stdout,
) -> tuple[float | str, float | str]:
    """Count the operations and parameters of a model.

    The model runs once in evaluation mode, without gradients; afterwards it is as before. Layers that ran
    but are not known are listed: behind the layers if these are printed, in a warning otherwise.

    Args:
        model: The model.
        input_shape: Shape of one input without the batch: ``(3, 224, 224)``.
        print_per_layer_stat: Whether to print the figures of each layer.
        as_strings: Whether to return strings rather than numbers.
        input_constructor: Called with ``input_shape``; returns the keyword arguments of the model in a dict.
            None: one random tensor of shape ``(1, *input_shape)``.
        flush: As for ``print``.
        ost: Where to print.

    Returns:
        Multiply-adds and trainable parameters, as ``('4.12 GFLOPs', '25.56 M')`` or as numbers.

    Raises:
        UsageError: ``input_shape`` is not a tuple with at least one entry.
    """
    shape: Any = input_shape
    if not isinstance(shape, tuple) or not shape:
        raise UsageError(f"input_shape must be a tuple with at least one entry, got {input_shape!r}")

    inputs = _make_input(model, input_shape) if input_constructor is None else input_constructor(input_shape)
    count = _Count(model)
    with count.listening(), _as_in_inference(model):
        if isinstance(inputs, dict):
            model(**inputs)
        else:
            model(inputs)

    flops, params = sum(count.flops.values()), _trainable(model)
    unknown = ", ".join(f"{name} ×{times}" for name, times in sorted(count.unknown().items()))
    if print_per_layer_stat:
        print(_describe(model, count.flops, flops, params), file=ost, flush=flush)
        if unknown:
            print(f"Not counted, for want of a rule: {unknown}", file=ost, flush=flush)
    elif unknown:
        import warnings

        warnings.warn(f"FLOPs of these layers are not counted, for want of a rule: {unknown}", stacklevel=2)
    if as_strings:
        return flops_to_string(flops), params_to_string(params)
    return float(flops), float(params)


def flops_to_string(flops: float, units: str | None = "GFLOPs", precision: int = 2) -> str:
    """Write a number of operations with a unit.

    Args:
        flops: The number.
        units: ``"GFLOPs"``, ``"MFLOPs"``, ``"KFLOPs"`` or anything else for the plain number. None: the
            greatest that fits.
        precision: Digits behind the point.

    Example:
        >>> flops_to_string(165_890_000)
        '0.17 GFLOPs'
        >>> flops_to_string(987, None)
        '987 FLOPs'
    """
    scales = {"GFLOPs": 1e9, "MFLOPs": 1e6, "KFLOPs": 1e3}
    if units is None:
        units = next((unit for unit, scale in scales.items() if flops // scale > 0), None)
        if units is None:
            return f"{flops} FLOPs"
    if units not in scales:
        return f"{flops} FLOPs"
    return f"{round(flops / scales[units], precision)} {units}"


def params_to_string(num_params: float, units: str | None = None, precision: int = 2) -> str:
    """Write a number of parameters with a unit.

    Args:
        num_params: The number.
        units: ``"M"``, ``"K"`` or anything else for the plain number. None: the greatest that fits.
        precision: Digits behind the point.

    Example:
        >>> params_to_string(25_557_032)
        '25.56 M'
        >>> params_to_string(789)
        '789'
    """
    if units is None:
        if num_params // 10**6 > 0:
            return f"{round(num_params / 10**6, precision)} M"
        return f"{round(num_params / 10**3, precision)} k" if num_params // 10**3 else str(num_params)
    if units == "M":
        return f"{round(num_params / 10**6, precision)} {units}"
    if units == "K":
        return f"{round(num_params / 10**3, precision)} {units}"
    return str(num_params)


class _Count:
    """Operations by module, collected while the model runs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.flops: Counter[nn.Module] = Counter()
        self.ran: set[nn.Module] = set()
        self._running: list[nn.Module] = []
        self._inside_known = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count what runs inside the ``with`` block."""
        handles = []
        for module in self.model.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with _CountProducts(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def unknown(self) -> Counter[str]:
        """Classes of layers that ran without anything being counted, and how many of each."""
        return Counter(
            type(module).__name__
            for module in self.ran
            if module not in self.flops
            and (not module._modules or module._parameters)  # others only pass on to their parts
            and _rule_for(module) is None
            and not isinstance(module, _FREE)
        )

    def add_products(self, flops: int) -> None:
        """Add operations to the module that runs, unless its own rule counts them."""
        if self._running and not self._inside_known:
            self.flops[self._running[-1]] += flops

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._running.append(module)
        self._inside_known += _rule_for(module) is not None

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._running.pop()
        self.ran.add(module)
        rule = _rule_for(module)
        if rule is not None:
            self._inside_known -= 1
            if not self._inside_known:
                source = args[0] if args else next(iter(kwargs.values()))
                result = output[0] if isinstance(output, tuple) else output
                self.flops[module] += rule(module, source, result)


class _CountProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells of every product of matrices, convolution and attention, at the level of ATen."""

    def __init__(self, count: _Count) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]
        self._count = count
        self._registry = flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in self._registry:
            with self:  # operators made of others reach us again in parts
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        formula = self._registry.get(func._overloadpacket)
        if formula is not None:
            self._count.add_products(int(formula(*args, **kwargs, out_val=out)) // 2)
        return out


def _conv(module: Any, source: Tensor, result: Tensor) -> int:
    # One output element takes one kernel over the channels of its group.
    products = result.numel() * int(module.weight[0].numel())
    return products + (result.numel() if module.bias is not None else 0)


def _deconv(module: Any, source: Tensor, result: Tensor) -> int:
    products = source.numel() * int(module.weight[0].numel())
    return products + (result.numel() if module.bias is not None else 0)


def _linear(module: Any, source: Tensor, result: Tensor) -> int:
    return int(source.numel() * module.out_features)


def _norm(module: Any, source: Tensor, result: Tensor) -> int:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return source.numel() * (2 if affine else 1)


def _per_input(module: Any, source: Tensor, result: Tensor) -> int:
    return source.numel()


def _per_output(module: Any, source: Tensor, result: Tensor) -> int:
    return result.numel()


_Rule = Callable[[Any, Tensor, Tensor], int]
_RULES: tuple[tuple[tuple[type, ...], _Rule], ...] = (
    ((_ConvTransposeNd,), _deconv),  # before its base class
    ((_ConvNd,), _conv),
    ((nn.Linear,), _linear),
    ((_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm), _norm),
    ((_MaxPoolNd, _AvgPoolNd, nn.AvgPool1d, _AdaptiveMaxPoolNd, _AdaptiveAvgPoolNd), _per_input),
    ((nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6), _per_output),
    ((nn.Upsample,), _per_output),
)

# Layers that move or drop data, and do nothing in evaluation mode: their FLOPs are rightly 0.
_FREE = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    _DropoutNd,
    DropPath,
    nn.Embedding,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.Fold,
    nn.Unfold,
    *(getattr(nn.modules.padding, name) for name in nn.modules.padding.__all__),
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
)


def _rule_for(module: nn.Module) -> _Rule | None:
    for classes, rule in _RULES:
        if isinstance(module, classes):
            return rule
    return None


def _trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _make_input(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    like = next(iter(model.parameters()), torch.empty(()))
    if like.is_meta:
        return torch.empty((1, *input_shape), dtype=like.dtype, device="meta")
    generator = torch.Generator(like.device).manual_seed(0)  # the global one stays as it is
    return torch.randn((1, *input_shape), generator=generator, dtype=like.dtype, device=like.device)


@contextmanager
def _as_in_inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and attention by operators that can be counted."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    training = {module for module in model.modules() if module.training}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module in model.modules():
            module.training = module in training


def _describe(module: nn.Module, flops: Counter[nn.Module], total_flops: int, total_params: int) -> str:
    """The ``repr`` of a module with the figures of each layer, its parts included, before its own text."""

    def share(part: int, whole: int) -> str:
        return f"{part / whole if whole else 0:.3%}"

    own_flops = sum(flops[part] for part in module.modules())
    own_params = _trainable(module)
    figures = [
        params_to_string(own_params, units="M", precision=3),
        f"{share(own_params, total_params)} Params",
        flops_to_string(own_flops, precision=3),
        f"{share(own_flops, total_flops)} FLOPs",
        module.extra_repr(),
    ]
    lines = ", ".join(figures).split("\n")
    for name, child in module._modules.items():
        if child is not None:
            text = _describe(child, flops, total_flops, total_params)
            lines.append(f"({name}): " + text.replace("\n", "\n  "))
    name = type(module).__name__
    return f"{name}({lines[0]})" if len(lines) == 1 else f"{name}(\n  " + "\n  ".join(lines) + "\n)"
