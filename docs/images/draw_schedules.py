"""Draws ``schedules.png``, the curves of the guide of cv.runner, from ``cv.runner.schedules`` itself.

``python docs/images/draw_schedules.py`` (needs matplotlib).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from cv.runner import schedules as s

LENGTH = 100
Curve = Callable[[int], float]


def one_cycle(low: float, high: float, final: float, three_phase: bool = False) -> Curve:
    phases = s.one_cycle_phases(LENGTH, 0.3, low, high, final, three_phase)
    return lambda t: s.piecewise(t, phases, s.annealing_cos)


def cyclic(times: int, ratios: tuple[float, float], gamma: float = 1.0) -> Curve:
    length = LENGTH // times
    return lambda t: s.cyclic(0.1, t, length, int(0.4 * length), ratios, gamma, s.annealing_cos)


def warmed(kind: str) -> Curve:
    """A cosine, the first 20 iterations of which warm up from a tenth."""

    def value(t: int) -> float:
        regular = s.cosine(1, t, LENGTH, 0)
        return regular * s.warmup_factor(kind, t, 20, 0.1) if t < 20 else regular

    return value


PANELS: dict[str, dict[str, Curve]] = {
    "fixed, step, exp": {
        "fixed": lambda t: 1,
        "step=[40, 70], gamma=0.4": lambda t: s.step(1, t, [40, 70], 0.4),
        "exp, gamma=0.97": lambda t: s.exp(1, t, 0.97),
    },
    "poly, inv": {
        "poly, power=1": lambda t: s.poly(1, t, LENGTH, 1.0),
        "poly, power=2, min_lr=0.1": lambda t: s.poly(1, t, LENGTH, 2.0, 0.1),
        "inv, gamma=0.05": lambda t: s.inv(1, t, 0.05),
    },
    "annealing": {
        "CosineAnnealing": lambda t: s.cosine(1, t, LENGTH, 0),
        "LinearAnnealing": lambda t: s.linear(1, t, LENGTH, 0),
        "FlatCosineAnnealing, start_percent=0.5": lambda t: s.flat_cosine(1, t, LENGTH, 0, 0.5),
    },
    "CosineRestart": {
        "periods=[20, 30, 50]": lambda t: s.cosine_restart(1, t, [20, 30, 50], [1, 1, 1], 0),
        "…, restart_weights=[1, 0.7, 0.4]": lambda t: s.cosine_restart(1, t, [20, 30, 50], [1, 0.7, 0.4], 0),
    },
    "cyclic (lr=0.1), OneCycle (max_lr=1)": {
        "cyclic, target_ratio=(10, 1e-4)": cyclic(1, (10, 1e-4)),
        "cyclic_times=4, gamma=0.6": cyclic(4, (10, 1e-4), 0.6),
        "OneCycle": one_cycle(1 / 25, 1, 1e-4 / 25),
        "OneCycle, three_phase": one_cycle(1 / 25, 1, 1e-4 / 25, three_phase=True),
    },
    "warm-up over 20 iterations, ratio 0.1": {
        "constant": warmed("constant"),
        "linear": warmed("linear"),
        "exp": warmed("exp"),
    },
}


def main() -> None:
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), sharex=True, layout="constrained")
    for axis, (title, curves) in zip(axes.flat, PANELS.items(), strict=True):
        for name, curve in curves.items():
            # Drawn as steps: a value holds for its whole epoch or iteration.
            values = [curve(t) for t in range(LENGTH)]
            axis.step(range(LENGTH), values, where="post", label=name, linewidth=1.6)
        axis.set_title(title, fontsize=11)
        axis.set_ylim(-0.03, 1.5)  # room for the legend
        axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper right")
    for axis in axes[1]:
        axis.set_xlabel("progress (epochs or iterations)")
    for axis in axes[:, 0]:
        axis.set_ylabel("learning rate")
    figure.savefig(Path(__file__).with_name("schedules.png"), dpi=90)


if __name__ == "__main__":
    main()
