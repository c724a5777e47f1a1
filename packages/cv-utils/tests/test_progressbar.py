"""The progress bar byte for byte, and the loops under it."""

import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cv.utils import ProgressBar, UsageError, progressbar, timer, track_iter_progress, track_progress


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timer, "perf_counter", clock)
    monkeypatch.setattr(progressbar, "perf_counter", clock)
    monkeypatch.setenv("COLUMNS", "80")
    return clock


def written(out: io.StringIO) -> str:
    """What was written since the last call."""
    text = out.getvalue()
    out.seek(0)
    out.truncate(0)
    return text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- a file of the caller's


def test_start() -> None:
    out = io.StringIO()
    ProgressBar(bar_width=20, file=out)
    assert written(out) == "completed: 0, elapsed: 0s"
    bar = ProgressBar(bar_width=20, start=False, file=out)
    assert written(out) == ""
    bar.start()
    assert written(out) == "completed: 0, elapsed: 0s"
    ProgressBar(10, bar_width=20, file=out)
    assert written(out) == f"[{' ' * 20}] 0/10, elapsed: 0s, ETA:"


def test_update(clock: Clock) -> None:
    out = io.StringIO()
    bar = ProgressBar(bar_width=20, file=out)
    clock.now += 1
    written(out)
    bar.update()
    assert written(out) == "completed: 1, elapsed: 1s, 1.0 tasks/s"

    bar = ProgressBar(10, bar_width=20, file=out)
    clock.now += 1
    written(out)
    bar.update()
    assert written(out) == f"\r[{'>' * 2 + ' ' * 18}] 1/10, 1.0 task/s, elapsed: 1s, ETA:     9s"
    bar.update(4)
    assert written(out) == f"\r[{'>' * 10 + ' ' * 10}] 5/10, 5.0 task/s, elapsed: 1s, ETA:     1s"
    clock.now += 1000
    bar.update(5)
    assert written(out) == f"\r[{'>' * 20}] 10/10, 0.0 task/s, elapsed: 1001s, ETA:     0s"


@pytest.mark.parametrize(("columns", "length"), [(80, 66), (60, 60), (30, 48), (10, 48)])
def test_the_width_follows_columns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int, length: int
) -> None:
    out = io.StringIO()
    bar = ProgressBar(10, bar_width=20, file=out)
    clock.now += 1
    written(out)
    monkeypatch.setenv("COLUMNS", str(columns))
    bar.update()
    assert len(written(out)) == length


def test_no_time_elapsed(clock: Clock) -> None:
    out = io.StringIO()
    ProgressBar(2, file=out).update()
    assert "1/2, inf task/s, elapsed: 0s, ETA:     0s" in out.getvalue()


def test_more_tasks_than_announced(clock: Clock) -> None:
    out = io.StringIO()
    bar = ProgressBar(2, bar_width=4, file=out)
    clock.now += 1
    written(out)
    bar.update(5)
    assert written(out) == "\r[>>>>] 5/2, 5.0 task/s, elapsed: 1s, ETA:     0s"


def test_update_starts_the_clock() -> None:
    out = io.StringIO()
    ProgressBar(2, start=False, file=out).update()
    assert out.getvalue().startswith("[")


@pytest.mark.parametrize("number", [0, -1])
def test_update_by_nothing(number: int) -> None:
    with pytest.raises(AssertionError, match=f"num_tasks must be positive, got {number}"):
        ProgressBar(2, file=io.StringIO()).update(number)
    with pytest.raises(UsageError):
        ProgressBar(2, file=io.StringIO()).update(number)


# --- standard output


def test_the_default_is_the_standard_output_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(1)
    assert bar.file is sys.stdout
    assert "0/1" in capsys.readouterr().out


