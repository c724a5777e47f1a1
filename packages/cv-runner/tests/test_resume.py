"""Training that was stopped and resumed cannot be told from training that never stopped."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from runner_toy import build, final_state, run_in

TIMES = ("time", "data_time", "memory")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_equal(ours, theirs, where="state"):
    """Bit for bit, at every depth."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}[{key!r}]")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert ours == theirs, where


def log_lines(work_dir):
    """All JSON log lines of a folder in their order, without what depends on the clock."""
    lines = []
    for path in sorted(Path(work_dir).glob("*.log.json"), key=lambda p: p.stat().st_mtime_ns):
        for line in path.read_text().splitlines():
            entry = {k: v for k, v in json.loads(line).items() if k not in TIMES}
            if "mode" in entry:
                lines.append(entry)
    return lines


def train(work_dir, resume_from=None, **kwargs):
    runner, loaders, workflow = build(work_dir, **kwargs)
    if resume_from is not None:
        random.seed(99)
        torch.manual_seed(99)  # a resumed process has other generators
        runner.resume(str(resume_from))
    runner.run(loaders, workflow)
    return runner


@pytest.mark.parametrize("by_epoch", [True, False])
def test_every_iteration_can_be_resumed_bit_for_bit(tmp_path, by_epoch):
    whole = train(tmp_path / "whole", by_epoch=by_epoch)
    expected, lines = final_state(whole), log_lines(tmp_path / "whole")
    assert len(lines) >= 8
    total = whole.iter
    for k in range(1, total + 1):
        folder = tmp_path / f"from_{k}"
        resumed = train(folder, tmp_path / "whole" / f"iter_{k}.pth", by_epoch=by_epoch)
        assert_equal(expected, final_state(resumed))
        later = log_lines(folder)
        assert later == lines[len(lines) - len(later) :]


def test_with_workers(tmp_path):
    whole = train(tmp_path / "whole", workers=2, interval=4)
    for k in (4, 8, 12):
        resumed = train(tmp_path / f"from_{k}", tmp_path / "whole" / f"iter_{k}.pth", workers=2, interval=4)
        assert_equal(final_state(whole), final_state(resumed))


def test_epoch_checkpoints_also_finish_the_evaluation_that_follows(tmp_path):
    config = {"by_epoch": True}
    whole = train(tmp_path / "whole", checkpoint=config)
    lines = log_lines(tmp_path / "whole")
    for epoch in (1, 2, 3):
        folder = tmp_path / f"from_{epoch}"
        resumed = train(folder, tmp_path / "whole" / f"epoch_{epoch}.pth", checkpoint=config)
        assert_equal(final_state(whole), final_state(resumed))
        later = log_lines(folder)
        assert later[0]["mode"] == "val"
        assert later[0]["epoch"] == epoch
        assert "acc" in later[0]
        assert later == lines[-len(later) :]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_with_mixed_precision(tmp_path, dtype):
    amp = {"loss_scale": {"init_scale": 256.0, "growth_interval": 2}, "dtype": dtype}
    whole = train(tmp_path / "whole", amp=amp)
    for k in (1, 5, 9, 14):
        resumed = train(tmp_path / f"from_{k}", tmp_path / "whole" / f"iter_{k}.pth", amp=amp)
        assert_equal(final_state(whole), final_state(resumed))
        assert ("fp16" in whole.meta) is (dtype == "float16")
        assert_equal(whole.meta.get("fp16"), resumed.meta.get("fp16"))


def test_in_the_background(tmp_path):
    whole = train(tmp_path / "whole", checkpoint={"background": True})
    assert_equal(final_state(train(tmp_path / "plain")), final_state(whole))
    for k in (1, 7, 15):
        resumed = train(tmp_path / f"from_{k}", tmp_path / "whole" / f"iter_{k}.pth")
        assert_equal(final_state(whole), final_state(resumed))


def test_checkpoints_hold_no_code(tmp_path):
    train(tmp_path, interval=7)
    loaded = torch.load(tmp_path / "latest.pth", weights_only=True)
    assert set(loaded) == {"meta", "state_dict", "optimizer", "resume"}
    assert loaded["meta"]["seed"] == 0
    assert (tmp_path / "latest.pth").readlink() == Path("iter_15.pth")


def start(server, work_dir, resume=True, **options):
    work_dir.mkdir(exist_ok=True)
    started = server.Event()
    process = server.Process(target=run_in, args=(work_dir, resume, started, options))
    process.start()
    assert started.wait(60)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("by_epoch", [True, False])
def test_killed_again_and_again(tmp_path, server, by_epoch):
    """SIGKILL at random moments; whenever it came, the run gets to the same end."""
    expected = final_state(train(tmp_path / "whole", by_epoch=by_epoch))
    choose = random.Random(7)
    for attempt in range(3):
        work_dir = tmp_path / f"killed_{attempt}"
        for _ in range(3):
            process = start(server, work_dir, by_epoch=by_epoch, sleep=0.02)
            time.sleep(choose.uniform(0.0, 0.25))
            process.kill()
            process.join()
            latest = work_dir / "latest.pth"
            if latest.exists():
                torch.load(latest, weights_only=True)  # whole, whenever the kill came
        process = start(server, work_dir, by_epoch=by_epoch)
        process.join()
        assert process.exitcode == 0
        assert_equal(expected, torch.load(work_dir / "final.pt", weights_only=True))
        assert not list(work_dir.glob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(tmp_path, server, number):
    """SIGTERM and Ctrl-C: finish the iteration, save, say how to resume; the end is the same."""
    expected = final_state(train(tmp_path / "whole"))
    work_dir = tmp_path / "stopped"
    process = start(server, work_dir, sleep=0.05)
    time.sleep(0.3)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    messages = (work_dir / "messages.txt").read_text()
    assert f"{number.name}: finishing the iteration" in messages
    assert f"Stopped by {number.name}" in messages
    assert "--resume" in messages
    process = start(server, work_dir)
    process.join()
    assert process.exitcode == 0
    assert_equal(expected, torch.load(work_dir / "final.pt", weights_only=True))
