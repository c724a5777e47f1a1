"""Gives a compiled operator what PyTorch wants beside its kernels: fake, autograd, autocast.

One call per operator, at import:

    _op = operator("roi_align")
    register(_op, fake=_fake, setup_context=_setup, backward=_backward, autocast="float32")

Autograd is registered by hand instead of by `torch.library.register_autograd`, with the same semantics:
filling in schema defaults and passing keyword arguments cost about 30 µs of each call in grad mode, and
our schemas have neither (`register` refuses one that has).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import _C, Tensor

from ._load import cuda_error, has_cuda

# setup_context(ctx, inputs, output); torch.library passes the last two by these names.
SetupContext = Callable[..., None]
Backward = Callable[..., Any]

_library: Any = torch.library.Library("cv", "IMPL")  # type: ignore[no-untyped-call]


def register(
    op: torch._ops.OpOverload,
    *,
    fake: Callable[..., Any],
    setup_context: SetupContext | None = None,
    backward: Backward | None = None,
    differentiable: bool = True,
    autocast: Literal["float32", "lower"] | None = None,
) -> None:
    """Registers everything that belongs to one operator.

    Args:
        op: The overload, from :func:`cv.ops._load.operator`.
        fake: Output shapes and dtypes from inputs without data; called with the operator's arguments.
        setup_context: ``setup_context(ctx, inputs, output)``: saves what the backward needs.
        backward: ``backward(ctx, *grads)``: one gradient (or None) per argument, as a tuple.
            Without it, a backward pass through the operator is a ``RuntimeError`` that names it. That is
            what a ``…_backward`` operator gets whose second derivative is not defined, instead of
            autograd's silence.
        differentiable: False for an operator whose outputs are integers: no autograd kernel, no cost.
        autocast: Under ``torch.autocast``: ``"float32"`` computes in float32; ``"lower"`` in the
            autocast dtype, as convolutions do; None leaves inputs as they are. Float64 is never cast.
    """
    schema = op._schema
    if any(a.has_default_value() or a.kwarg_only for a in schema.arguments):
        raise ValueError(
            f"{op}: the schema must have neither defaults nor keyword-only arguments, got {schema}"
        )
    name = schema.name.removeprefix("cv::")
    torch.library.register_fake(op, fake, lib=_library)
    if differentiable:
        _register_autograd(op, name, setup_context or _save_nothing, backward or _not_differentiable(name))
    if autocast is not None:
        for device in ("cuda", "cpu"):
            _library.impl(
                name, _autocast_kernel(op, device, autocast), f"Autocast{device.upper()}", with_keyset=True
            )
    if not has_cuda:
        _library.impl(name, _refuse_cuda(name), "CUDA")


def _register_autograd(op: torch._ops.OpOverload, name: str, setup: SetupContext, backward: Backward) -> None:
    try:
        kernel = _autograd_kernel(op, name, setup, backward)
    except AttributeError:
        # A future torch that renamed what torch.library itself uses inside: slower, and the same result.
        torch.library.register_autograd(op, backward, setup_context=setup, lib=_library)
    else:
        _library.impl(name, kernel, "Autograd", with_keyset=True)


def _autograd_kernel(
    op: torch._ops.OpOverload, name: str, setup: SetupContext, backward: Backward
) -> Callable[..., Any]:
    below_autograd = _C._AutoDispatchBelowAutograd
    after_autograd = _C._after_autograd_keyset
    is_grad_enabled, any_requires_grad = _C.is_grad_enabled, _C._any_requires_grad
    redispatch = op.redispatch
    argument_count = len(op._schema.arguments)

    # The keyset comes last, so that ctx.needs_input_grad[i] belongs to argument i.
    def forward(ctx: Any, *args_and_keyset: Any) -> Any:
        *args, keyset = args_and_keyset
        with below_autograd():
            output = redispatch(keyset & after_autograd, *args)
            setup(ctx, inputs=tuple(args), output=output)
        return output

    def backward_then_keyset(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        result = backward(ctx, *grads)
        # Autograd would count the keyset too, and take a tensor apart into its rows.
        if not isinstance(result, tuple) or len(result) != argument_count:
            got = len(result) if isinstance(result, tuple) else f"a {type(result).__name__}"
            raise TypeError(
                f"cv.ops: the backward of {name} must return a tuple of {argument_count}, "
                f"a gradient or None for each argument, got {got}"
            )
        return (*result, None)

    formula = type(
        f"Backward_cv_{name}",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward_then_keyset)},
    )
    apply = formula.apply  # type: ignore[attr-defined]

    def kernel(keyset: Any, *args: Any) -> Any:
        if is_grad_enabled() and any_requires_grad(*args):
            return apply(*args, keyset)
        with below_autograd():
            return redispatch(keyset & after_autograd, *args)

    return kernel


def _autocast_kernel(
    op: torch._ops.OpOverload, device: str, mode: Literal["float32", "lower"]
) -> Callable[..., Any]:
    autocast_keys = _C.DispatchKeySet(getattr(_C.DispatchKey, f"Autocast{device.upper()}"))

    def kernel(keyset: Any, *args: Any) -> Any:
        dtype = torch.float32 if mode == "float32" else torch.get_autocast_dtype(device)
        with _C._ExcludeDispatchKeyGuard(autocast_keys):
            return op(*[_cast(a, device, dtype) for a in args])

    return kernel


def _cast(value: Any, device: str, dtype: torch.dtype) -> Any:
    if (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dtype is not torch.float64
        and value.device.type == device
    ):
        return value.to(dtype)
    return value


def _refuse_cuda(name: str) -> Callable[..., Any]:
    def kernel(*args: Any) -> Any:
        raise RuntimeError(
            f"{name}: got a CUDA tensor, but the CUDA half of cv-ops is not loaded: {cuda_error}"
        )

    return kernel


def _not_differentiable(name: str) -> Backward:
    if name.endswith("_backward"):
        message = f"cv.ops: the second derivative of {name.removesuffix('_backward')} is not defined"
    else:
        message = f"cv.ops: {name} is not differentiable"

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        raise RuntimeError(message)

    return backward


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass
