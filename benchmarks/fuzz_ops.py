"""Call every operator with random arguments, right ones and wrong ones; stop at nothing, report every crash.

    python benchmarks/fuzz_ops.py --seconds 600

Each case takes valid arguments of one operator, layer or compiled operator (``fuzz_ops_samplers.py``) and
spoils none to three of them (``fuzz_ops_spoil.py``): another rank, dtype or device, NaN, infinite, huge,
negative and fractional values, zero and huge sizes, other memory layouts, indices out of range, arrays that
torch cannot share. A case is made from its number alone, so that a failure is repeated with
``--first N --cases 1``. Calls happen in a child process with a limit on its address space and on the time
of a case. Allowed outcomes are a result (then its gradient is taken too) and an exception with a text. A
crash, a hang, or an exception that users should not see (``AttributeError``, ``IndexError`` … from inside) is
a failure. A case that does not end is counted as slow, and no failure, if an argument has more elements than
can be read in that time: an expanded tensor takes no memory.

Under AddressSanitizer (``nox -s sanitize -- benchmarks/fuzz_ops.py``) accesses outside of a tensor crash too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import torch
from fuzz_ops_samplers import SAMPLERS
from fuzz_ops_spoil import spoil
from torch import Tensor

SLOW_ELEMENTS = 2**32  # of an argument: reading them may take longer than that
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
        case = run_child(case, last, end, args.limit, names, outcomes, failures)
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
    parser.add_argument("--limit", type=float, default=20, help="seconds of a case; more on a busy machine")
    parser.add_argument("--cases", type=int, default=2**62)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--ops", nargs="*", default=[], help="only these operators")
    return parser.parse_args()


def run_child(
    case: int,
    last: int,
    end: float,
    limit: float,
    names: list[str],
    outcomes: Counter[str],
    failures: list[dict[str, Any]],
) -> int:
    """Cases from ``case`` on in a new process, until it dies or the work is done; gives the next case."""
    begun, elements = "", 0

    def report(what: str) -> None:
        name = names[case % len(names)]
        failures.append({"case": case, "operator": name, "what": what, "arguments": begun})

    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    child = context.Process(target=work, args=(theirs, case, last, names))
    child.start()
    theirs.close()
    try:
        while time.monotonic() < end:
            if not ours.poll(limit):
                if elements < SLOW_ELEMENTS:
                    report("hangs")
                else:
                    outcomes["slow"] += 1
                return case + 1
            try:
                outcome, wrong = ours.recv()
            except EOFError:
                child.join()
                report(f"the process died ({child.exitcode})")
                return case + 1
            if outcome == "end":
                return last
            if outcome == "begin":
                begun, elements = wrong
                continue
            outcomes[outcome] += 1
            if wrong:
                report(wrong)
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
        connection.send(("begin", ("while the arguments were made", 0)))
        function, args = make_case(case, names[case % len(names)])
        connection.send(("begin", (show(args), max((t.numel() for t in tensors(args)), default=0))))
        connection.send(run_case(function, args))
    connection.send(("end", None))


def make_case(case: int, name: str) -> tuple[Any, list[Any]]:
    """The function and the arguments of a case."""
    chance = random.Random(case)
    torch.manual_seed(case)
    function, args = SAMPLERS[name](chance)
    spoiled = chance.choice([0, 1, 1, 1, 2, 3])
    for index in chance.sample(range(len(args)), min(spoiled, len(args))):
        args[index] = spoil(args[index], chance)
    return function, args


def run_case(function: Any, args: list[Any]) -> tuple[str, str | None]:
    """Outcome of one case, and what is wrong with it."""
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
        return "failure", f"{type(error).__name__} without a text"
    except Exception as error:
        # Of a compiled operator: what the dispatcher raises for a device or layout without a kernel, and what
        # the function that tells shapes without data does for a meta tensor of another rank.
        compiled = isinstance(function, torch._ops.OpOverload)
        if compiled and isinstance(error, (NotImplementedError, IndexError)):
            return type(error).__name__, None
        return "failure", f"{type(error).__name__}: {error}"


def show(args: list[Any]) -> str:
    return ", ".join(f"{a.dtype}{tuple(a.shape)}" if hasattr(a, "shape") else repr(a)[:60] for a in args)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


if __name__ == "__main__":
    main()
