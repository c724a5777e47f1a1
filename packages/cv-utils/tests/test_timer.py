"""Timers, on a clock that only moves when told to."""

from typing import Any

import pytest

from cv.utils import Timer, TimerError, check_time, timer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(timer, "perf_counter", clock)
    return clock


def test_since_start_and_since_last_check(clock: Any) -> None:
    measured = Timer()
    assert measured.is_running
    clock.now += 1
    assert measured.since_start() == 1
    clock.now += 2
    assert measured.since_last_check() == 2
    assert measured.since_last_check() == 0
    clock.now += 4
    assert measured.since_start() == 7


def test_start_again_begins_a_new_stretch_only(clock: Any) -> None:
    measured = Timer()
    clock.now += 1
    measured.start()
    clock.now += 1
    assert measured.since_last_check() == 1
    assert measured.since_start() == 2


def test_not_running() -> None:
    measured = Timer(start=False)
    assert not measured.is_running
    for ask in (measured.since_start, measured.since_last_check):
        with pytest.raises(TimerError, match="timer is not running"):
            ask()
    measured.start()
    assert measured.is_running


def test_context(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with Timer() as measured:
        clock.now += 1
    assert capsys.readouterr().out == "1.000\n"
    assert not measured.is_running
    with Timer(print_tmpl="time: {:.1f}s"):
        clock.now += 2.5
    assert capsys.readouterr().out == "time: 2.5s\n"


def test_the_real_clock_runs() -> None:
    measured = Timer()
    assert 0 <= measured.since_start() <= measured.since_start()


def test_check_time(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_timers", {})
    assert check_time("a") == 0
    clock.now += 1
    assert check_time("b") == 0
    assert check_time("a") == 1
    clock.now += 1
    assert check_time("a") == 1
    assert check_time("b") == 1


def test_timer_error() -> None:
    assert TimerError("text").message == "text"
