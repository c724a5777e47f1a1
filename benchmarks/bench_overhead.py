"""What a call costs before there is any work: every operator of ``cv.ops`` on tensors of a few elements.

Three rows for each operator: ``inference`` (under ``torch.inference_mode``), ``no gradient`` (grad mode, but
no argument requires grad) and ``gradient`` (one does; the forward pass alone). The floor beside them is an
operator of the same schema that does nothing but allocate its outputs: compiled here, through the same stable
ABI, called as ``torch.ops`` calls it; in the rows ``gradient`` by the shortest ``torch.autograd.Function``
there is. What is above the floor is ours: checks, the kernel on a few elements, what backward needs to be
saved. Without a C++ compiler there is no floor.

``torch.add`` of the first argument with itself is in each row as the scale of machine and torch.

Times are processor time of the calling thread, the least of many short rounds in turns: a busy machine adds
to all other statistics.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import Call, Report, arguments
from op_timing import torchvision_ops
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cv import ops

ROUNDS, CALLS = 60, 50

Case = tuple[Callable[..., Any], tuple[Any, ...], Callable[..., Any] | None]


def main() -> None:
    """Measure and write ``results/overhead.json``."""
    args = arguments(__doc__)
    torch.set_num_threads(args.threads)
    report = Report("overhead", threads=args.threads)
    cases = make_cases()
    operators = {name: operator_below(call, inputs) for name, (call, inputs, _) in cases.items()}
    floors = compile_floors({op for op, _ in operators.values()})
    for name, (call, inputs, peer) in cases.items():
        op, op_args = operators[name]
        compare(report, name, call, inputs, peer, floors.get(op), op_args)
    report.write(args.out)


def compare(
    report: Report,
    name: str,
    call: Callable[..., Any],
    inputs: tuple[Any, ...],
    peer: Callable[..., Any] | None,
    floor: Any,
    floor_inputs: tuple[Any, ...],
) -> None:
    """Adds the rows of one operator."""
    modes = ["inference", "no gradient"]
    if any(t.requires_grad for t in outputs_with_gradient(call, inputs)):
        modes.append("gradient")
    for mode in modes:
        with torch.inference_mode(mode == "inference"):
            mine = requiring_grad(inputs) if mode == "gradient" else inputs
            calls: dict[str, Call] = {"cv": partial(call, *mine)}
            if peer is not None:
                calls["torchvision"] = partial(peer, *mine)
            calls["torch.add"] = partial(torch.add, mine[0], mine[0])
            if floor is not None:
                if mode == "gradient":
                    first, *rest = requiring_grad(floor_inputs)
                    calls["floor"] = partial(shortest_function(floor), first, rest)
                else:
                    calls["floor"] = partial(floor, *floor_inputs)
            times = least_times(calls)
        least = times.pop("floor", None)
        report.add(f"{name}: {mode}", times, floor=least)


def least_times(calls: dict[str, Call]) -> dict[str, float]:
    """Processor seconds of each call, the least of all rounds."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        for _ in range(20):
            call()
    for _ in range(max(5, int(ROUNDS * float(os.environ.get("CV_BENCH_SCALE", "1"))))):
        for name, call in calls.items():
            start = time.thread_time()
            for _ in range(CALLS):
                call()
            best[name] = min(best[name], (time.thread_time() - start) / CALLS)
    return best


# --- the operators ----------------------------------------------------------------------------------


