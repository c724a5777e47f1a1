"""Checks that every operator of ``cv.ops`` passes, one function per property.

A test file of an operator reads like its contract:

    CASES = ...
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_forward(device, dtype):
        assert_matches_oracle(fn, oracle, (x, rois), device=device, dtype=dtype)

    def test_contract(device):
        check_operator(fn, (x, rois), op=torch.ops.cv.roi_align.default, op_args=(...), device=device)

`fn` takes the tensors positionally; bind everything else in a lambda. Tensors are made on the CPU in
float64 and moved here. Nothing in this file knows an operator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from . import conformance, emulator

Function = Callable[..., Any]

#: For ``@pytest.mark.parametrize("device", DEVICES)``: CUDA cases are skipped where there is no GPU.
DEVICES = [
    pytest.param("cpu"),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
        ],
    ),
]

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

#: Relative and absolute tolerance of one rounded result of order one, against a float64 oracle that saw
#: the same (rounded) inputs. Float32 accumulates over a few hundred terms; half types round only once.
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (2e-5, 2e-5),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}


def tensors_to(value: Any, *, device: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """``value`` with every tensor moved; only floating-point tensors change their dtype."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, (tuple, list)):
        return type(value)(tensors_to(v, device=device, dtype=dtype) for v in value)
    return value


def assert_close(
    actual: Any, expected: Any, *, dtype: torch.dtype, scale: float = 1.0, what: str = "result"
) -> None:
    """Compares with the tolerance of ``dtype``; ``scale`` is the size of the largest intermediate value.

    ``scale`` is for sums whose terms are larger than the result (a gradient that adds a hundred terms of
    size 1 has scale 100), never to make a wrong result pass.
    """
    rtol, atol = TOLERANCES[dtype]
    for index, (a, e) in enumerate(zip(_as_tensors(actual), _as_tensors(expected), strict=True)):
        torch.testing.assert_close(
            a.detach().cpu().double(),
            e.detach().cpu().double(),
            rtol=rtol,
            atol=atol * scale,
            equal_nan=True,
            msg=lambda m, index=index: f"{what}[{index}] in {dtype}: {m}",
        )


def assert_matches_oracle(
    fn: Function,
    oracle: Function,
    args: Sequence[Any],
    *,
    dtype: torch.dtype,
    device: str = "cpu",
    backward: bool = False,
    scale: float = 1.0,
) -> None:
    """``fn`` in ``dtype`` on ``device`` against ``oracle`` in float64 on the CPU, on the same rounded inputs.

    With ``backward`` also the gradients of all floating-point arguments that require grad, for a random
    output gradient; the oracle's come from autograd through it.
    """
    rounded = tensors_to(args, dtype=dtype)
    ours = _leaves(tensors_to(rounded, device=device), like=args)
    theirs = _leaves(tensors_to(rounded, dtype=torch.float64), like=args)
    with conformance.cell("forward", fn, ours, device):
        actual, expected = fn(*ours), oracle(*theirs)
        for tensor in _as_tensors(actual):
            if tensor.is_floating_point():
                assert tensor.dtype == dtype, f"output is {tensor.dtype}, inputs are {dtype}"
        assert_close(actual, expected, dtype=dtype, scale=scale)
    if backward:
        with conformance.cell("backward", fn, ours, device):
            assert _requiring_grad(ours), "backward=True, but no argument requires grad"
            grads = _output_grads(expected, dtype)
            moved = [g.to(device=device, dtype=dtype) for g in grads]
            ours_g = torch.autograd.grad(_differentiable(actual), _requiring_grad(ours), moved)
            theirs_g = torch.autograd.grad(_differentiable(expected), _requiring_grad(theirs), grads)
            for g in ours_g:
                assert g.dtype == dtype
            assert_close(ours_g, theirs_g, dtype=dtype, scale=scale, what="gradient")


