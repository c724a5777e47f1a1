"""Kill trainings at random moments until enough kills came, and look at how they end after resuming.

``python benchmarks/stress_resume.py [--kills 60] [--seed 0]``. The toy run of cv-runner's tests (shuffling,
augmentation, dropout, batch norm, momentum, clipping, accumulation over 3 iterations, a moving average,
evaluation with a best checkpoint) trains to its end once undisturbed. Then it is begun again, killed with
SIGKILL at random moments, resumed from ``latest.pth`` and so on, until it comes to its end. There, weights,
optimizer, generators, best score and counters must be equal to the undisturbed run's bit for bit; whatever
line any of the processes logged must be a line of the undisturbed run, and none may be missing. After every
kill, ``latest.pth`` must load. The cases take turns; of two ranks, one or both are killed, and the other one
must not hang. (At the end, Python may say that it cleaned up semaphores: those of killed processes.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "packages/cv-runner/tests"))
import dist_toy
import runner_toy
from test_resume import assert_equal, log_lines

from cv.fileio import atomic_write
from cv.runner import ClosureHook

SCALER = {"loss_scale": {"init_scale": 256.0, "growth_interval": 2}, "dtype": "float16"}
CASES: dict[str, dict[str, Any]] = {
    "epochs": {},
    "iterations": {"by_epoch": False},
    "epochs, 2 workers": {"workers": 2},
    "iterations, 2 workers, accumulation 4": {"by_epoch": False, "workers": 2, "accumulate": 4},
    "float16 with scaler": {"amp": SCALER},
    "bfloat16, iterations": {"amp": {"dtype": "bfloat16"}, "by_epoch": False},
    "saved in the background": {"checkpoint": {"background": True}},
    "saved every 4th iteration": {"interval": 4},
    "2 ranks": {"ranks": 2},
}
PAUSE = 0.01  # per iteration, so that not all moments are within a save


def train(work_dir: Path, started: Any, options: dict[str, Any]) -> None:
    """A process that trains to the end, from the latest checkpoint if there is one."""
    os.setsid()  # with its workers in a group of their own
    runner_toy.run_in(work_dir, True, started, {"sleep": PAUSE, **options})


def train_rank(work_dir: Path, started: Any, rank: int, ranks: int, meeting: Path) -> None:
    """One rank of a process group on gloo, likewise."""
    os.setsid()
    os.environ.update(CV_LIVE_LINE="0", RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - of the rank whose peer is killed
    os.dup2(sys.stderr.fileno(), 2)
    dist_toy.init_dist("pytorch", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    runner, loader = dist_toy.build(work_dir, world_size=ranks, dropout=0.5)
    runner.register_hook(ClosureHook("before_train_iter", lambda runner: time.sleep(PAUSE)))
    latest = work_dir / "latest.pth"
    if latest.exists():
        runner.resume(str(latest))
    started.set()
    runner.run([loader], [("train", 1)])
    state = {
        "model": runner.model.state_dict(),
        "optimizer": runner.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "counters": (runner.epoch, runner.iter),
    }
    with atomic_write(work_dir / f"final_{rank}.pt") as file:
        torch.save(state, file)
    dist_toy.dist.destroy_process_group()


class Job:
    """The process or processes of one start of a training."""

    def __init__(self, server: Any, work_dir: Path, options: dict[str, Any]) -> None:
        work_dir.mkdir(exist_ok=True)
        ranks = options.get("ranks", 1)
        starts = [server.Event() for _ in range(ranks)]
        if ranks == 1:
            arguments: list[tuple[Any, ...]] = [(work_dir, starts[0], options)]
        else:
            meeting = work_dir / f"meeting_{time.monotonic_ns()}"
            arguments = [(work_dir, starts[rank], rank, ranks, meeting) for rank in range(ranks)]
        target = train if ranks == 1 else train_rank
        self.processes = [server.Process(target=target, args=each) for each in arguments]
        for process in self.processes:
            process.start()
        for process, start in zip(self.processes, starts, strict=True):
            while not start.wait(0.1):
                if process.exitcode is not None:
                    raise SystemExit(f"{work_dir.name}: a process ended with {process.exitcode} at its start")

    def kill(self, choose: random.Random) -> bool:
        """Kill it, or one of its ranks; whether that came before its end."""
        victims = choose.choice([self.processes, [choose.choice(self.processes)]])
        alive = [process for process in victims if process.exitcode is None]
        for process in alive:
            process.kill()
        for process in self.processes:
            process.join(60)
            if process.exitcode is None:
                raise SystemExit("a rank hangs after its peer was killed")
        self.clean_up()
        return any(process.exitcode == -signal.SIGKILL for process in alive)

    def finish(self) -> bool:
        """Wait for its end; whether it ended well."""
        for process in self.processes:
            process.join(300)
        self.clean_up()
        return all(process.exitcode == 0 for process in self.processes)

    def clean_up(self) -> None:
        """Workers whose process was killed would look for it for some seconds more."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def end_of(work_dir: Path) -> dict[str, Any]:
    """The final states that a training left, by file name."""
    return {path.name: torch.load(path, weights_only=True) for path in sorted(work_dir.glob("final*.pt"))}


