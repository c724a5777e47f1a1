"""What the ranks of the distributed tests do, on gloo and the CPU.

torchrun starts it as ``dist_toy.py FOLDER CASE…``; :func:`run_rank` does the same in a process that a fork
server started.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from cv.engine import collect_results_cpu, collect_results_gpu, multi_gpu_test
from cv.parallel import MMDistributedDataParallel
from cv.runner import (
    DistEvalHook,
    EpochBasedRunner,
    allreduce_grads,
    allreduce_params,
    build_optimizer,
    get_dist_info,
    init_dist,
    master_only,
    set_random_seed,
)


class Points(Dataset):
    def __init__(self, size=16):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"x": torch.randn(3, generator=generator), "y": torch.tensor([float(index % 3)])}

    def evaluate(self, results, logger=None):
        assert len(results) == self.size
        return {"acc": float(sum(results))}


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x, y=None, return_loss=True):
        out = self.net(x)
        return (out - y).square().mean() if return_loss else [float(v) for v in out[:, 0]]

    def train_step(self, data, optimizer):
        loss = self(**data)
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    val_step = train_step


def build(folder, *, epochs=3, world_size=1, batch=8, dropout=0.0, evaluate=False, out_dir=None):
    """A runner over the same global batches for any number of ranks."""
    set_random_seed(0)
    model = Net(dropout)
    data = Points()
    sampler = None
    if world_size > 1:
        # Otherwise DDP lays out its buckets anew after the first iteration of a process. With more than
        # two ranks that changes the order in which gradients are summed, and so their last bits.
        model = MMDistributedDataParallel(model, find_unused_parameters=world_size > 2)
        sampler = DistributedSampler(data, shuffle=False)
    optimizer = build_optimizer(model, {"type": "SGD", "lr": 0.1, "momentum": 0.9})
    runner = EpochBasedRunner(
        model,
        optimizer=optimizer,
        work_dir=str(folder),
        logger=logging.getLogger("dist_toy"),
        meta={},
        max_epochs=epochs,
    )
    runner.register_training_hooks(
        {"policy": "step", "step": [2]},
        {"grad_clip": {"max_norm": 5.0}},
        {"interval": 1, "by_epoch": False, "out_dir": out_dir},
        {"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
        custom_hooks_config=[{"type": "DistSamplerSeedHook"}, {"type": "SyncBuffersHook"}],
    )
    if evaluate:
        test = DataLoader(data, 4, sampler=DistributedSampler(data, shuffle=False))
        runner.register_hook(DistEvalHook(test, save_best="acc"), "LOW")
    loader = DataLoader(data, batch // world_size, sampler=sampler)
    set_random_seed(0, use_rank_shift=True)
    return runner, loader


def training(folder):
    """Ranks end with equal weights, and what one process with the same global batch ends with."""
    rank, world_size = get_dist_info()
    runner, loader = build(folder, world_size=world_size, evaluate=True)
    runner.run([loader], [("train", 1)])
    weights = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    everywhere = [torch.empty_like(weights) for _ in range(world_size)]
    dist.all_gather(everywhere, weights)
    assert all(torch.equal(weights, other) for other in everywhere)
    if rank == 0:
        torch.save(runner.model.module.state_dict(), folder / "weights.pt")
        json.dump(runner.meta["hook_msgs"], (folder / "messages.json").open("w"))


def resume(folder):
    """With dropout, whose generators differ between ranks: resumed runs end where the whole one did."""
    _, world_size = get_dist_info()
    options = {"world_size": world_size, "dropout": 0.5, "epochs": 2}
    runner, loader = build(folder / "whole", **options)
    runner.run([loader], [("train", 1)])
    expected = [p.detach().clone() for p in runner.model.parameters()]
    generators = torch.get_rng_state()
    dist.barrier()
    for k in (1, 2, 3, 4):
        runner, loader = build(folder / f"from_{k}", **options)
        runner.resume(str(folder / "whole" / f"iter_{k}.pth"))
        runner.run([loader], [("train", 1)])
        for ours, theirs in zip(runner.model.parameters(), expected, strict=True):
            assert torch.equal(ours, theirs), k
        assert torch.equal(torch.get_rng_state(), generators), k


def results(folder):
    """Results come back in the dataset's order, also with fewer samples than ranks."""
    rank, world_size = get_dist_info()
    for size in (1, 2, 3, 5, 8):
        data = Points(size)
        indices = list(range(size))[rank::world_size]
        plain = DataLoader(torch.utils.data.Subset(data, indices), 2)
        padded = DataLoader(data, 2, sampler=DistributedSampler(data, shuffle=False))
        expected = [float(data[i]["x"][0]) for i in range(size)]

        class First(nn.Module):
            def forward(self, x, y, return_loss):
                return [float(v) for v in x[:, 0]]

        for loader in (plain, padded):
            loader_of_all = Sized(loader, size)
            for how in ({"tmpdir": str(folder / "parts")}, {}, {"gpu_collect": True}):
                got = multi_gpu_test(First(), loader_of_all, **how)
                assert got == (expected if rank == 0 else None), (size, how)
    part = [rank] * (rank + 1)
    for collect in (collect_results_cpu, collect_results_gpu):
        got = collect(part, 100)
        if rank == 0:
            assert got == [r for i in range(world_size) for r in range(world_size) if i <= r]
    assert not (folder / "parts").exists()