def make_cases() -> dict[str, Case]:
    """Public function, its arguments (the first is what a gradient is asked for), and torchvision's twin."""
    tv = torchvision_ops()
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [5, 5, 9, 9]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    rotated = torch.tensor([[5.0, 5, 4, 2, 0.3], [5, 6, 4, 2, 0.1]])
    pixels, rois = torch.rand(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]])
    turned = torch.tensor([[0.0, 3, 3, 4, 4, 0.3]])
    tiny, offset, weight, mask = (
        torch.rand(1, 1, 2, 2),
        torch.zeros(1, 2, 2, 2),
        torch.rand(1, 1, 1, 1),
        torch.rand(1, 1, 2, 2),
    )
    levels = (
        torch.tensor([[2, 2]]),
        torch.tensor([0]),
        torch.rand(1, 1, 1, 1, 1, 2),
        torch.rand(1, 1, 1, 1, 1),
    )
    labels = torch.zeros(2, 2, dtype=torch.int32)
    return {
        "nms": (
            lambda b, s: ops.nms(b, s, 0.5), (boxes, scores), tv and (lambda b, s: tv.nms(b, s, 0.5)),
        ),
        "roi_align": (
            lambda x, r: ops.roi_align(x, r, 2, 1.0, 2), (pixels, rois),
            tv and (lambda x, r: tv.roi_align(x, r, 2, 1.0, 2, True)),
        ),
        "deform_conv2d": (
            ops.deform_conv2d, (tiny, offset, weight), tv and tv.deform_conv2d,
        ),
        "modulated_deform_conv2d": (
            ops.modulated_deform_conv2d, (tiny, offset, mask, weight),
            tv and (lambda x, o, m, w: tv.deform_conv2d(x, o, w, mask=m)),
        ),
        "multi_scale_deformable_attn": (
            ops.multi_scale_deformable_attn, (torch.rand(1, 4, 1, 4), *levels), None,
        ),
        "roi_pool": (
            lambda x, r: ops.roi_pool(x, r, 2), (pixels, rois), tv and (lambda x, r: tv.roi_pool(x, r, 2)),
        ),
        "roi_align_rotated": (lambda x, r: ops.roi_align_rotated(x, r, 2, 1.0, 2), (pixels, turned), None),
        "deform_roi_pool": (lambda x, r: ops.deform_roi_pool(x, r, None, 2, 1.0, 2), (pixels, rois), None),
        "border_align": (
            lambda x, b: ops.border_align(x, b, 2),
            (torch.rand(1, 4, 4, 4), torch.tensor([[[0.0, 0, 2, 2]]])), None,
        ),
        "carafe": (lambda x, m: ops.carafe(x, m, 1, 1, 1), (tiny, mask), None),
        "soft_nms": (ops.soft_nms, (boxes, scores), None),
        "nms_rotated": (lambda b, s: ops.nms_rotated(b, s, 0.5), (rotated, scores[:2]), None),
        "bbox_overlaps": (
            ops.bbox_overlaps, (boxes[:2], boxes[2:]), None,
        ),
        "box_iou_rotated": (ops.box_iou_rotated, (rotated, rotated), None),
        "sigmoid_focal_loss": (ops.sigmoid_focal_loss, (torch.rand(2, 3), torch.tensor([0, 1])), None),
        "softmax_focal_loss": (ops.softmax_focal_loss, (torch.rand(2, 3), torch.tensor([0, 1])), None),
        "corner_pool": (lambda x: ops.corner_pool(x, "top"), (tiny,), None),
        "correlation": (ops.correlation, (tiny, tiny.clone()), None),
        "fused_bias_leakyrelu": (ops.fused_bias_leakyrelu, (tiny, torch.rand(1)), None),
        "upfirdn2d": (ops.upfirdn2d, (tiny, torch.rand(1, 1)), None),
        "psa_mask": (lambda x: ops.psa_mask(x, "collect", (1, 1)), (tiny,), None),
        "tin_shift": (ops.tin_shift, (torch.rand(1, 2, 1, 1), torch.tensor([[1]])), None),
        "contour_expand": (
            lambda k, i: ops.contour_expand(k, i, 0, 1),
            (torch.ones(1, 2, 2, dtype=torch.uint8), labels), None,
        ),
    }  # fmt: skip


def operator_below(call: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The overload of ``torch.ops.cv`` that a public function calls, and its arguments."""
    with Recorder() as recorder:
        call(*inputs)
    return recorder.seen[0]


class Recorder(TorchDispatchMode):
    """Notes the calls of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "cv":
            self.seen.append((func, tuple(args)))
        return func(*args, **(kwargs or {}))


def requiring_grad(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].detach().clone().requires_grad_(), *inputs[1:])