def check_operator(
    fn: Function,
    args: Sequence[Any],
    *,
    op: Any,
    op_args: Sequence[Any] | None = None,
    device: str = "cpu",
    dynamic_shapes: Any = None,
    gradient: bool = True,
    deterministic: bool = True,
) -> None:
    """Everything of an operator's contract that needs no oracle, on small float64 ``args``.

    Args:
        fn: The public function, of tensors only.
        args: Its arguments; those that require grad are differentiated.
        op: The overload below it, for opcheck.
        op_args: The overload's arguments; ``args`` if they are the same.
        device: Where to run.
        dynamic_shapes: For export; see :func:`check_export`.
        gradient: Whether it has a gradient.
        deterministic: Whether two runs under ``torch.use_deterministic_algorithms`` are bitwise equal; pass
            False only where the operator raises under that flag (and test that it does).
    """
    check_noncontiguous(fn, args, device=device)
    check_leaves_inputs_alone(fn, args, device=device)
    # For the conformance matrix in every dtype; otherwise in that of args, because tracing takes seconds.
    for dtype in DTYPES if conformance.recording() and not emulator.emulated() else [None]:
        typed = _leaves(tensors_to(args, dtype=dtype, device=device), like=args)
        typed_op_args = args if op_args is None else op_args
        typed_op_args = _leaves(tensors_to(typed_op_args, dtype=dtype, device=device), like=typed_op_args)
        check_opcheck(op, typed_op_args, device=device)
        if gradient and dtype in (None, torch.float64):
            check_gradient(fn, typed, device=device)
        if deterministic:
            check_deterministic(fn, typed, device=device, gradient=gradient)
        if not emulator.emulated():  # tracing takes long, and does not ask for a kernel
            check_compile(fn, typed, device=device, gradient=gradient)
            check_export(fn, typed, device=device, dynamic_shapes=dynamic_shapes)


def check_opcheck(op: Any, args: Sequence[Any], *, device: str = "cpu") -> None:
    """``torch.library.opcheck``: schema, autograd registration, fake tensor, dynamic shapes under AOT."""
    moved = _leaves(tensors_to(args, device=device), like=args)
    rtol, atol = _half_tolerance(moved)
    with conformance.cell("opcheck", op, moved, device):
        results = torch.library.opcheck(op, moved, rtol=rtol, atol=atol)
        assert set(results.values()) == {"SUCCESS"}, results


def check_gradient(fn: Function, args: Sequence[Any], *, device: str = "cpu", **options: Any) -> None:
    """First derivatives against finite differences, in float64. ``options`` go to ``gradcheck``."""
    inputs = _leaves(tensors_to(args, device=device, dtype=torch.float64), like=args)
    assert _requiring_grad(inputs), "nothing requires grad: gradcheck would check nothing"
    with conformance.cell("gradcheck", fn, inputs, device):
        assert torch.autograd.gradcheck(fn, inputs, **options)