class Sized:
    """A loader over a share, whose dataset has the size of the whole."""

    def __init__(self, loader, size):
        self.loader, self.dataset = loader, range(size)

    def __iter__(self):
        return iter(self.loader)


def collectives(folder):
    rank, world_size = get_dist_info()
    mean = sum(range(world_size)) / world_size
    for coalesce in (True, False):
        for bucket in (-1, 1):
            params = [nn.Parameter(torch.full((n,), float(rank))) for n in (1, 300_000, 5)]
            params.append(nn.Parameter(torch.full((2, 2), float(rank), dtype=torch.float64)))
            params[0].grad = torch.full((1,), 2.0 * rank)
            allreduce_grads(params, coalesce=coalesce, bucket_size_mb=bucket)
            assert params[0].grad.item() == 2 * mean
            assert params[1].grad is None
            allreduce_params(params, coalesce=coalesce, bucket_size_mb=bucket)
            assert all((p == mean).all() for p in params)

    @master_only
    def only():
        return rank

    assert only() == (0 if rank == 0 else None)
    before = torch.initial_seed()
    set_random_seed(5, use_rank_shift=True)
    assert torch.initial_seed() == 5 + rank != before


def steps_without_gradients(folder):
    """val_step exchanges nothing: ranks may have different numbers of batches."""
    rank, _ = get_dist_info()
    model = MMDistributedDataParallel(Net())
    with torch.no_grad():
        for _ in range(rank + 1):
            model.val_step({"x": torch.zeros(1, 3), "y": torch.zeros(1, 1)}, None)
            model(torch.zeros(1, 3), return_loss=False)
    dist.barrier()


def failing(folder):
    """One rank raises in the middle of training."""
    rank, world_size = get_dist_info()
    runner, loader = build(folder, world_size=world_size)
    if rank == 1:
        step = runner.model.module.train_step

        def broken(data, optimizer):
            if runner.iter == 2:
                raise ValueError("bad batch on rank 1")
            return step(data, optimizer)

        runner.model.module.train_step = broken
    runner.run([loader], [("train", 1)])


def stopped(folder):
    """Asked to stop, ranks agree on the iteration."""
    import signal

    from cv.runner import ClosureHook

    rank, world_size = get_dist_info()
    runner, loader = build(folder, world_size=world_size, epochs=1000)
    if rank == 1:
        runner.register_hook(
            ClosureHook("before_train_iter", lambda r: r.iter == 7 and os.kill(os.getpid(), signal.SIGTERM))
        )
    try:
        runner.run([loader], [("train", 1)])
    except SystemExit as stop:
        if stop.code != 128 + signal.SIGTERM:
            raise
        Path(folder, f"rank_{rank}.txt").write_text(str(runner.iter))


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
    init_dist("pytorch", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    run_cases(folder, cases)


if __name__ == "__main__":
    os.environ["CV_LIVE_LINE"] = "0"
    torch.set_num_threads(1)
    init_dist("pytorch")
    run_cases(sys.argv[1], sys.argv[2:])
