"""Schedules: pure functions from progress to a value, for learning rates and momenta alike.

Every function takes the base value and the progress first and knows nothing of runners or optimizers.
Progress counts finished epochs or iterations: 0 during the first one, ``max_progress - 1`` during the
last. The hook families in :mod:`cv.runner.hooks.lr_updater` and
:mod:`cv.runner.hooks.momentum_updater` only fetch progress and write the result.

Sources: cosine annealing and warm restarts, Loshchilov & Hutter 2017 (SGDR); cyclical and one-cycle
policies, Smith 2017 and Smith & Topin 2018; linear warm-up, Goyal et al. 2017.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

Warmup = Literal["constant", "linear", "exp"]
Anneal = Callable[[float, float, float], float]
#: One stretch of a piecewise curve: (last progress of it, value at its start, value at its end).
Phase = tuple[float, float, float]


def annealing_cos(start: float, end: float, factor: float, weight: float = 1) -> float:
    """Half a cosine from ``start`` (factor 0) to ``end`` (factor 1).

    Args:
        start: value at factor 0 (times ``weight``, above ``end``).
        end: value at factor 1.
        factor: position on the curve, 0 to 1.
        weight: scales the height above ``end``; restarts use it.
    """
    return end + 0.5 * weight * (start - end) * (math.cos(math.pi * factor) + 1)


def annealing_linear(start: float, end: float, factor: float) -> float:
    """A straight line from ``start`` (factor 0) to ``end`` (factor 1)."""
    return start + (end - start) * factor


def anneal_function(strategy: str) -> Anneal:
    """The annealing function called ``'cos'`` or ``'linear'``.

    Raises:
        ValueError: for any other name.
    """
    known: dict[str, Anneal] = {"cos": annealing_cos, "linear": annealing_linear}
    if strategy not in known:
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', got {strategy!r}")
    return known[strategy]


# --------------------------------------------------------------------------------------- warm-up


def check_warmup(warmup: str | None, length: int, ratio: float) -> None:
    """Validate warm-up settings.

    Raises:
        ValueError: ``warmup`` is no known kind.
        AssertionError: ``length`` or ``ratio`` is out of range (the documented type of that error).
    """
    if warmup is None:
        return
    if warmup not in get_args(Warmup):
        raise ValueError(f"warmup must be None, 'constant', 'linear' or 'exp', got {warmup!r}")
    if length <= 0:
        raise AssertionError(f"warmup_iters must be a positive integer, got {length}")
    if not 0 < ratio <= 1.0:
        raise AssertionError(f"warmup_ratio must be in (0, 1], got {ratio}")


def warmup_factor(kind: str, progress: int, length: int, ratio: float) -> float:
    """What the regular value is multiplied with while warming up (momenta are divided by it).

    Args:
        kind: ``'constant'`` (``ratio`` throughout), ``'linear'`` (``ratio`` to 1 along a line) or
            ``'exp'`` (``ratio`` to 1, the exponent falling along a line).
        progress: finished iterations, below ``length``.
        length: iterations that warm-up lasts.
        ratio: factor at progress 0, in (0, 1].
    """
    if kind == "constant":
        return ratio
    left = 1 - progress / length
    if kind == "linear":
        return 1 - left * (1 - ratio)
    if kind == "exp":
        return float(ratio**left)
    raise ValueError(f"warmup must be 'constant', 'linear' or 'exp', got {kind!r}")


# -------------------------------------------------------------------------------------- policies


def check_steps(step: int | Sequence[int]) -> None:
    """Validate the ``step`` setting of the step policy.

    Raises:
        TypeError: neither an int nor a list of ints.
        AssertionError: an int that is not positive.
    """
    if isinstance(step, bool) or not isinstance(step, (int, list, tuple)):
        raise TypeError(f"step must be an int or a list of ints, got {type(step).__name__}")
    steps = [step] if isinstance(step, int) else step
    if not all(isinstance(s, int) for s in steps):
        raise TypeError(f"step must hold ints only, got {step!r}")
    if any(s <= 0 for s in steps):
        raise AssertionError(f"step must be positive, got {step!r}")


def step(
    base: float, progress: int, steps: int | Sequence[int], gamma: float, minimum: float | None = None
) -> float:
    """``base · gamma^n``; n counts whole periods (int) or milestones reached (sequence)."""
    count = progress // steps if isinstance(steps, int) else bisect.bisect_right(sorted(steps), progress)
    value = float(base * gamma**count)
    return value if minimum is None else max(value, minimum)


def exp(base: float, progress: int, gamma: float) -> float:
    """``base · gamma^progress``."""
    return float(base * gamma**progress)


def poly(base: float, progress: int, max_progress: int, power: float = 1.0, minimum: float = 0.0) -> float:
    """``(base - minimum) · (1 - progress / max_progress)^power + minimum``."""
    return float((base - minimum) * (1 - progress / max_progress) ** power + minimum)


def inv(base: float, progress: int, gamma: float, power: float = 1.0) -> float:
    """``base · (1 + gamma · progress)^-power``."""
    return float(base * (1 + gamma * progress) ** -power)


def check_target(minimum: float | None, ratio: float | None, name: str) -> None:
    """Exactly one of ``min_<name>`` and ``min_<name>_ratio`` must be given.

    Raises:
        AssertionError: both or neither are given (the documented type of that error).
    """
    if (minimum is None) == (ratio is None):
        raise AssertionError(
            f"exactly one of min_{name} and min_{name}_ratio must be given, got {minimum!r} and {ratio!r}"
        )


def target(base: float, minimum: float | None, ratio: float | None) -> float:
    """The value at the end: ``base · ratio`` where a ratio was given, else ``minimum``."""
    if ratio is not None:
        return base * ratio
    assert minimum is not None
    return minimum


def cosine(base: float, progress: int, max_progress: int, end: float) -> float:
    """Half a cosine from ``base`` to ``end`` over the whole run."""
    return annealing_cos(base, end, progress / max_progress)


def flat_cosine(base: float, progress: int, max_progress: int, end: float, start_percent: float) -> float:
    """``base`` for the first ``start_percent`` (0 to 1) of the run, then half a cosine to ``end``."""
    start = round(max_progress * start_percent)
    if progress < start:
        return base
    return annealing_cos(base, end, (progress - start) / max(max_progress - start, 1))


def linear(base: float, progress: int, max_progress: int, end: float) -> float:
    """A line from ``base`` to ``end`` over the whole run."""
    return annealing_linear(base, end, progress / max_progress)


def period_index(progress: int, cumulative_periods: Sequence[int]) -> int:
    """Which period ``progress`` lies in; ``cumulative_periods`` are the periods' exclusive ends.

    Raises:
        ValueError: progress lies behind the last period.
    """
    index = bisect.bisect_right(cumulative_periods, progress)
    if index == len(cumulative_periods):
        raise ValueError(
            f"progress {progress} exceeds the cumulative periods {list(cumulative_periods)}: "
            "the periods of the schedule must add up to the length of the run at least"
        )
    return index


def cosine_restart(
    base: float,
    progress: int,
    periods: Sequence[int],
    weights: Sequence[float],
    end: float,
) -> float:
    """SGDR: one cosine per period, from ``weight · (base - end) + end`` down to ``end``."""
    ends = list(itertools.accumulate(periods))
    index = period_index(progress, ends)
    factor = (progress - (ends[index] - periods[index])) / periods[index]
    return annealing_cos(base, end, min(factor, 1), weights[index])


def piecewise(progress: float, phases: Sequence[Phase], anneal: Anneal) -> float:
    """The value at ``progress`` on a chain of annealing curves; behind the last it stays at its end."""
    start = 0.0
    for end, first, last in phases:
        if progress <= end:
            return anneal(first, last, (progress - start) / (end - start) if end > start else 1.0)
        start = end
    return phases[-1][2]


def one_cycle_phases(
    total_steps: int, pct_start: float, low: float, high: float, final: float, three_phase: bool
) -> list[Phase]:
    """One-cycle: up from ``low`` to ``high`` for ``pct_start`` of the steps, then down to ``final``.

    With ``three_phase`` the way down first mirrors the way up and then falls from ``low`` to ``final``.
    """
    up: Phase = (pct_start * total_steps - 1, low, high)
    if not three_phase:
        return [up, (total_steps - 1, high, final)]
    return [up, (2 * pct_start * total_steps - 2, high, low), (total_steps - 1, low, final)]


def cyclic(
    base: float,
    progress: int,
    cycle_length: int,
    up_length: int,
    ratios: tuple[float, float],
    gamma: float,
    anneal: Anneal,
) -> float:
    """Cycles from ``base`` to ``base · ratios[0]`` and down to ``base · ratios[1]``.

    ``gamma`` (0, 1] shrinks the swing above ``base`` with every finished cycle:
    the peak of cycle n is ``base · (1 + gamma^n · (ratios[0] - 1))``.
    """
    cycle, position = divmod(progress, cycle_length)
    peak = 1 + gamma**cycle * (ratios[0] - 1)
    if position < up_length:
        return anneal(base, base * peak, position / up_length)
    return anneal(base * peak, base * ratios[1], (position - up_length) / (cycle_length - up_length))
