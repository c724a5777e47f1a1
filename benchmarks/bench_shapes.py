"""No shape slower than a peer: shapes of every operator drawn at random, ours and its peers in turns.

The other benchmarks time the shapes that matter most; this one looks for those that were forgotten. Sizes
are drawn evenly in their logarithm, from a single element up to what detectors use; arguments (ratios,
strides, groups, layouts) with them. The shortest of several runs counts, and a shape that looks slow is timed
again for longer. ``results/shapes.json`` has a row for each operator, pass and peer: how many shapes, the
lowest and the median ratio, and which shapes were the three lowest.

``bench_shapes.py roi_align nms --seconds 60`` draws for a minute for each of the two, ``--first 1000`` draws
others. On a busy machine only ``--threads 1`` tells anything, by processor time: two threads wait for
each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import shapes_boxes
import shapes_dense
import shapes_others
import shapes_rois
import shapes_rotated
import torch
from harness import RESULTS, Call, Report
from op_timing import forward_and_backward
from shapes_draw import Case, Draw, Sampler

SAMPLERS: dict[str, Sampler] = {
    **shapes_boxes.SAMPLERS,
    **shapes_dense.SAMPLERS,
    **shapes_others.SAMPLERS,
    **shapes_rois.SAMPLERS,
    **shapes_rotated.SAMPLERS,
}
SUSPECT = 1.15  # a ratio below this is measured again
LOWEST = 3  # shapes named in a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operators", nargs="*", default=sorted(SAMPLERS), help="names; all if there are none")
    parser.add_argument("--seconds", type=float, default=5.0, help="about how long for each operator")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = Report("shapes", threads=args.threads)
    for name in args.operators:
        for key, ratios in sweep(name, SAMPLERS[name], args.first, args.seconds).items():
            report.rows.append(row(f"{name}, {key}", ratios))
            print(line(report.rows[-1]), flush=True)
    print(report.write(args.out))


def sweep(name: str, sampler: Sampler, first: int, seconds: float) -> dict[str, list[tuple[float, str]]]:
    """Pairs of ratio and shape for each pass and peer, of as many shapes as ``seconds`` have room for."""
    found: dict[str, list[tuple[float, str]]] = {}
    end = time.perf_counter() + seconds
    seed = first
    while time.perf_counter() < end or seed == first:
        torch.manual_seed(seed)
        case = sampler(Draw(seed))
        for passes, calls in passes_of(case).items():
            calls = {name: call for name, call in calls.items() if name == "cv" or takes(call)}
            for peer, ratio in ratios_of(calls).items():
                found.setdefault(f"{passes}, {peer}", []).append((ratio, f"{case.what} (seed {seed})"))
        seed += 1
    return found


def passes_of(case: Case) -> dict[str, dict[str, Call]]:
    """The calls without gradients and, where there are ``inputs``, with them."""

    def without(call: Call) -> Call:
        def run() -> object:
            with torch.no_grad():
                return call()

        return run

    passes = {"forward": {name: without(call) for name, call in case.calls.items()}}
    if case.inputs:
        passes["with backward"] = {n: forward_and_backward(c, *case.inputs) for n, c in case.calls.items()}
    return passes


def takes(call: Call) -> bool:
    """Whether a peer can do this shape at all."""
    try:
        call()
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def ratios_of(calls: Mapping[str, Call]) -> dict[str, float]:
    """Time of each peer over ours, the first."""
    best = shortest(calls, 0.05, {})
    ours = next(iter(calls))
    if min((best[name] for name in calls if name != ours), default=0.0) < SUSPECT * best[ours]:
        best = shortest(calls, 0.5, best)
    return {name: best[name] / best[ours] for name in calls if name != ours}


def shortest(calls: Mapping[str, Call], seconds: float, best: Mapping[str, float]) -> dict[str, float]:
    """The shortest time of each call, in turns and for about ``seconds`` each; ``best`` is from before."""
    result = {name: best.get(name, float("inf")) for name in calls}
    repeats: dict[str, int] = {}
    spent = dict.fromkeys(calls, 0.0)
    while spent:
        for name in list(spent):
            count = repeats.get(name, 1)
            taken = timed(calls[name], count)
            if name in repeats or taken > seconds:  # the first call pays for caches and memory
                result[name] = min(result[name], taken / count)
            repeats[name] = max(1, min(100, int(seconds / 10 / max(taken / count, 1e-9))))
            spent[name] += taken
            if spent[name] > seconds:
                del spent[name]
    return result


def timed(call: Call, count: int) -> float:
    # On one thread its processor time, which others on the machine hardly change.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(count):
        call()
    return clock() - start


def row(case: str, ratios: list[tuple[float, str]]) -> dict[str, object]:
    ratios = sorted(ratios)
    return {
        "case": case,
        "shapes": len(ratios),
        "slower": sum(ratio < 1 for ratio, _ in ratios),
        "lowest": ratios[0][0],
        "median": statistics.median(ratio for ratio, _ in ratios),
        "lowest_shapes": [f"{ratio:.2f}: {what}" for ratio, what in ratios[:LOWEST]],
    }


def line(row: Mapping[str, object]) -> str:
    shapes = row["lowest_shapes"]
    assert isinstance(shapes, list)
    return (
        f"{row['case']}: {row['shapes']} shapes, {row['slower']} slower, lowest {row['lowest']:.2f}, "
        f"median {row['median']:.1f}; " + "; ".join(shapes)
    )


if __name__ == "__main__":
    main()
