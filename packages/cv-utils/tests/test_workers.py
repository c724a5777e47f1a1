"""track_parallel_progress with real processes: results, faults, Ctrl-C, start methods.

Scripts run in an interpreter of their own: functions of this module could not be found by spawned processes.
"""

import io
import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from cv.utils import track_parallel_progress

START_METHODS = ["fork", "spawn", "forkserver"]


def script(folder: Path, body: str, method: str = "fork") -> list[str]:
    """Write a script whose body runs under the main guard; the command that runs it."""
    functions = """
        import json, multiprocessing, os, signal, sys, time
        from cv.utils import track_parallel_progress

        STATE = None

        def square(x):
            return x * x

        def slow(x):
            time.sleep(0.05 if x % 2 else 0.01)
            return x

        def fail(x):
            if x == 3:
                raise KeyError("task three")
            return x

        class Odd(Exception):
            def __init__(self, a, b):
                super().__init__("odd error")

        def odd(x):
            raise Odd(1, 2)

        def die(x):
            os.kill(os.getpid(), signal.SIGKILL)

        def die_and_leave_a_child(x):
            if os.fork() == 0:
                time.sleep(8)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

        def set_state(a, b):
            global STATE
            STATE = a + b

        def read_state(x):
            return STATE

        def sleep_and_tell(folder):
            with open(os.path.join(folder, str(os.getpid())), "w"):
                pass
            time.sleep(60)
    """
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    text = (
        f"{textwrap.dedent(functions)}\nif __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n{indented}"
    )
    path = folder / "script.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def run(folder: Path, body: str, method: str = "fork", **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        script(folder, body, method), capture_output=True, text=True, timeout=60, check=False, **options
    )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# --- results


@pytest.mark.parametrize("method", START_METHODS)
def test_results_and_order(tmp_path: Path, method: str) -> None:
    body = """
        tasks = list(range(23))
        result = {
            "ordered": track_parallel_progress(slow, tasks, 2, file=sys.stderr),
            "chunks": track_parallel_progress(square, (iter(tasks), 23), 2, chunksize=5, file=sys.stderr),
            "generator": track_parallel_progress(square, (x for x in tasks), 2, file=sys.stderr),
            "unordered": sorted(track_parallel_progress(slow, tasks, 2, keep_order=False, file=sys.stderr)),
            "state": track_parallel_progress(read_state, [0], 1, set_state, (1, 2), file=sys.stderr),
            "none": track_parallel_progress(square, [], 2, file=sys.stderr),
        }
        print(json.dumps(result))
    """
    done = run(tmp_path, body, method)
    assert done.returncode == 0, done.stderr
    tasks = list(range(23))
    squares = [x * x for x in tasks]
    assert json.loads(done.stdout) == {
        "ordered": tasks,
        "chunks": squares,
        "generator": squares,
        "unordered": tasks,
        "state": [3],
        "none": [],
    }


def test_the_bar() -> None:
    out = io.StringIO()
    assert track_parallel_progress(math.sqrt, [1, 4, 9], 2, bar_width=3, file=out) == [1, 2, 3]
    assert out.getvalue().startswith("[   ] 0/3, elapsed: 0s, ETA:\r[>  ] 1/3, ")
    assert out.getvalue().count("\r") == 3
    assert out.getvalue().endswith("ETA:     0s\n")


def test_skip_first_leaves_the_first_tasks_out_of_the_count() -> None:
    out = io.StringIO()
    assert track_parallel_progress(abs, range(10), 2, chunksize=2, skip_first=True, file=out) == list(
        range(10)
    )
    assert out.getvalue().startswith(f"[{' ' * 50}] 0/6, ")
    assert " 6/6, " in out.getvalue()
    out = io.StringIO()
    assert track_parallel_progress(abs, range(3), 2, chunksize=2, skip_first=True, file=out) == [0, 1, 2]
    assert " 3/3, " in out.getvalue()  # too few to skip any


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken = []

    def endless() -> Any:
        for i in range(10_000_000):
            taken.append(i)
            yield "x" if i == 5 else i

    with pytest.raises(TypeError):
        track_parallel_progress(math.sqrt, endless(), 2, file=io.StringIO())
    assert len(taken) < 100


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"tasks": 1}, TypeError),
        ({"initargs": [1]}, TypeError),
        ({"nproc": 0}, ValueError),
        ({"chunksize": 0}, ValueError),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        track_parallel_progress(abs, **{"tasks": [1], "nproc": 1, "file": io.StringIO(), **arguments})