def outputs_with_gradient(call: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    if not inputs[0].is_floating_point():
        return []
    result = call(*requiring_grad(inputs))
    return [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, Tensor)]


# --- the floor --------------------------------------------------------------------------------------


def shortest_function(op: Any) -> Callable[..., Any]:
    """``op`` as a torch.autograd.Function that saves nothing, the preparations for functorch left out.

    It takes the argument that has a gradient, and all others as one.
    """
    formula: Any = type("Floor", (torch.autograd.Function,), {"forward": lambda ctx, x, rest: op(x, *rest)})
    apply: Callable[..., Any] = super(torch.autograd.Function, formula).apply
    return apply


def compile_floors(operators: set[Any]) -> dict[Any, Any]:
    """For each overload one of the same schema, on the CPU, that only allocates its outputs."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        print("no C++ compiler: no floors", file=sys.stderr)
        return {}
    ordered = sorted(operators, key=str)
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, library = folder / "floor.cpp", folder / "libfloor.so"
        source.write_text(floor_source(ordered), encoding="utf-8")
        command = [
            *(
                compiler,
                "-std=c++17",
                "-O2",
                "-shared",
                "-fPIC",
                "-DTORCH_TARGET_VERSION=0x020a000000000000ULL",
            ),
            *(
                f"-I{root / 'include'}",
                str(source),
                f"-L{root / 'lib'}",
                "-ltorch_cpu",
                "-lc10",
                "-o",
                str(library),
            ),
        ]
        subprocess.run(command, check=True)
        torch.ops.load_library(str(library))
    return {op: getattr(torch.ops.cv_floor, op._schema.name.removeprefix("cv::")).default for op in ordered}


def floor_source(operators: list[Any]) -> str:
    """C++ of boxed kernels: each takes its arguments off the stack and puts new tensors there."""
    definitions, kernels, registrations = [], [], []
    for op in operators:
        schema = op._schema
        name = schema.name.removeprefix("cv::")
        lines = []
        for i, argument in enumerate(schema.arguments):
            if str(argument.type) == "Tensor":
                lines.append(f"take(stack[{i}]);")
            elif str(argument.type) == "Optional[Tensor]":
                lines.append(f"take_optional(stack[{i}]);")
        lines += [f"stack[{i}] = new_tensor();" for i in range(len(schema.returns))]
        kernels.append(f"void {name}(StableIValue* stack, uint64_t, uint64_t) {{ {' '.join(lines)} }}")
        definitions.append(f'  m.def("{str(schema).removeprefix("cv::")}");')
        registrations.append(f'  m.impl("{name}", &{name});')
    return "\n".join(
        [
            "#include <torch/csrc/stable/library.h>",
            "#include <torch/csrc/stable/tensor.h>",
            "namespace {",
            "void take(StableIValue v) {",
            "  aoti_torch_delete_tensor_object(torch::stable::detail::to<AtenTensorHandle>(v));",
            "}",
            "void take_optional(StableIValue v) {",
            "  auto* value = torch::stable::detail::to<StableIValue*>(v);",
            "  if (value == nullptr) return;",
            "  take(*value);",
            "  delete value;",
            "}",
            "StableIValue new_tensor() {",
            "  const int64_t one = 1;",
            "  AtenTensorHandle handle = nullptr;",
            "  const int32_t type = aoti_torch_dtype_float32(), device = aoti_torch_device_type_cpu();",
            "  aoti_torch_empty_strided(1, &one, &one, type, device, 0, &handle);",
            "  return torch::stable::detail::from(handle);",
            "}",
            *kernels,
            "}",
            "STABLE_TORCH_LIBRARY(cv_floor, m) {",
            *definitions,
            "}",
            "STABLE_TORCH_LIBRARY_IMPL(cv_floor, CPU, m) {",
            *registrations,
            "}",
        ]
    )


if __name__ == "__main__":
    main()
