"""Builds cv-ops on a machine with an NVIDIA GPU, tests and measures it there. One command, no network:

    python3 packages/cv-ops/tools/device.py OUT

Needs from the machine: python3 with torch, numpy, pytest, hypothesis, pyyaml; cmake, ninja, nvcc and a C++
compiler; torchvision and compute-sanitizer are used where present. Nothing is installed: the pure packages
are used from their source folders, cv-ops from a staging folder that the build fills.

Steps, all by default, or some by --steps: build (kept in packages/cv-ops/build/device and incremental),
test (the whole cv-ops suite, CUDA cases included), sanitize (compute-sanitizer memcheck over the float32
CUDA cases), bench. OUT receives the logs, tests.xml, conformance.json (its cuda cells belong into
docs/conformance.json), one JSON per benchmark, summary.md and status.json.
--cpu runs the same flow without a GPU, to check this script itself.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
STEPS = ("build", "test", "sanitize", "bench")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--cpu", action="store_true", help="no GPU: build the CPU half, run CPU tests and benchmarks"
    )
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", default="", help="pytest -k expression for the test step")
    parser.add_argument("--bench", default="", help="words: only benchmarks whose name holds one of them")
    options = parser.parse_args()
    wanted = options.steps.split(",")
    unknown = set(wanted) - set(STEPS)
    if unknown:
        parser.error(f"--steps: unknown {sorted(unknown)}, known {STEPS}")
    session = Session(options)
    for step in STEPS:
        if step in wanted and session.usable(step):
            session.run_step(step)
    session.finish()
    return 0 if all(result["ok"] for result in session.results.values()) else 1


class Session:
    """The state of one run: folders, environment, and what came of each step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        kind = "cpu" if options.cpu else "device"
        self.build_dir = PACKAGE / "build" / kind
        self.stage = self.build_dir / "stage"
        self.results: dict[str, dict[str, Any]] = {}
        pure = sorted(p for p in ROOT.glob("packages/*/src") if p.parent != PACKAGE)
        paths = [self.stage, ROOT / "testing", *pure]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        self.facts = environment_facts(options.cpu)
        say(json.dumps(self.facts, indent=1))

    def usable(self, step: str) -> bool:
        """Whether the step can run here; if not, it is recorded with the reason."""
        reason = ""
        if not self.options.cpu and not self.facts["gpu"]:
            reason = "no GPU that torch can use (--cpu for a dry run)"
        elif step == "build" and not self.options.cpu and shutil.which("nvcc") is None:
            reason = "nvcc is not on the PATH"
        elif step != "build" and not (self.stage / "cv" / "ops" / "lib").is_dir():
            reason = "nothing has been built"
        elif step == "sanitize" and self.options.cpu:
            return False
        elif step == "sanitize" and shutil.which("compute-sanitizer") is None:
            say("sanitize: compute-sanitizer is not on the PATH: left out")
            return False
        if reason:
            self.results[step] = {"ok": False, "seconds": 0.0, "note": reason}
            say(f"{step}: {reason}")
        return not reason

    def run_step(self, step: str) -> None:
        start = time.monotonic()
        ok = getattr(self, step)()
        self.results[step] = {"ok": ok, "seconds": round(time.monotonic() - start, 1)}
        say(f"{step}: {'ok' if ok else 'FAILED'} in {self.results[step]['seconds']} s")
        self.write_status()

    def build(self) -> bool:
        cuda = "OFF" if self.options.cpu else "ON"
        configure = [
            *("cmake", "-S", PACKAGE, "-B", self.build_dir, "-G", "Ninja"),
            *(f"-DCV_OPS_CUDA={cuda}", f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Release"),
        ]
        if not self.options.cpu:
            configure.append("-DCMAKE_CUDA_ARCHITECTURES=native")
        compile_ = ["cmake", "--build", self.build_dir, "-j", self.options.jobs]
        if not self.call("build.txt", configure) or not self.call("build.txt", compile_, append=True):
            return False
        shutil.rmtree(self.stage, ignore_errors=True)
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE / "src" / "cv", self.stage / "cv", ignore=no_caches)
        return self.call(
            "build.txt", ["cmake", "--install", self.build_dir, "--prefix", self.stage], append=True
        )

    def test(self) -> bool:
        # Warnings of this machine's torch and numpy are not what is tested here; test_wheel.py asks for
        # the metadata of an installed distribution, which a staging folder has not.
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"),
            *(f"--junitxml={self.out / 'tests.xml'}", "--deselect", "packages/cv-ops/tests/test_wheel.py"),
            *("-p", "cv_testing.conformance", "--conformance", self.out / "conformance.json"),
            PACKAGE / "tests",
        ]
        if self.options.tests:
            command += ["-k", self.options.tests]
        if importlib.util.find_spec("xdist") is not None:
            command += ["-n", min(8, self.options.jobs)]
        return self.call("tests.txt", command)

    def sanitize(self) -> bool:
        # The caching allocator rounds sizes up, which hides accesses just past the end.
        command = [
            *("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", 86, "--log-file"),
            *(self.out / "sanitizer.log", sys.executable, "-m", "pytest", "-q", "-W", "default"),
            *("-p", "no:cacheprovider", "-m", "cuda", "-k", "not Contract and not float64 and not 16"),
            PACKAGE / "tests",
        ]
        return self.call("sanitize.txt", command, PYTORCH_NO_CUDA_MEMORY_CACHING="1")

    def bench(self) -> bool:
        words = self.options.bench.split()
        ok = True
        for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
            if "from op_timing import" not in script.read_text(encoding="utf-8"):
                continue  # not of operators
            if words and not any(word in script.stem for word in words):
                continue
            command = [
                sys.executable,
                script,
                "--device",
                "cpu" if self.options.cpu else "cuda",
                "--out",
                self.out,
            ]
            ok = self.call(f"{script.stem}.txt", command) and ok
        return ok

    def call(self, log: str, command: list[Any], *, append: bool = False, **environment: str) -> bool:
        """Runs one command, its output into OUT/log; shows the end of it if the command fails."""
        path = self.out / log
        with path.open("a" if append else "w", encoding="utf-8") as file:
            code = subprocess.run(
                [str(c) for c in command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False,
                env={**self.environment, **environment},
            ).returncode  # fmt: skip
        if code != 0:
            say(f"--- {log}: exit code {code}; its last lines:")
            say("\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]))
        return code == 0

    def write_status(self) -> None:
        text = json.dumps({**self.facts, "steps": self.results}, indent=1) + "\n"
        (self.out / "status.json").write_text(text, encoding="utf-8")

    def finish(self) -> None:
        self.write_status()
        summary = summary_text(self.facts, self.results, self.out)
        (self.out / "summary.md").write_text(summary, encoding="utf-8")
        say(summary)


def environment_facts(cpu: bool) -> dict[str, Any]:
    import torch

    gpu = "" if cpu or not torch.cuda.is_available() else torch.cuda.get_device_name()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "gpu": gpu,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nvcc": first_match(["nvcc", "--version"], "release"),
        "driver": first_match(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], ""),
        "commit": first_match(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], ""),
    }