# --- faults


@pytest.mark.parametrize("method", START_METHODS)
def test_an_exception_reaches_the_caller_with_its_traceback(tmp_path: Path, method: str) -> None:
    body = """
        try:
            track_parallel_progress(fail, range(1000), 2)
        finally:
            print("left:", multiprocessing.active_children())
    """
    done = run(tmp_path, body, method)
    assert done.returncode == 1
    assert "left: []" in done.stdout
    assert "KeyError: 'task three'" in done.stderr
    assert "in fail" in done.stderr  # the frame of the worker
    assert 'raise KeyError("task three")' in done.stderr


def test_an_exception_that_cannot_travel(tmp_path: Path) -> None:
    done = run(tmp_path, "track_parallel_progress(odd, range(10), 2)")
    assert done.returncode == 1
    assert "WorkerError: Odd: odd error" in done.stderr
    assert "in odd" in done.stderr


def test_tasks_and_results_that_cannot_travel() -> None:
    for tasks, func in (([lambda: 1], id), ([1], lambda x: lambda: x)):
        with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
            track_parallel_progress(func, tasks, 1, file=io.StringIO())


def test_large_tasks_and_results_do_not_block_each_other() -> None:
    tasks = [bytes([i]) * 3_000_000 for i in range(8)]
    assert track_parallel_progress(bytes.upper, tasks, 2, file=io.StringIO()) == [t.upper() for t in tasks]


def test_an_iterable_that_fails() -> None:
    def tasks() -> Any:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        track_parallel_progress(abs, tasks(), 2, file=io.StringIO())
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_does_not_hang_the_caller(tmp_path: Path) -> None:
    done = run(tmp_path, "track_parallel_progress(die, range(10), 2)")
    assert done.returncode == 1
    assert "WorkerError: a worker process died of SIGKILL (out of memory?) at task " in done.stderr


def test_a_process_that_dies_while_its_child_holds_the_pipe(tmp_path: Path) -> None:
    command = script(tmp_path, "track_parallel_progress(die_and_leave_a_child, range(10), 2)")
    with (tmp_path / "errors").open("w+") as errors:  # a pipe would be held by the child as well
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, timeout=60, check=False)
        errors.seek(0)
        assert "WorkerError: a worker process died of SIGKILL" in errors.read()
    assert done.returncode == 1


def test_a_process_that_exits(tmp_path: Path) -> None:
    done = run(tmp_path, "track_parallel_progress(sys.exit, range(3, 9), 1, chunksize=2)")
    assert done.returncode == 1
    assert "WorkerError: a worker process died with exit code 3 at one of the tasks 0 to 1" in done.stderr


def test_a_failing_initializer(tmp_path: Path) -> None:
    done = run(tmp_path, "track_parallel_progress(square, range(10), 2, fail, (3,))")
    assert done.returncode == 1
    assert "KeyError: 'task three'" in done.stderr
    assert "in fail" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("whole_group", [True, False], ids=["ctrl-c", "parent-only"])
def test_ctrl_c_leaves_no_processes(tmp_path: Path, method: str, whole_group: bool) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    command = script(tmp_path, f"track_parallel_progress(sleep_and_tell, [{str(pids)!r}] * 8, 2)", method)
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell runs in the background ignores Ctrl-C, and the tests may run there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert wait_until(lambda: len(list(pids.iterdir())) == 2)
        workers = [int(file.name) for file in pids.iterdir()]
        if whole_group:  # what a terminal does
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1  # the workers are silent
    assert wait_until(lambda: not any(map(alive, workers)), 5)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("method", START_METHODS)
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, method: str) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    command = script(tmp_path, f"track_parallel_progress(sleep_and_tell, [{str(pids)!r}] * 8, 2)", method)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(list(pids.iterdir())) == 2)
        workers = [int(file.name) for file in pids.iterdir()]
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not any(map(alive, workers)), 10)
