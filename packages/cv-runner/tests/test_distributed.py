"""Real processes under torchrun, on gloo and the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dist_toy import build, run_rank

from cv.runner import init_dist
from cv.runner.dist_utils import _first_slurm_host

TOY = Path(__file__).with_name("dist_toy.py")


def torchrun(folder, *cases, ranks=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [*command, str(TOY), str(folder), *cases],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )


def fork_ranks(server, folder, *cases, ranks):
    processes = [server.Process(target=run_rank, args=(folder, cases, r, ranks)) for r in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * ranks


def assert_as_one_process(folder, one):
    """The weights that the ranks ended with are those of one process over the same global batches."""
    runner, loader = build(one)
    runner.run([loader], [("train", 1)])
    weights = torch.load(folder / "weights.pt")
    for name, value in runner.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)
    messages = json.loads((folder / "messages.json").read_text())
    assert Path(messages["best_ckpt"]).exists()
    assert messages["last_ckpt"].endswith("iter_6.pth")


def test_under_torchrun(tmp_path):
    done = torchrun(tmp_path, "training", "collectives")
    assert done.returncode == 0, done.stderr
    assert_as_one_process(tmp_path / "training", tmp_path / "one")


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks(tmp_path, server, ranks):
    cases = ["training", "resume", "results", "collectives", "steps_without_gradients"]
    fork_ranks(server, tmp_path, *cases, ranks=ranks)
    assert_as_one_process(tmp_path / "training", tmp_path / "one")


def test_a_rank_that_raises_ends_the_job_with_its_traceback(tmp_path):
    done = torchrun(tmp_path, "failing")
    assert done.returncode != 0
    assert "ValueError: bad batch on rank 1" in done.stderr


def test_asked_to_stop_ranks_agree(tmp_path, server):
    fork_ranks(server, tmp_path, "stopped", ranks=2)
    folder = tmp_path / "stopped"
    stopped_at = [(folder / f"rank_{rank}.txt").read_text() for rank in (0, 1)]
    assert stopped_at[0] == stopped_at[1]
    checkpoint = torch.load(folder / "latest.pth")
    assert checkpoint["meta"]["iter"] == int(stopped_at[0])
    assert [state is not None for state in checkpoint["resume"]["ranks"]] == [True, True]


class TestLaunchers:
    @pytest.fixture
    def joined(self, monkeypatch):
        calls = []
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_")) or name in (
                "RANK",
                "WORLD_SIZE",
                "LOCAL_RANK",
                "MASTER_ADDR",
            ):
                monkeypatch.delenv(name)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "x")
            monkeypatch.delenv(name)
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda **kwargs: calls.append(kwargs))
        return calls

    def test_slurm(self, joined, monkeypatch):
        for name, value in {"PROCID": "3", "NTASKS": "8", "NODELIST": "gpu7", "LOCALID": "1"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        init_dist("slurm", backend="gloo", port=1234)
        assert joined == [{"backend": "gloo"}]
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        assert [os.environ[n] for n in names] == ["3", "8", "1", "gpu7", "1234"]

    def test_mpi(self, joined, monkeypatch):
        for name, value in {"RANK": "2", "LOCAL_RANK": "0", "SIZE": "4"}.items():
            monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
        with pytest.raises(RuntimeError, match="'mpi' needs the environment variable MASTER_ADDR"):
            init_dist("mpi")
        monkeypatch.setenv("MASTER_ADDR", "host")
        init_dist("mpi", backend="gloo")
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"]) == (
            "2",
            "4",
            "29500",
        )

    def test_errors(self, joined):
        with pytest.raises(RuntimeError, match="'pytorch' needs the environment variable RANK"):
            init_dist("pytorch")
        with pytest.raises(ValueError, match="launcher must be 'pytorch', 'slurm' or 'mpi', got 'ssh'"):
            init_dist("ssh")

    def test_node_lists(self, monkeypatch):
        assert _first_slurm_host("node1,node2") == "node1"
        asked = []

        def scontrol(command, **kwargs):
            asked.append(command)
            return subprocess.CompletedProcess(command, 0, "node03\nnode04\n")

        monkeypatch.setattr(subprocess, "run", scontrol)
        assert _first_slurm_host("node[03-05,9],gpu1") == "node03"
        assert asked == [["scontrol", "show", "hostname", "node[03-05,9],gpu1"]]
