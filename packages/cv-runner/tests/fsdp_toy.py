"""What the ranks of the tests of sharded models do, on gloo and the CPU.

torchrun starts it as ``fsdp_toy.py FOLDER CASE…``; :func:`run_rank` does the same in a process that a fork
server started.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from dist_toy import Points
from torch import distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from cv.engine import multi_gpu_test
from cv.parallel import DataContainer, MMFullyShardedDataParallel
from cv.runner import (
    DistEvalHook,
    EMAHook,
    EpochBasedRunner,
    EvalHook,
    build_optimizer,
    get_dist_info,
    init_dist,
    load_checkpoint,
    merge_sharded_checkpoint,
    save_checkpoint,
    save_sharded_checkpoint,
    set_random_seed,
)


class Block(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(torch.tanh(self.linear(x)))


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.blocks = nn.Sequential(Block(6, dropout), Block(6, dropout))
        self.head = nn.Linear(6, 1)  # one row: most ranks have an empty share of it
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x, y=None, return_loss=True):
        out = self.head(self.blocks(self.stem(x)))
        return (out - y).square().mean() if return_loss else [float(v) for v in out[:, 0]]

    def train_step(self, data, optimizer):
        self.seen += 1
        loss = self(**data)
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    val_step = train_step


def build(
    folder, *, epochs=3, batch=8, dropout=0.0, by_epoch=True, averages=False, accumulate=1, amp=None, **fsdp
):
    """A runner over the same global batches for any number of ranks; sharded where there is a group."""
    sharded = dist.is_initialized()
    rank, world_size = get_dist_info()
    set_random_seed(rank)  # sharding starts from rank 0's weights
    model = Net(dropout)
    if sharded:
        model = MMFullyShardedDataParallel(model, **{"wrap": ["Block"], **fsdp})
    optimizer = build_optimizer(
        model,
        {
            "type": "AdamW",
            "lr": 0.05,
            "weight_decay": 0.01,
            "paramwise_cfg": {"bias_decay_mult": 0.0, "bias_lr_mult": 2.0},
        },
    )
    runner = EpochBasedRunner(
        model, optimizer=optimizer, work_dir=str(folder), logger=logging.getLogger("fsdp_toy"), meta={},
        max_epochs=epochs,
    )  # fmt: skip
    optimizer_config = {"grad_clip": {"max_norm": 0.5}}
    if accumulate > 1:
        optimizer_config.update(type="GradientCumulativeOptimizerHook", cumulative_iters=accumulate)
    if amp:
        optimizer_config.update(type="Fp16OptimizerHook", **amp)
    runner.register_training_hooks(
        {"policy": "step", "step": [2]},
        optimizer_config,
        {"interval": 1, "by_epoch": by_epoch, "max_keep_ckpts": -1 if not by_epoch else 2},
        {"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
        custom_hooks_config=[{"type": "SyncBuffersHook"}] if sharded else None,
    )
    if averages:
        runner.register_hook(EMAHook(momentum=0.2, warm_up=5), "ABOVE_NORMAL")
    data = Points()
    sampler = DistributedSampler(data, shuffle=False) if sharded else None
    test = DataLoader(data, 4, sampler=sampler)
    evaluation = DistEvalHook if sharded else EvalHook
    runner.register_hook(evaluation(test, save_best="acc", rule="greater"), "LOW")
    set_random_seed(0, use_rank_shift=True)
    return runner, DataLoader(data, batch // world_size, sampler=sampler)


def whole(state_dict):
    """Sharded tensors put together again; all ranks call this."""
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v.clone() for k, v in state_dict.items()}


def training(folder):
    rank, _ = get_dist_info()
    runner, loader = build(folder, averages=True)
    runner.run([loader], [("train", 1)])
    weights = whole(runner.model.module.state_dict())
    if rank == 0:
        torch.save(weights, folder / "weights.pt")
        json.dump(runner.meta["hook_msgs"], (folder / "messages.json").open("w"))


def training_in_other_ways(folder):
    """Gathered as a whole, kept between forward and backward, in bfloat16, through a scaler, on one unit."""
    ways = {
        "whole": {"wrap": ()},
        "kept": {"reshard_after_forward": False},
        "scaled": {"amp": {"dtype": "bfloat16"}},
        "bf16": {"mp_policy": {"param_dtype": "bfloat16", "reduce_dtype": "float32"}},
        "offloaded": {"offload": True},
        "averages": {"averages": True, "reshard_after_forward": False},
    }
    for name, options in ways.items():
        runner, loader = build(folder / name, **options)
        runner.run([loader], [("train", 1)])
        weights = whole(runner.model.module.state_dict())
        if get_dist_info()[0] == 0:
            torch.save(weights, folder / f"{name}.pt")


def resume(folder):
    """With dropout, accumulation and averages: resumed runs end bit for bit where the whole one did."""
    options = {"dropout": 0.5, "epochs": 2, "by_epoch": False, "averages": True, "accumulate": 3}
    runner, loader = build(folder / "whole", **options)
    runner.run([loader], [("train", 1)])
    expected = whole(runner.model.module.state_dict())
    moments = whole({str(i): s["exp_avg"] for i, s in enumerate(runner.optimizer.state.values())})
    generators = torch.get_rng_state()
    dist.barrier()
    for k in (1, 2, 3, 4):
        runner, loader = build(folder / f"from_{k}", **options)
        runner.resume(str(folder / "whole" / f"iter_{k}.pth"))
        runner.run([loader], [("train", 1)])
        for name, value in whole(runner.model.module.state_dict()).items():
            assert torch.equal(value, expected[name]), (k, name)
        resumed = whole({str(i): s["exp_avg"] for i, s in enumerate(runner.optimizer.state.values())})
        assert all(torch.equal(value, moments[name]) for name, value in resumed.items()), k
        assert torch.equal(torch.get_rng_state(), generators), k


def begin(folder):
    """Two epochs of three, to be gone on from by another number of ranks."""
    runner, loader = build(folder.parent / "two_epochs", epochs=2)
    runner.run([loader], [("train", 1)])


def go_on(folder):
    """From the folder that another number of ranks wrote, and from one file made of it."""
    for source in ("latest.pth", "merged.pth"):
        runner, loader = build(folder / source)
        runner.resume(str(folder.parent / "two_epochs" / source))
        assert runner.epoch == 2
        runner.run([loader], [("train", 1)])
        weights = whole(runner.model.module.state_dict())
        if get_dist_info()[0] == 0:
            torch.save(weights, folder / f"{source}.pt")


def by_hand(folder):
    rank, world_size = get_dist_info()
    model = MMFullyShardedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = (DataContainer([torch.ones(2, size)], stack=True) for size in (3, 1))
    data = {"x": x, "y": y}
    model.train_step(data, optimizer)["loss"].backward()
    optimizer.step()
    expected = whole(model.module.state_dict())

    with pytest.raises(RuntimeError, match="is sharded over ranks"):  # a share, as if it were the whole
        save_checkpoint(model, str(folder / "one.pth"))

    save_sharded_checkpoint(model, folder / "shards", optimizer, meta={"note": 1})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    checkpoint = load_checkpoint(model, str(folder / "shards"), strict=True)
    assert checkpoint["meta"]["note"] == 1
    loaded = whole(model.module.state_dict())
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)

    # Evaluation gathers parameters: different numbers of batches are an error, not a hang.
    uneven = DataLoader(torch.utils.data.Subset(Points(), range(4 + rank)), 1)
    with pytest.raises(ValueError, match="different numbers of batches"):
        multi_gpu_test(model, uneven)

    # A rank that cannot write: an error on all of them, and the former checkpoint is as it was.
    write = dcp.FileSystemWriter.write_data
    if rank == world_size - 1:

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        dcp.FileSystemWriter.write_data = full
    with pytest.raises(OSError, match="No space left on device"):
        save_sharded_checkpoint(model, folder / "shards", optimizer, meta={"note": 2})
    dcp.FileSystemWriter.write_data = write
    assert load_checkpoint(model, str(folder / "shards"))["meta"]["note"] == 1
    assert len(list((folder / "shards").glob("shards-*"))) == 1
    dist.barrier()
    if rank == 0:
        merge_sharded_checkpoint(folder / "shards", folder / "merged.pth")
        torch.save(expected, folder / "expected.pt")


def save_for_ever(folder):
    """Until killed: saves under two names, with a number in every tensor."""
    from cv.runner.checkpoint import link_latest

    model = MMFullyShardedDataParallel(nn.Linear(32, 32))
    number = 0
    while True:
        number += 1
        with torch.no_grad():
            model.module.weight.fill_(number)
        name = f"epoch_{number % 2}.pth"
        save_sharded_checkpoint(model, folder / name, meta={"number": number})
        if get_dist_info()[0] == 0:
            link_latest(str(folder), name)


def uneven_training(folder):
    """One rank has more batches."""
    rank, _ = get_dist_info()
    runner, _ = build(folder)
    loader = DataLoader(torch.utils.data.Subset(Points(), range(8 + 4 * (rank == 1))), 4)
    with pytest.raises(ValueError, match=r"numbers of batches on the ranks \(rank 0: 2, rank 1: 3[,)]"):
        runner.run([loader], [("train", 1)])


def run_cases(folder, cases):
    for case in cases:
        own = Path(folder, case)
        own.mkdir(exist_ok=True)
        dist.barrier()
        globals()[case](own)
    dist.barrier()
    dist.destroy_process_group()


def run_rank(folder, cases, rank, world_size):
    """One rank, found through a file instead of a launcher's address."""
    os.environ.update(CV_LIVE_LINE="0", RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - progress bars
    meeting = f"file://{folder}/meeting_{'_'.join(cases)}"
    init_dist("pytorch", init_method=meeting, rank=rank, world_size=world_size)
    run_cases(folder, cases)


if __name__ == "__main__":
    os.environ["CV_LIVE_LINE"] = "0"
    torch.set_num_threads(1)
    init_dist("pytorch")
    run_cases(sys.argv[1], sys.argv[2:])