def check_second_derivative_is_refused(fn: Function, args: Sequence[Any], *, device: str = "cpu") -> None:
    """Double backward raises a RuntimeError that says so, instead of giving zeros."""
    inputs = _leaves(tensors_to(args, device=device, dtype=torch.float64), like=args)
    outputs = _differentiable(fn(*inputs))
    total = sum((o * o).sum() for o in outputs)
    first = torch.autograd.grad(total, _requiring_grad(inputs), create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        sum((g * g).sum() for g in first).backward()


def check_noncontiguous(fn: Function, args: Sequence[Any], *, device: str = "cpu") -> None:
    """The same values in other memory layouts give the same result, and the same gradients."""
    moved = tensors_to(args, device=device)
    expected = _run(fn, _leaves(moved, like=args))
    for layout in (_transposed, _strided, _offset, _channels_last):
        changed = [layout(a) if isinstance(a, Tensor) else a for a in moved]
        for e, a in zip(expected, _run(fn, _leaves(changed, like=args, keep_layout=True)), strict=True):
            torch.testing.assert_close(
                a, e, equal_nan=True, msg=lambda m, name=layout.__name__: f"{name}: {m}"
            )


def check_leaves_inputs_alone(fn: Function, args: Sequence[Any], *, device: str = "cpu") -> None:
    """The caller's tensors are bitwise what they were, after forward and backward."""
    inputs = _leaves(tensors_to(args, device=device), like=args)
    before = [a.detach().clone() if isinstance(a, Tensor) else a for a in inputs]
    _run(fn, inputs)
    for b, a in zip(before, inputs, strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a.detach(), b, rtol=0, atol=0, equal_nan=True)


def check_deterministic(
    fn: Function, args: Sequence[Any], *, device: str = "cpu", gradient: bool = True, runs: int = 3
) -> None:
    """Runs under ``torch.use_deterministic_algorithms(True)`` are bitwise equal, backward included."""
    moved = tensors_to(args, device=device)
    with conformance.cell("deterministic", fn, moved, device):
        with deterministic_algorithms():
            results = []
            for run in range(runs):
                # The order that threads run in is the only thing that could make an emulated run another.
                order = emulator.thread_order(emulator.ORDERS[run % 3]) if emulator.emulated() else None
                with order or contextlib.nullcontext():
                    results.append(_run(fn, _leaves(moved, like=args), gradient))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def check_compile(fn: Function, args: Sequence[Any], *, device: str = "cpu", gradient: bool = True) -> None:
    """``torch.compile(fullgraph=True)``, with static and dynamic shapes, equals eager, gradients included."""
    moved = tensors_to(args, device=device)
    expected = _run(fn, _leaves(moved, like=args), gradient)
    for dynamic in (False, True):
        torch._dynamo.reset()
        # aot_eager traces forward and backward as inductor does and then runs our kernels; what inductor
        # would add is code for other operators.
        compiled = torch.compile(fn, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        with conformance.cell("compile", fn, moved, device):
            actual = _run(compiled, _leaves(moved, like=args), gradient)
            for a, e in zip(actual, expected, strict=True):
                # What is composed of torch's own operators rounds elsewhere when it is traced.
                rtol, atol = _half_tolerance([a])
                torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)


def check_export(
    fn: Function, args: Sequence[Any], *, device: str = "cpu", dynamic_shapes: Any = None
) -> None:
    """``torch.export`` keeps the operator whole; ``dynamic_shapes`` has one entry per argument."""

    class Module(torch.nn.Module):
        def forward(self, *inputs: Any) -> Any:
            return fn(*inputs)

    inputs = tuple(tensors_to(args, device=device))
    inputs = tuple(a.detach() if isinstance(a, Tensor) else a for a in inputs)
    shapes = None if dynamic_shapes is None else (tuple(dynamic_shapes),)
    with conformance.cell("export", fn, inputs, device):
        program = torch.export.export(Module(), inputs, dynamic_shapes=shapes)
        names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert any(name.startswith("cv.") for name in names), f"no cv operator in the exported graph: {names}"
        for a, e in zip(_as_tensors(program.module()(*inputs)), _as_tensors(fn(*inputs)), strict=True):
            torch.testing.assert_close(a, e, equal_nan=True)


def check_cpu_equals_cuda(
    fn: Function,
    args: Sequence[Any],
    *,
    dtype: torch.dtype = torch.float32,
    gradient: bool = True,
    scale: float = 1.0,
) -> None:
    """Results and gradients on the GPU are those on the CPU, to the tolerance of ``dtype``."""
    moved = tensors_to(args, dtype=dtype)
    if emulator.emulated():
        with emulator.cpu_kernels():
            cpu = _run(fn, _leaves(moved, like=args), gradient)
        cuda = _run(fn, _leaves(moved, like=args), gradient)
    else:
        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")
        cpu = _run(fn, _leaves(moved, like=args), gradient)
        cuda = _run(fn, _leaves(tensors_to(moved, device="cuda"), like=args), gradient)
    assert_close(cuda, cpu, dtype=dtype, scale=scale)


def check_cuda_stream(fn: Function, args: Sequence[Any]) -> None:
    """The operator runs on the current stream: its result waits for what that stream still has to do."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    ready = tensors_to(args, device="cuda")
    expected = _run(fn, _leaves(ready, like=args), gradient=False)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [torch.full_like(a, 0) if isinstance(a, Tensor) else a for a in ready]
        torch.cuda._sleep(20_000_000)
        for target, source in zip(late, ready, strict=True):
            if isinstance(target, Tensor):
                target.copy_(source)
        actual = _run(fn, late, gradient=False)
    stream.synchronize()
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, equal_nan=True)


def check_every_cpu_isa(fn: Function, args: Sequence[Any], *, dtype: torch.dtype = torch.float32) -> None:
    """Each instruction set of the machine gives the baseline's result, to the tolerance of ``dtype``."""
    from cv.ops._load import available_cpu_isas, forced_cpu_isa

    if emulator.emulated():
        return
    moved = tensors_to(args, dtype=dtype)
    with forced_cpu_isa("baseline"):
        expected = _run(fn, _leaves(moved, like=args))
    for isa in available_cpu_isas():
        with forced_cpu_isa(isa):
            assert_close(_run(fn, _leaves(moved, like=args)), expected, dtype=dtype, what=isa)


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """``torch.use_deterministic_algorithms(True)`` inside the block."""
    before, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def _half_tolerance(values: Sequence[Any]) -> tuple[float, float] | tuple[None, None]:
    """The tolerance of the half type among tensors; without one what torch takes by default."""
    dtypes = {v.dtype for v in values if isinstance(v, Tensor)} & {torch.float16, torch.bfloat16}
    return TOLERANCES[dtypes.pop()] if dtypes else (None, None)


def _run(fn: Function, inputs: Sequence[Any], gradient: bool = True) -> list[Tensor]:
    """Outputs, then (where something requires grad) the gradients for a fixed random output gradient."""
    outputs = fn(*inputs)
    results = list(_as_tensors(outputs))
    wanted = _requiring_grad(inputs)
    differentiable = _differentiable(outputs)
    if gradient and wanted and differentiable:
        results += torch.autograd.grad(
            differentiable, wanted, _output_grads(differentiable, None), allow_unused=True
        )
    return [r.detach() for r in results if r is not None]


def _leaves(moved: Sequence[Any], *, like: Sequence[Any], keep_layout: bool = False) -> list[Any]:
    """Fresh tensors that require grad where those of ``like`` do."""
    out: list[Any] = []
    for value, original in zip(moved, like, strict=True):
        if isinstance(value, Tensor):
            fresh = value.detach() if keep_layout else value.detach().clone()
            out.append(fresh.requires_grad_(original.requires_grad))
        else:
            out.append(value)
    return out


def _requiring_grad(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor) and v.requires_grad]


def _differentiable(outputs: Any) -> list[Tensor]:
    return [o for o in _as_tensors(outputs) if o.requires_grad]


def _output_grads(outputs: Any, dtype: torch.dtype | None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1234)
    grads = []
    for o in _differentiable(outputs):
        g = torch.rand(o.shape, generator=generator, dtype=torch.float64) - 0.5
        grads.append((g if dtype is None else g.to(dtype)).to(device=o.device, dtype=o.dtype))
    return grads


def _as_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in _as_tensors(v)]
    return []


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() > 1 else x


def _strided(x: Tensor) -> Tensor:
    if x.dim() == 0:
        return x
    buffer = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1]))
    buffer[..., ::2] = x
    return buffer[..., ::2]


def _offset(x: Tensor) -> Tensor:
    """Contiguous, but at an odd storage offset: not aligned for wide loads."""
    buffer = x.new_zeros(x.numel() + 1)
    buffer[1:] = x.reshape(-1)
    return buffer[1:].view(x.shape)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