def first_match(command: list[str], word: str) -> str:
    """The first line of the command's output that holds the word; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next((line.strip() for line in done.stdout.splitlines() if word in line), "")


def summary_text(facts: dict[str, Any], results: dict[str, dict[str, Any]], out: Path) -> str:
    """A short markdown page: the machine, the steps, one table per benchmark."""
    lines = [f"# cv-ops on {facts['gpu'] or 'the CPU'}, {facts['date']}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    lines += ["", "| step | result | seconds |", "| --- | --- | --- |"]
    for step, result in results.items():
        verdict = "ok" if result["ok"] else f"failed {result.get('note', '')}".strip()
        lines.append(f"| {step} | {verdict} | {result['seconds']} |")
    for path in sorted(out.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "benchmark" not in data:
            continue
        lines += ["", f"## {data['benchmark']} on {data['device']}", ""]
        lines += [
            "| case | ours | peers: time (times ours) | floor | ours / floor |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in data["rows"]:
            (_, ours), *peers = row["seconds"].items()
            shown = ", ".join(f"{name} {micro(t)} ({row['ratio'][name]:.2f})" for name, t in peers)
            floor = micro(row["floor"]) if row["floor"] else ""
            over = f"{row['over_floor']:.2f}" if row["over_floor"] else ""
            lines.append(f"| {row['case']} | {micro(ours)} | {shown} | {floor} | {over} |")
    return "\n".join(lines) + "\n"


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3f} ms"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
