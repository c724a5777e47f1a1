"""Schedules against torch's own schedulers where one exists, and against closed formulas otherwise."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from cv.runner import schedules


def torch_curve(make, steps, lr=0.3):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    curve = []
    for _ in range(steps):
        curve.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return curve


def curve(policy, steps=40, base=0.3):
    return [policy(base, t) for t in range(steps)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda b, t: schedules.step(b, t, 7, 0.5), lambda o: lr_scheduler.StepLR(o, 7, 0.5)),
        (
            lambda b, t: schedules.step(b, t, [20, 5, 33], 0.1),
            lambda o: lr_scheduler.MultiStepLR(o, [5, 20, 33], 0.1),
        ),
        (lambda b, t: schedules.exp(b, t, 0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
        (
            lambda b, t: schedules.poly(b, t, 40, 0.9),
            lambda o: lr_scheduler.PolynomialLR(o, 40, 0.9),
        ),
        (
            lambda b, t: schedules.cosine(b, t, 40, 0.01),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.01),
        ),
        (
            lambda b, t: schedules.linear(b, t, 40, 0.03),
            lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, 40),
        ),
        (
            lambda b, t: schedules.cosine_restart(b, t, [10, 10, 20], [1, 1, 1], 0.02),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 1, 0.02),
        ),
    ],
)
def test_agrees_with_torch(ours, theirs):
    steps = 20 if "Warm" in str(theirs.__code__.co_names) else 40
    np.testing.assert_allclose(curve(ours, steps), torch_curve(theirs, steps), rtol=1e-9)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize(("total", "pct"), [(40, 0.3), (37, 0.25), (40, 0.45)])
def test_one_cycle_agrees_with_torch(three_phase, strategy, total, pct):
    expected = torch_curve(
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.5, total, pct_start=pct, anneal_strategy=strategy, cycle_momentum=False,
            div_factor=20, final_div_factor=1e3, three_phase=three_phase,
        ),
        total - 1,
    )  # fmt: skip
    phases = schedules.one_cycle_phases(total, pct, 1, 20, 1e-3, three_phase)
    anneal = schedules.anneal_function(strategy)
    ours = [0.5 / 20 * schedules.piecewise(t, phases, anneal) for t in range(total - 1)]
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_closed_formulas():
    assert schedules.inv(0.3, 5, 0.1, 2.0) == pytest.approx(0.3 / 1.5**2)
    assert schedules.step(1.0, 100, 1, 0.5, minimum=0.25) == 0.25
    assert schedules.flat_cosine(0.3, 29, 40, 0.1, 0.75) == 0.3
    assert schedules.flat_cosine(0.3, 35, 40, 0.1, 0.75) == pytest.approx(0.2)  # half-way down
    assert schedules.cosine_restart(1.0, 5, [10, 10], [1, 0.5], 0.0) == pytest.approx(0.5)
    assert schedules.cosine_restart(1.0, 15, [10, 10], [1, 0.5], 0.0) == pytest.approx(0.25)


def test_flat_cosine_that_never_falls():
    assert curve(lambda b, t: schedules.flat_cosine(b, t, 10, 0.0, 1.0), 10) == [0.3] * 10


def test_step_counts_a_milestone_from_its_own_epoch_on():
    assert [schedules.step(1, t, [2, 4], 0.1) for t in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_beyond_the_last_period_is_an_error():
    with pytest.raises(ValueError, match=r"progress 20 exceeds the cumulative periods \[10, 20\]"):
        schedules.cosine_restart(1.0, 20, [10, 10], [1, 1], 0.0)


@given(
    st.floats(0.01, 1),
    st.integers(1, 50),
    st.sampled_from(["constant", "linear", "exp"]),
)
def test_warmup_begins_at_its_ratio_and_never_falls(ratio, length, kind):
    factors = [schedules.warmup_factor(kind, t, length, ratio) for t in range(length)]
    assert factors[0] == pytest.approx(ratio)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(factors))
    assert max(factors) <= 1 + 1e-12
    if kind != "constant":
        assert schedules.warmup_factor(kind, length, length, ratio) == pytest.approx(1)


@given(
    st.integers(2, 60),
    st.floats(0.1, 0.9),
    st.floats(1.5, 20),
    st.floats(0.5, 1),
    st.sampled_from(["cos", "linear"]),
)
def test_cyclic_peaks_where_it_says(length, up, peak, gamma, strategy):
    up_length = int(up * length)
    anneal = schedules.anneal_function(strategy)
    values = [
        schedules.cyclic(1.0, t, length, up_length, (peak, 1e-3), gamma, anneal) for t in range(3 * length)
    ]
    for cycle in range(3):
        top = max(values[cycle * length : (cycle + 1) * length])
        assert top == pytest.approx(1 + gamma**cycle * (peak - 1))
        if up_length:
            assert values[cycle * length] == 1.0


def test_annealing_ends_where_it_should():
    for anneal in (schedules.annealing_cos, schedules.annealing_linear):
        assert anneal(3.0, 1.0, 0) == pytest.approx(3.0)
        assert anneal(3.0, 1.0, 1) == pytest.approx(1.0)
        assert anneal(3.0, 1.0, 0.5) == pytest.approx(2.0)
    assert schedules.annealing_cos(3.0, 1.0, 0, weight=0.5) == pytest.approx(2.0)
    assert schedules.annealing_cos(1.0, 0.0, 1 / 3) == pytest.approx((math.cos(math.pi / 3) + 1) / 2)


def test_errors_name_the_parameter():
    with pytest.raises(ValueError, match="anneal_strategy must be one of"):
        schedules.anneal_function("square")
    with pytest.raises(ValueError, match="warmup must be None, 'constant'"):
        schedules.check_warmup("slow", 1, 0.1)
    with pytest.raises(AssertionError, match="warmup_iters must be a positive integer, got 0"):
        schedules.check_warmup("linear", 0, 0.1)
    with pytest.raises(AssertionError, match=r"warmup_ratio must be in \(0, 1\], got 0"):
        schedules.check_warmup("linear", 1, 0)
    with pytest.raises(TypeError, match="step must be an int or a list of ints"):
        schedules.check_steps("3")
    with pytest.raises(AssertionError, match="step must be positive"):
        schedules.check_steps([3, 0])