def place_of(work_dir: Path) -> str:
    """Where a kill came, as far as the files tell; what ``latest.pth`` points at must be whole."""
    latest = work_dir / "latest.pth"
    if list(work_dir.glob(".*.tmp")):
        place = "in the middle of a save"
    elif not latest.exists():
        return "before the first save"
    else:
        resume = torch.load(latest, weights_only=True)["resume"]
        place = "in the middle of an epoch" if resume["mid_epoch"] else "elsewhere"
    if latest.exists():
        torch.load(latest, weights_only=True)
    return place


def check_logs(lines: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Whatever was logged is what was to be logged, and all of it is there."""
    texts, wanted = ([json.dumps(line, sort_keys=True) for line in each] for each in (lines, expected))
    unknown, missing = set(texts) - set(wanted), set(wanted) - set(texts)
    if unknown or missing:
        raise SystemExit(f"log lines differ: {sorted(unknown)} in place of {sorted(missing)}")
    if texts[-1] != wanted[-1]:
        raise SystemExit(f"the last log line is {texts[-1]}, expected {wanted[-1]}")


def report(kills: Counter[str], places: Counter[str], runs: int) -> None:
    """What was done so far."""
    for counts in (kills, places):
        print(", ".join(f"{name}: {count}" for name, count in counts.most_common()))
    print(
        f"{sum(kills.values())} kills in {runs} runs; every run ended as the undisturbed one, bit for bit",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="go on until so many kills came")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    choose = random.Random(args.seed)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["torch._dynamo", "cv.runner", "cv.engine"])
    kills: Counter[str] = Counter()
    places: Counter[str] = Counter()
    runs = 0
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, tuple[dict[str, Any], list[dict[str, Any]], float]] = {}
        for name, options in CASES.items():
            whole = Path(folder, f"whole of {name}")
            begin = Job(server, whole, options)
            start = time.monotonic()
            if not begin.finish():
                raise SystemExit(f"{name}: the undisturbed run failed")
            expected[name] = end_of(whole), log_lines(whole), time.monotonic() - start
            shutil.rmtree(whole)
        while sum(kills.values()) < args.kills:
            for name, options in CASES.items():
                work_dir = Path(folder, f"{name} {runs}")
                state, lines, took = expected[name]
                for _ in range(choose.randint(2, 4)):
                    job = Job(server, work_dir, options)
                    time.sleep(choose.uniform(0, 0.7 * took))
                    if not job.kill(choose):
                        break
                    kills[name] += 1
                    places[place_of(work_dir)] += 1
                ended = end_of(work_dir).keys() == state.keys()
                if not ended and not Job(server, work_dir, options).finish():
                    raise SystemExit(f"{name}: the resumed run failed")
                assert_equal(end_of(work_dir), state, name)
                check_logs(log_lines(work_dir), lines)
                if list(work_dir.glob(".*.tmp")):
                    raise SystemExit(f"{name}: unfinished files are left")
                shutil.rmtree(work_dir)
                runs += 1
            report(kills, places, runs)


if __name__ == "__main__":
    main()