def test_a_log_file_gets_lines_now_and_then(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    bar = ProgressBar(800, bar_width=10)
    for _ in range(800):
        clock.now += 0.125
        bar.update()
    bar.finish()
    lines = out.getvalue().splitlines()
    assert len(lines) == 11  # the start, and one in ten seconds
    assert lines[0] == "[          ] 0/800, elapsed: 0s, ETA:"
    assert lines[5] == "[>>>>>     ] 400/800, 8.0 task/s, elapsed: 50s, ETA:    50s"
    assert lines[-1] == "[>>>>>>>>>>] 800/800, 8.0 task/s, elapsed: 100s, ETA:     0s"
    assert not re.search(r"[^\n\x20-\x7e]", out.getvalue())


def test_a_log_file_gets_the_final_state_of_an_unknown_number(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    clock_before = clock.now
    for i in track_iter_progress(x for x in range(7)):
        clock.now = clock_before + i + 1
    assert out.getvalue() == "completed: 0, elapsed: 0s\ncompleted: 7, elapsed: 7s, 1.0 tasks/s\n"


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after this text."""
    lines = [""]
    for part in re.split(r"([\r\n])", text):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        else:
            column = 0 if lines[-1] == "" else column
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return lines


def test_a_notebook_is_like_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stdout", notebook)
    track_progress(str, range(3))
    assert "\r" in notebook.getvalue()


def test_a_stand_in_for_the_standard_output_may_lack_isatty(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tee:
        def write(self, text: str) -> None:
            parts.append(text)

        def flush(self) -> None: ...

    parts: list[str] = []
    monkeypatch.setattr(sys, "stdout", Tee())
    track_progress(str, range(3))
    assert len(parts) == 2
    assert "\r" not in "".join(parts)


def test_a_terminal_shows_one_line_that_changes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    bar = ProgressBar(100, bar_width=10)
    for _ in range(100):
        clock.now += 0.01
        bar.update()
    bar.finish()
    assert screen(out.getvalue()) == ["[>>>>>>>>>>] 100/100, 100.0 task/s, elapsed: 1s, ETA:     0s", ""]
    assert 15 <= out.getvalue().count("\r") <= 22  # not a hundred


def test_a_terminal_shows_an_unknown_number_in_one_line(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    for _ in track_iter_progress(iter(range(7))):
        clock.now += 1
    assert screen(out.getvalue()) == ["completed: 7, elapsed: 7s, 1.0 tasks/s", ""]


def test_a_shorter_state_leaves_nothing_of_the_longer(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    bar = ProgressBar(10)
    clock.now += 1
    bar.update()
    monkeypatch.setenv("COLUMNS", "30")
    clock.now += 1
    bar.update()
    assert screen(out.getvalue())[0].rstrip() == "[  ] 2/10, 1.0 task/s, elapsed: 2s, ETA:     8s"


# --- loops


def test_track_progress_byte_for_byte(clock: Clock) -> None:
    def work(task: int, factor: int = 1) -> int:
        clock.now += 1
        return task * factor

    expected = (
        "[   ] 0/3, elapsed: 0s, ETA:"
        "\r[>  ] 1/3, 1.0 task/s, elapsed: 1s, ETA:     2s"
        "\r[>> ] 2/3, 1.0 task/s, elapsed: 2s, ETA:     1s"
        "\r[>>>] 3/3, 1.0 task/s, elapsed: 3s, ETA:     0s\n"
    )
    out = io.StringIO()
    assert track_progress(work, [1, 2, 3], bar_width=3, file=out) == [1, 2, 3]
    assert written(out) == expected
    assert track_progress(work, (iter([1, 2, 3]), 3), bar_width=3, file=out, factor=2) == [2, 4, 6]
    assert written(out) == expected
    assert [work(task) for task in track_iter_progress([1, 2, 3], bar_width=3, file=out)] == [1, 2, 3]
    assert written(out) == expected


def test_generators_have_an_unknown_number() -> None:
    out = io.StringIO()
    assert track_progress(str, (x for x in range(3)), file=out) == ["0", "1", "2"]
    assert out.getvalue().startswith("completed: 0, elapsed: 0scompleted: 1")
    assert out.getvalue().endswith("\n")


def test_a_tuple_of_tasks_is_no_pair() -> None:
    out = io.StringIO()
    assert track_progress(str, (1, 2, 3), file=out) == ["1", "2", "3"]
    assert track_progress(str, ("ab", "cd"), file=out) == ["ab", "cd"]


def test_no_tasks() -> None:
    assert track_progress(str, [], file=io.StringIO()) == []


@pytest.mark.parametrize("tasks", [1, None, (1, 2, 3).__len__])
def test_tasks_that_are_none(tasks: Any) -> None:
    for track in (lambda: track_progress(str, tasks), lambda: track_iter_progress(tasks)):
        with pytest.raises(TypeError, match='"tasks" must be an iterable object or a'):
            track()


def test_an_exception_passes_and_the_line_is_ended() -> None:
    def fail(task: int) -> None:
        raise ValueError(f"task {task}")

    out = io.StringIO()
    with pytest.raises(ValueError, match="task 1"):
        track_progress(fail, [1, 2], file=out)
    assert out.getvalue().endswith("ETA:\n")


def test_leaving_the_loop_ends_the_line() -> None:
    def first(out: io.StringIO) -> Iterator[int]:
        for task in track_iter_progress([1, 2], file=out):
            yield task
            return

    out = io.StringIO()
    assert list(first(out)) == [1]
    assert out.getvalue().endswith("\n")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_on_a_real_terminal() -> None:
    import subprocess

    master, slave = os.openpty()
    code = "from cv.utils import track_progress; track_progress(str, range(50))"
    env = {**os.environ, "COLUMNS": "70"}
    subprocess.run([sys.executable, "-c", code], stdout=slave, env=env, check=True)
    os.close(slave)
    text = os.read(master, 65536).decode().replace("\r\n", "\n")
    os.close(master)
    lines = screen(text)
    assert len(lines) == 2
    assert re.fullmatch(r"\[>+\] 50/50, .* task/s, elapsed: \d+s, ETA:     0s", lines[0].rstrip())
