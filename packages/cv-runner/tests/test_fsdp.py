"""Models sharded over ranks (FSDP2), by real processes on gloo and the CPU."""

import json
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import fsdp_toy
import pytest
import torch
from torch import nn

from cv.cnn.checkpoint import UntrustedCheckpointError
from cv.parallel import MMFullyShardedDataParallel
from cv.runner import load_checkpoint, merge_sharded_checkpoint, save_sharded_checkpoint
from cv.runner.__main__ import main
from cv.runner.checkpoint import remove_left_overs

TOY = Path(fsdp_toy.__file__)


def start(server, folder, *cases, ranks):
    processes = [
        server.Process(target=fsdp_toy.run_rank, args=(folder, cases, rank, ranks)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes


def run(server, folder, *cases, ranks):
    processes = start(server, folder, *cases, ranks=ranks)
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * ranks


def train_alone(folder, **options):
    runner, loader = fsdp_toy.build(folder, **options)
    runner.run([loader], [("train", 1)])
    return runner


def assert_same(weights, expected, **tolerance):
    assert weights.keys() == expected.keys()
    for name in set(expected) - {"seen"}:
        torch.testing.assert_close(
            weights[name], expected[name], **{"rtol": 1e-4, "atol": 1e-5, **tolerance}, msg=name
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process ends with, whose batches are the ranks' together."""
    return train_alone(tmp_path_factory.mktemp("alone"), averages=True)


def test_under_torchrun(tmp_path, alone):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(TOY), str(tmp_path), "training"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(torch.load(tmp_path / "training" / "weights.pt"), alone.model.state_dict())


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks(tmp_path, server, ranks, alone):
    run(server, tmp_path, "training", "resume", "by_hand", "uneven_training", ranks=ranks)
    folder = tmp_path / "training"
    assert_same(torch.load(folder / "weights.pt"), alone.model.state_dict())
    messages = json.loads((folder / "messages.json").read_text())
    assert messages["best_score"] == pytest.approx(alone.meta["hook_msgs"]["best_score"], abs=1e-4)
    assert Path(messages["best_ckpt"]).is_dir()
    assert sorted(p.name for p in folder.glob("epoch_*")) == ["epoch_2.pth", "epoch_3.pth"]  # max_keep_ckpts
    best = [p.name for p in folder.glob("best_*")]
    assert best == [Path(messages["best_ckpt"]).name]
    assert (folder / "latest.pth").resolve().name == "epoch_3.pth"

    merged = torch.load(tmp_path / "by_hand" / "merged.pth", weights_only=True)
    expected = torch.load(tmp_path / "by_hand" / "expected.pt")
    for name, value in merged["state_dict"].items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, expected[name])
    assert not (tmp_path / "by_hand" / "one.pth").exists()


def test_in_other_ways(tmp_path, server, alone):
    run(server, tmp_path, "training_in_other_ways", ranks=2)
    expected = train_alone(tmp_path / "alone").model.state_dict()
    folder = tmp_path / "training_in_other_ways"
    for way in ("whole", "kept", "offloaded"):
        assert_same(torch.load(folder / f"{way}.pt"), expected)
    for way in ("scaled", "bf16"):  # bfloat16 has 8 bits
        weights = torch.load(folder / f"{way}.pt")
        assert all(value.dtype == torch.float32 for value in weights.values())
        assert_same(weights, expected, rtol=0.1, atol=0.1)
    assert_same(torch.load(folder / "averages.pt"), alone.model.state_dict())


def test_another_number_of_ranks_goes_on(tmp_path, server, capsys):
    run(server, tmp_path, "begin", ranks=2)
    source = tmp_path / "two_epochs"
    main(["merge", str(source / "epoch_2.pth"), str(source / "merged.pth")])
    run(server, tmp_path, "go_on", ranks=4)
    expected = train_alone(tmp_path / "alone").model.state_dict()
    for name in ("latest.pth", "merged.pth"):
        assert_same(torch.load(tmp_path / "go_on" / f"{name}.pt"), expected)
        runner, loader = fsdp_toy.build(tmp_path / f"one_{name}")
        runner.resume(str(source / name))
        runner.run([loader], [("train", 1)])
        assert_same(runner.model.state_dict(), expected)


def test_killed_while_saving(tmp_path, server):
    """Whatever moment all ranks die at: what is there is whole, and of one save."""
    choose = random.Random(3)
    folder = tmp_path / "save_for_ever"
    cut_short = 0
    for attempt in range(60):
        if cut_short >= 3 and attempt >= 4:
            break
        own = tmp_path / str(attempt)
        own.mkdir()
        (own / "save_for_ever").symlink_to(folder, target_is_directory=True)
        folder.mkdir(exist_ok=True)
        before = set(folder.glob("*/checkpoint.pth"))
        processes = start(server, own, "save_for_ever", ranks=2)
        wait_for_a_save(folder, processes)
        time.sleep(choose.uniform(0.0, 0.2))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        assert before <= set(folder.glob("*/checkpoint.pth"))
        for path in [folder / "latest.pth", *folder.glob("epoch_*.pth")]:
            cut_short += len(list(path.glob("shards-*"))) > 1 or not (path / "checkpoint.pth").exists()
            if path.name != "latest.pth" and not (path / "checkpoint.pth").exists():
                continue  # a new folder, which is no checkpoint yet
            model = nn.Linear(32, 32)
            number = load_checkpoint(model, str(path), strict=True)["meta"]["number"]
            assert (model.weight == number).all()
    assert cut_short >= 3


def wait_for_a_save(folder, processes):
    """Until the processes have saved: their file is newer than it was."""

    def stamp():
        return max((p.stat().st_mtime_ns for p in folder.glob("*/checkpoint.pth")), default=0)

    former, deadline = stamp(), time.monotonic() + 60
    while stamp() == former:
        assert time.monotonic() < deadline
        assert all(process.is_alive() for process in processes)
        time.sleep(0.005)


class TestErrors:
    def test_no_process_group(self):
        with pytest.raises(RuntimeError, match="needs a process group"):
            MMFullyShardedDataParallel(nn.Linear(1, 1))

    def test_not_sharded(self, tmp_path):
        with pytest.raises(ValueError, match="Linear is not sharded over ranks"):
            save_sharded_checkpoint(nn.Linear(1, 1), tmp_path / "a")

    @pytest.fixture
    def group(self, tmp_path):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
        )
        yield
        torch.distributed.destroy_process_group()

    def test_options(self, group):
        with pytest.raises(ValueError, match="'Blok', but Net has no such module; did you mean Block"):
            MMFullyShardedDataParallel(fsdp_toy.Net(), wrap=["Blok"])
        with pytest.raises(ValueError, match="param_dtype must name a dtype of torch, got 'half16'"):
            MMFullyShardedDataParallel(fsdp_toy.Net(), mp_policy={"param_dtype": "half16"})

    def test_what_a_share_cannot_do(self, tmp_path, group):
        runner, loader = fsdp_toy.build(tmp_path / "a")
        hook = next(h for h in runner.hooks if hasattr(h, "detect_anomalous_params"))
        hook.detect_anomalous_params = True
        with pytest.raises(ValueError, match="detect_anomalous_params does not work with a model"):
            runner.run([loader], [("train", 1)])
        runner, loader = fsdp_toy.build(tmp_path / "b")
        next(h for h in runner.hooks if hasattr(h, "background")).background = True
        with pytest.raises(ValueError, match="background=True"):
            runner.run([loader], [("train", 1)])

    def test_damaged_and_hostile_folders(self, tmp_path, group):
        model = MMFullyShardedDataParallel(nn.Linear(4, 4))
        folder = tmp_path / "saved"
        save_sharded_checkpoint(model, folder)
        shards = next(folder.glob("shards-*"))
        metadata = (shards / ".metadata").read_bytes()

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/pwned",)

        (shards / ".metadata").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(UntrustedCheckpointError, match="system"):
            load_checkpoint(nn.Linear(4, 4), str(folder))
        assert not (tmp_path / "pwned").exists()
        (shards / ".metadata").write_bytes(metadata[: len(metadata) // 2])
        with pytest.raises(RuntimeError, match="is damaged"):
            load_checkpoint(nn.Linear(4, 4), str(folder))
        (shards / ".metadata").write_bytes(metadata)
        next(shards.glob("*.distcp")).unlink()
        with pytest.raises(RuntimeError, match="is damaged"):
            load_checkpoint(nn.Linear(4, 4), str(folder))
        (folder / "checkpoint.pth").unlink()
        with pytest.raises(FileNotFoundError, match=r"is not a checkpoint: it has no checkpoint\.pth"):
            merge_sharded_checkpoint(folder, tmp_path / "merged.pth")
        assert not (tmp_path / "merged.pth").exists()

    def test_left_overs_are_removed(self, tmp_path):
        for name in ("a.pth/shards-1", "b.pth/shards-2", "c.pth/mine"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "b.pth" / "checkpoint.pth").write_text("")
        remove_left_overs(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["b.pth", "c.pth"]
