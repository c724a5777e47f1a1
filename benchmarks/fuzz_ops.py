"""Call every operator with random arguments, right ones and wrong ones; stop at nothing, report every crash.

    python benchmarks/fuzz_ops.py --seconds 600

Each case takes valid arguments of one operator and spoils none to three of them: another rank or dtype,
NaN, infinite, huge, negative and fractional values, zero sizes, other memory layouts, indices out of range.
A case is made from its number alone, so that a failure is repeated with ``--first N --cases 1``. Calls happen
in a child process with a limit on its address space and on the time of a case. Allowed outcomes are a result
(then its gradient is taken too) and an exception with a text. A crash, a hang, or an exception that users
should not see (``AttributeError``, ``IndexError`` … from inside) is a failure.

Under AddressSanitizer (``nox -s sanitize -- benchmarks/fuzz_ops.py``) accesses outside of a tensor crash too.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from cv import ops

SECONDS = 20  # a single case
EXTRA_BYTES = 6 * 2**30  # address space of the child on top of what it has at the start
#: What an operator may raise. MemoryError and the allocator's RuntimeError come with huge output sizes.
ALLOWED = (ValueError, TypeError, RuntimeError, AssertionError, MemoryError, OverflowError)


def main() -> None:
    """Run until the time is over, start the child again after each crash, and report."""
    args = arguments()
    end = time.monotonic() + args.seconds
    outcomes: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    case, last = args.first, args.first + args.cases
    names = [name for name in SAMPLERS if not args.ops or name in args.ops]
    while case < last and time.monotonic() < end:
        case = run_child(case, last, end, names, outcomes, failures)
    report = {
        "cases": case - args.first,
        "operators": len(names),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=1))
    sys.exit(bool(failures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=2**62)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--ops", nargs="*", default=[], help="only these operators")
    return parser.parse_args()


def run_child(
    case: int, last: int, end: float, names: list[str], outcomes: Counter[str], failures: list[dict[str, Any]]
) -> int:
    """Cases from ``case`` on in a new process, until it dies or the work is done; gives the next case."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    child = context.Process(target=work, args=(theirs, case, last, names))
    child.start()
    theirs.close()
    try:
        while time.monotonic() < end:
            if not ours.poll(SECONDS):
                failures.append({"case": case, "operator": names[case % len(names)], "what": "hangs"})
                return case + 1
            try:
                outcome, failure = ours.recv()
            except EOFError:
                child.join()
                what = f"the process died ({child.exitcode})"
                failures.append({"case": case, "operator": names[case % len(names)], "what": what})
                return case + 1
            if outcome == "end":
                return last
            outcomes[outcome] += 1
            if failure:
                failures.append({"case": case, "operator": names[case % len(names)], "what": failure})
            case += 1
        return case
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()


