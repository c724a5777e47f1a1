"""Gives a compiled operator what PyTorch wants beside its kernels: fake, autograd, autocast.

One call per operator, at import, whose result is how the public function calls it:

    _op = operator("roi_align")
    _call = register(_op, check=_check, fake=_fake, setup_context=_setup, backward=_backward)

Much of this file is about what a call costs on tiny tensors; `benchmarks/bench_overhead.py` measures it.

- Arguments are checked in C++ before anything else happens. Only when the operator has refused does `check`
  run, to raise the error that names parameter, rule and value. So C++ must refuse whatever `check` does.
- Autograd is registered by hand instead of by `torch.library.register_autograd`, with the same semantics:
  filling in schema defaults and passing keyword arguments take longer than all the rest, and our schemas
  have neither (`register` refuses one that has).
- In eager mode the public function enters autograd at once, not through the dispatcher, which would turn
  every argument into a C++ value, back into a Python object for our autograd kernel and into a value again.
- The dispatcher is called as `torch.ops` calls it; the search for `__torch_function__` comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import _C, Tensor
from torch.overrides import has_torch_function

from ._load import cuda_error, has_cuda

# setup_context(ctx, inputs, output); torch.library passes the last two by these names.
SetupContext = Callable[..., None]
Backward = Callable[..., Any]
Check = Callable[..., None]

_library: Any = torch.library.Library("cv", "IMPL")  # type: ignore[no-untyped-call]


def register(
    op: torch._ops.OpOverload,
    *,
    fake: Callable[..., Any],
    check: Check | None = None,
    setup_context: SetupContext | None = None,
    backward: Backward | None = None,
    differentiable: bool = True,
    first_only: bool = False,
    autocast: Literal["float32", "lower"] | None = None,
) -> Callable[..., Any]:
    """Registers everything that belongs to one operator.

    Args:
        op: The overload, from :func:`cv.ops._load.operator`.
        check: Called with the operator's arguments once it has refused them, and where there is no kernel to
            do that (fake tensors): raises the TypeError or ValueError for the user. Whatever it raises for,
            the kernels must refuse too.
        fake: Output shapes and dtypes from inputs without data; called with the operator's arguments.
        setup_context: ``setup_context(ctx, inputs, output)``: saves what the backward needs.
        backward: ``backward(ctx, *grads)``: one gradient (or None) per argument, as a tuple.
            Without it, a backward pass through the operator is a ``RuntimeError`` that names it. That is
            what a ``…_backward`` operator gets whose second derivative is not defined, instead of
            autograd's silence.
        differentiable: False for an operator whose outputs are integers: no autograd kernel, no cost.
        first_only: True where the outputs after the first are nothing but what the backward needs: they have
            no gradient, and a caller must not use them (in grad mode it gets None in their place).
        autocast: Under ``torch.autocast``: ``"float32"`` computes in float32; ``"lower"`` in the
            autocast dtype, as convolutions do; None leaves inputs as they are. Float64 is never cast.

    Returns:
        What calls the operator with the least overhead, and raises the errors of ``check``.
    """
    schema = op._schema
    if any(a.has_default_value() or a.kwarg_only for a in schema.arguments):
        raise ValueError(
            f"{op}: the schema must have neither defaults nor keyword-only arguments, got {schema}"
        )
    are_tensors = ["Tensor" in str(a.type) for a in schema.arguments]
    if are_tensors != sorted(are_tensors, reverse=True):
        raise ValueError(f"{op}: the schema must have tensors before numbers, got {schema}")
    name = schema.name.removeprefix("cv::")
    check = check or _accept
    torch.library.register_fake(op, _checked(op, fake, check), lib=_library)
    if differentiable:
        setup, formula = setup_context or _save_nothing, backward or _not_differentiable(name)
        call = _register_autograd(op, name, setup, formula, check, first_only)
    else:
        call = _caller(op, check)
    if autocast is not None:
        for device in ("cuda", "cpu"):
            _library.impl(
                name, _autocast_kernel(op, device, autocast), f"Autocast{device.upper()}", with_keyset=True
            )
    if not has_cuda:
        _library.impl(name, _refuse_cuda(name), "CUDA")
    return call


def without_gradient(op: torch._ops.OpOverload) -> Callable[..., Any]:
    """What calls ``op`` on tensors whose gradient nobody wants: the dispatch to autograd is left out."""
    is_compiling, overridden = torch.compiler.is_compiling, has_torch_function
    below_autograd, call_below = _C._AutoDispatchBelowAutograd, _below_python(op)

    def call(*args: Any) -> Any:
        if is_compiling() or overridden(args):
            return op(*args)
        guard = below_autograd()
        try:
            return call_below(*args)
        finally:
            del guard

    return call


# --- the call --------------------------------------------------------------------------------------


def _caller(op: torch._ops.OpOverload, check: Check) -> Callable[..., Any]:
    is_compiling, overridden, call_below = torch.compiler.is_compiling, has_torch_function, _below_python(op)

    def call(*args: Any) -> Any:
        if is_compiling():  # what is traced is the operator
            check(*args)
            return op(*args)
        try:
            return op(*args) if overridden(args) else call_below(*args)
        except RuntimeError:
            check(*args)
            raise

    return call


def _differentiable_caller(
    op: torch._ops.OpOverload, apply: Callable[..., Any], check: Check
) -> Callable[..., Any]:
    """The same for an operator with a gradient, less the dispatch to autograd."""
    is_compiling, in_inference = torch.compiler.is_compiling, torch.is_inference_mode_enabled
    in_transform, in_trace = _C._are_functorch_transforms_active, _C._is_tracing
    in_autocast, is_grad_enabled = _C._is_any_autocast_enabled, torch.is_grad_enabled
    below_autograd, overridden = _C._AutoDispatchBelowAutograd, has_torch_function
    call_below = _below_python(op)
    count = _tensor_count(op)
    tensors, has_numbers = range(count), count < len(op._schema.arguments)

    def call(*args: Any) -> Any:
        if is_compiling():
            check(*args)
            return op(*args)
        try:
            if overridden(args):
                return op(*args)
            if in_inference():
                return call_below(*args)
            # Function transforms, torch.jit.trace and autocast work above autograd, on the operator.
            if in_transform() or in_trace() or in_autocast():
                return op(*args)
            if is_grad_enabled():
                for i in tensors:
                    if getattr(args[i], "requires_grad", False):  # None, or what the operator will refuse
                        return apply(*args[:count], args[count:]) if has_numbers else apply(*args)
            guard = below_autograd()  # in force from here on; a with statement takes another microsecond
            try:
                return call_below(*args)
            finally:
                del guard
        except RuntimeError:
            check(*args)
            raise

    return call


def _below_python(op: torch._ops.OpOverload) -> Callable[..., Any]:
    """What calling ``op`` comes to where no argument and no mode has a ``__torch_function__``."""
    try:
        return partial(_C._dispatch_call_boxed, op._handle)
    except AttributeError:  # a future torch
        return op


def _tensor_count(op: torch._ops.OpOverload) -> int:
    """How many of the arguments are tensors: the first ones."""
    return sum("Tensor" in str(a.type) for a in op._schema.arguments)


def _accept(*args: Any) -> None:
    pass


def _checked(op: torch._ops.OpOverload, fake: Callable[..., Any], check: Check) -> Callable[..., Any]:
    tensors = [(i, a.name) for i, a in enumerate(op._schema.arguments) if a.type.kind() == "TensorType"]

    def checked_fake(*args: Any) -> Any:
        for place, name in tensors:  # the dispatcher lets None pass for any tensor
            if args[place] is None:
                raise TypeError(f"{op}: {name} must be a tensor, got None")
        check(*args)
        return fake(*args)

    return checked_fake


# --- the kernels -----------------------------------------------------------------------------------


def _register_autograd(
    op: torch._ops.OpOverload,
    name: str,
    setup: SetupContext,
    backward: Backward,
    check: Check,
    first_only: bool,
) -> Callable[..., Any]:
    """Registers the formula, and returns what calls the operator."""
    try:
        formula, eager_formula = _autograd_formulas(op, name, setup, backward, first_only)
        kernel = _autograd_kernel(op, formula)
        call = _differentiable_caller(op, _apply_of(eager_formula), check)
    except AttributeError:
        # A future torch that renamed what torch.library itself uses inside: slower, and the same result.
        setup = _marking_the_rest(setup) if first_only else setup
        torch.library.register_autograd(op, backward, setup_context=setup, lib=_library)
        return _caller(op, check)
    _library.impl(name, kernel, "Autograd", with_keyset=True)
    return call


def _autograd_formulas(
    op: torch._ops.OpOverload, name: str, setup: SetupContext, backward: Backward, first_only: bool
) -> tuple[Any, Any]:
    """For calls that come through the dispatcher, with its keyset last, and for those that do not."""
    below_autograd = _C._AutoDispatchBelowAutograd
    call_below, redispatch = _below_python(op), op._handle.redispatch_boxed  # what op.redispatch calls
    argument_count, tensor_count = len(op._schema.arguments), _tensor_count(op)
    numbers = argument_count - tensor_count
    dispatched_setup = _marking_the_rest(setup) if first_only else setup
    nothing = (None,) * (len(op._schema.returns) - 1)

    # Grad mode is off in here. Each argument of a Function and each of its outputs takes a while, so numbers
    # come as one tuple, and what only the backward needs is not an output.
    def forward(ctx: Any, *inputs: Any) -> Any:
        if numbers:
            inputs = (*inputs[:tensor_count], *inputs[tensor_count])
        guard = below_autograd()
        try:
            output = call_below(*inputs)
        finally:
            del guard
        setup(ctx, inputs, output)
        return (output[0], *nothing) if first_only else output

    # The keyset comes last, so that ctx.needs_input_grad[i] belongs to argument i.
    def forward_with_keyset(ctx: Any, *inputs_and_keyset: Any) -> Any:
        inputs = inputs_and_keyset[:-1]
        output = redispatch(inputs_and_keyset[-1], *inputs)
        dispatched_setup(ctx, inputs, output)
        return output

    def checked_backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        result = backward(ctx, *grads)
        # Autograd would take a tensor apart into its rows.
        if not isinstance(result, tuple) or len(result) != argument_count:
            got = len(result) if isinstance(result, tuple) else f"a {type(result).__name__}"
            raise TypeError(
                f"cv.ops: the backward of {name} must return a tuple of {argument_count}, "
                f"a gradient or None for each argument, got {got}"
            )
        return result

    def eager_backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        result = checked_backward(ctx, *grads)
        return (*result[:tensor_count], None) if numbers else result

    def backward_with_keyset(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return (*checked_backward(ctx, *grads), None)

    through_dispatcher = _formula(name, forward_with_keyset, backward_with_keyset)
    return through_dispatcher, _formula(name, forward, eager_backward)


def _marking_the_rest(setup: SetupContext) -> SetupContext:
    """``setup`` for an operator whose outputs after the first have no gradient."""

    def marking_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        setup(ctx, inputs, output)
        ctx.mark_non_differentiable(*output[1:])

    return marking_setup


def _formula(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    functions = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(f"Backward_cv_{name}", (torch.autograd.Function,), functions)


def _apply_of(formula: Any) -> Callable[..., Any]:
    # Function.apply is this and preparations for functorch, which take 3 to 4 µs.
    apply: Callable[..., Any] = super(torch.autograd.Function, formula).apply
    return apply


def _autograd_kernel(op: torch._ops.OpOverload, formula: Any) -> Callable[..., Any]:
    after_autograd = _C._after_autograd_keyset
    is_grad_enabled, any_requires_grad = _C.is_grad_enabled, _C._any_requires_grad
    in_transform, apply = _C._are_functorch_transforms_active, _apply_of(formula)
    redispatch = op._handle.redispatch_boxed

    def kernel(keyset: Any, *args: Any) -> Any:
        below = keyset & after_autograd
        if is_grad_enabled() and any_requires_grad(*args):
            return (formula.apply if in_transform() else apply)(*args, below)
        return redispatch(below, *args)

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