def work(connection: Connection[Any, Any], first: int, last: int, names: list[str]) -> None:
    """The child: one case after the other."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "libasan" not in open("/proc/self/maps", encoding="utf-8").read():  # noqa: PTH123, SIM115
        size = int(open("/proc/self/statm", encoding="utf-8").read().split()[0]) * 4096  # noqa: PTH123, SIM115
        resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_BYTES, size + EXTRA_BYTES))
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    for case in range(first, last):
        connection.send(run_case(case, names[case % len(names)]))
    connection.send(("end", None))


def run_case(case: int, name: str) -> tuple[str, str | None]:
    """Outcome of one case, and what is wrong with it."""
    chance = random.Random(case)
    torch.manual_seed(case)
    function, args = SAMPLERS[name](chance)
    spoiled = chance.choice([0, 1, 1, 1, 2, 3])
    for index in chance.sample(range(len(args)), min(spoiled, len(args))):
        args[index] = spoil(args[index], chance)
    try:
        result = function(*args)
        outputs = [t for t in tensors(result) if t.requires_grad]
        if outputs:
            sum(t.float().sum() for t in outputs).backward()
            return "gradient", None
        return "result", None
    except ALLOWED as error:
        if str(error):
            return type(error).__name__, None
        return "failure", f"{type(error).__name__} without a text; {show(args)}"
    except Exception as error:
        return "failure", f"{type(error).__name__}: {error}; {show(args)}"


def spoil(value: Any, chance: random.Random) -> Any:
    """Something like ``value`` that is probably wrong."""
    if isinstance(value, Tensor):
        return spoil_tensor(value, chance)
    if isinstance(value, (bool, str)):
        return chance.choice([None, True, "x", -1, 0])
    if isinstance(value, (int, float)):
        numbers = [-1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-30, 1e30, 2**31, 2**62, math.nan, math.inf, None, "x"]
        return chance.choice(numbers)
    if isinstance(value, (tuple, list)):
        items = list(value)
        if items and chance.random() < 0.7:
            place = chance.randrange(len(items))
            items[place] = spoil(items[place], chance)
        else:
            items = chance.choice([[], items[:-1], [*items, *items]])
        return type(value)(items)
    return value


def spoil_tensor(value: Tensor, chance: random.Random) -> Any:
    way = chance.randrange(13)
    detached = value.detach().clone()
    if way == 0:
        return detached.to(
            chance.choice([torch.int64, torch.uint8, torch.bool, torch.int32, torch.complex64])
        )
    if way == 1:
        kinds = [torch.float16, torch.bfloat16, torch.float64, torch.float32]
        return detached.to(chance.choice(kinds)) if detached.is_floating_point() else detached
    if way == 2:
        return detached.unsqueeze(chance.randrange(detached.dim() + 1))
    if way == 3:
        return detached[0] if detached.dim() and detached.shape[0] else detached
    if way == 4 and detached.dim():
        dim = chance.randrange(detached.dim())
        return detached.narrow(dim, 0, chance.randrange(detached.shape[dim] + 1))
    if way == 5 and detached.dim():
        return detached.repeat_interleave(2, chance.randrange(detached.dim()))
    if way in (6, 7) and detached.is_floating_point() and detached.numel():
        extremes = [math.nan, math.inf, -math.inf, 1e38, -1e38, 1e9, -1e9, 2.0**31, 2.0**63, -1.0, 0.0, 1e-38]
        flat = detached.reshape(-1)
        for _ in range(chance.randrange(1, 6)):
            flat[chance.randrange(flat.numel())] = chance.choice(extremes)
        return flat.reshape(detached.shape).requires_grad_(value.requires_grad)
    if way == 8 and detached.is_floating_point():
        scaled = detached * chance.choice([0.0, -1.0, 1e3, 1e-6, 1e20])
        return scaled.requires_grad_(value.requires_grad)
    if way == 9 and not detached.is_floating_point() and detached.numel():
        flat = detached.reshape(-1)
        limits = torch.iinfo(flat.dtype) if flat.dtype != torch.bool else None
        if limits:
            flat[chance.randrange(flat.numel())] = chance.choice([limits.min, limits.max, -1 % 255, 99])
        return flat.reshape(detached.shape)
    if way == 10 and detached.dim() > 1:
        return detached.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_(value.requires_grad)
    if way == 11 and detached.dim():
        return torch.stack([detached, detached], -1)[..., 0].requires_grad_(value.requires_grad)
    return torch.empty(0, dtype=detached.dtype)


def show(args: list[Any]) -> str:
    return ", ".join(f"{a.dtype}{tuple(a.shape)}" if isinstance(a, Tensor) else repr(a)[:40] for a in args)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


# Valid arguments. Sizes are small: what matters is every kind of argument, thousands of times.


def maps(chance: random.Random, channels: int | None = None, batch: int | None = None) -> Tensor:
    n = chance.randrange(1, 4) if batch is None else batch
    shape = (n, channels or chance.randrange(1, 20), chance.randrange(1, 14), chance.randrange(1, 14))
    return torch.randn(shape).requires_grad_(chance.random() < 0.5)


def boxes(chance: random.Random, size: float = 20.0) -> Tensor:
    low = torch.rand(chance.randrange(0, 12), 2) * size
    return torch.cat([low, low + torch.rand(low.shape) * size], 1)


def rotated(chance: random.Random, count: int | None = None) -> Tensor:
    n = chance.randrange(0, 12) if count is None else count
    return torch.cat([torch.rand(n, 4) * 20, torch.randn(n, 1) * 3], 1)


def rois(chance: random.Random, batch: int) -> Tensor:
    b = boxes(chance, 12.0)
    return torch.cat([torch.randint(0, batch, (len(b), 1)).float(), b], 1)


def size(chance: random.Random) -> Any:
    return chance.choice([1, 2, 7, (2, 3), (5, 1)])


def _pair_of_boxes(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    a, b = boxes(chance), boxes(chance)
    return ops.bbox_overlaps, [a, b, chance.choice(["iou", "iof"]), False, chance.choice([0, 1])]


def _pair_of_rotated(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    return ops.box_iou_rotated, [rotated(chance), rotated(chance), chance.choice(["iou", "iof"]), False]


def _nms(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    b = boxes(chance)
    return ops.nms, [b, torch.rand(len(b)), chance.random(), chance.choice([0, 1]), 0, -1]


def _soft_nms(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    b = boxes(chance)
    method = chance.choice(["linear", "gaussian", "naive"])
    return ops.soft_nms, [b, torch.rand(len(b)), 0.3, 0.5, 1e-3, method, chance.choice([0, 1])]


def _batched_nms(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    b = boxes(chance)
    cfg = {"type": chance.choice(["nms", "soft_nms"]), "iou_threshold": 0.5}
    return ops.batched_nms, [b, torch.rand(len(b)), torch.randint(0, 3, (len(b),)), cfg, False]


def _nms_match(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    b = boxes(chance)
    return ops.nms_match, [torch.cat([b, torch.rand(len(b), 1)], 1), 0.5]


def _nms_rotated(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    b = rotated(chance)
    labels = chance.choice([None, torch.randint(0, 3, (len(b),))])
    return ops.nms_rotated, [b, torch.rand(len(b)), 0.5, labels]


def _roi(function: Callable[..., Any], *rest: Any) -> Any:
    def sampler(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
        x = maps(chance)
        return function, [x, rois(chance, len(x)), size(chance), chance.choice([1.0, 0.5]), *rest]

    return sampler


def _roi_align_rotated(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance)
    b = rotated(chance)
    r = torch.cat([torch.randint(0, len(x), (len(b), 1)).float(), b], 1)
    return ops.roi_align_rotated, [x, r, size(chance), 1.0, chance.choice([0, 2]), True, False]


def _deform_conv(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    groups, x = 1, maps(chance, channels=4)
    weight = torch.randn(6, 4, 3, 3).requires_grad_()
    offset = torch.randn(len(x), 18, *x.shape[2:]) * 2
    return ops.deform_conv2d, [x, offset, weight, 1, 1, 1, groups, 1]


def _modulated(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance, channels=4)
    weight, bias = torch.randn(6, 2, 3, 3).requires_grad_(), torch.randn(6)
    offset, mask = torch.randn(len(x), 36, *x.shape[2:]), torch.rand(len(x), 18, *x.shape[2:])
    return ops.modulated_deform_conv2d, [x, offset, mask, weight, bias, 1, 1, 1, 2, 2]


def _attention(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    shapes = torch.tensor([[6, 5], [3, 2]])
    starts = torch.tensor([0, 30])
    n, heads, dim, queries, points = 2, 2, chance.choice([4, 8, 5]), chance.randrange(0, 6), 3
    value = torch.randn(n, 36, heads, dim).requires_grad_()
    places = torch.rand(n, queries, heads, 2, points, 2)
    weights = torch.rand(n, queries, heads, 2, points)
    return ops.multi_scale_deformable_attn, [value, shapes, starts, places, weights]


def _focal(function: Callable[..., Any]) -> Any:
    def sampler(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
        n, c = chance.randrange(0, 9), chance.randrange(1, 9)
        x = torch.randn(n, c).requires_grad_()
        weight = chance.choice([None, torch.rand(c)])
        return function, [
            x,
            torch.randint(0, c, (n,)),
            2.0,
            0.25,
            weight,
            chance.choice(["mean", "sum", "none"]),
        ]

    return sampler


def _carafe(function: Callable[..., Any]) -> Any:
    def sampler(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
        x = maps(chance, channels=chance.choice([4, 8]))
        n, _, h, w = x.shape
        return function, [x, torch.rand(n, 18, 2 * h, 2 * w), 3, 2, 2]

    return sampler


def _border_align(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance, channels=8)
    low = torch.rand(len(x), x.shape[2] * x.shape[3], 2) * 10
    b = torch.cat([low, low + torch.rand(low.shape) * 10], -1)
    return ops.border_align, [x, b, chance.choice([1, 3, 10])]


def _tin_shift(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    n, t, c, hw = 2, chance.randrange(1, 6), 6, chance.randrange(1, 9)
    return ops.tin_shift, [torch.randn(n, t, c, hw).requires_grad_(), torch.randint(-3, 4, (n, 3)).int()]


def _psa_mask(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    h, w = chance.randrange(1, 6), chance.randrange(1, 6)
    x = torch.randn(2, 15, h, w).requires_grad_()
    return ops.psa_mask, [x, chance.choice(["collect", "distribute"]), (3, 5)]


def _upfirdn2d(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    return ops.upfirdn2d, [maps(chance), torch.randn(3, 4), chance.choice([1, 2, (2, 1)]), 1, (2, 3, 3, 2)]


def _bias(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance)
    return ops.fused_bias_leakyrelu, [x, torch.randn(x.shape[1]).requires_grad_(), 0.2, 1.4]


def _corner_pool(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    return ops.corner_pool, [maps(chance), chance.choice(["top", "bottom", "left", "right"])]


def _correlation(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    a = maps(chance)
    return ops.correlation, [
        a,
        torch.randn(a.shape),
        chance.choice([1, 3]),
        chance.choice([1, 4]),
        1,
        1,
        1,
        1,
    ]


def _deform_roi_pool(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance)
    r = rois(chance, len(x))
    offset = chance.choice([None, torch.randn(len(r), 2, 3, 3)])
    return ops.deform_roi_pool, [x, r, offset, (3, 3), 1.0, chance.choice([0, 2]), 0.1]


def _masked_conv2d(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance, channels=4, batch=1)
    mask = (torch.rand(1, *x.shape[2:]) > 0.5).float()
    return ops.masked_conv2d, [x.detach(), mask, torch.randn(5, 4, 3, 3), torch.randn(5), 1]


def _text(chance: random.Random) -> tuple[Tensor, Tensor]:
    h, w = chance.randrange(1, 14), chance.randrange(1, 14)
    mask = (torch.rand(h, w) > 0.4).to(torch.uint8)
    return mask, torch.randint(0, 3, (h, w)).int() * mask


def _pixel_group(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    mask, label = _text(chance)
    h, w = mask.shape
    contour = (torch.rand(h, w) > 0.5).to(torch.uint8)
    return ops.pixel_group, [torch.rand(h, w), mask.bool(), torch.rand(h, w, 4), label, contour, 3, 0.8]


def _contour_expand(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    mask, label = _text(chance)
    return ops.contour_expand, [mask[None].repeat(2, 1, 1), label, 0, 3]


def _point_sample(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance)
    return ops.point_sample, [x, torch.rand(len(x), 5, 2), chance.choice([True, False])]


def _grid_sample(chance: random.Random) -> tuple[Callable[..., Any], list[Any]]:
    x = maps(chance)
    return ops.bilinear_grid_sample, [x, torch.rand(len(x), 3, 4, 2) * 3 - 1.5, chance.choice([True, False])]


SAMPLERS: dict[str, Callable[[random.Random], tuple[Callable[..., Any], list[Any]]]] = {
    "bbox_overlaps": _pair_of_boxes,
    "batched_nms": _batched_nms,
    "bilinear_grid_sample": _grid_sample,
    "border_align": _border_align,
    "box_iou_rotated": _pair_of_rotated,
    "carafe": _carafe(ops.carafe),
    "carafe_naive": _carafe(ops.carafe_naive),
    "contour_expand": _contour_expand,
    "corner_pool": _corner_pool,
    "correlation": _correlation,
    "deform_conv2d": _deform_conv,
    "deform_roi_pool": _deform_roi_pool,
    "fused_bias_leakyrelu": _bias,
    "masked_conv2d": _masked_conv2d,
    "modulated_deform_conv2d": _modulated,
    "multi_scale_deformable_attn": _attention,
    "nms": _nms,
    "nms_match": _nms_match,
    "nms_rotated": _nms_rotated,
    "pixel_group": _pixel_group,
    "point_sample": _point_sample,
    "psa_mask": _psa_mask,
    "roi_align": _roi(ops.roi_align, 0, "avg", True),
    "roi_align_rotated": _roi_align_rotated,
    "roi_pool": _roi(ops.roi_pool),
    "sigmoid_focal_loss": _focal(ops.sigmoid_focal_loss),
    "soft_nms": _soft_nms,
    "softmax_focal_loss": _focal(ops.softmax_focal_loss),
    "tin_shift": _tin_shift,
    "upfirdn2d": _upfirdn2d,
}

if __name__ == "__main__":
    main()
