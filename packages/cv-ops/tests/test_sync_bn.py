"""SyncBatchNorm: several gloo processes against one process that has all batches."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cv.ops import SyncBatchNorm

PROCESSES = 4
# Batch sizes of the processes in training; the first two also form a group of their own.
SPLITS = {"even": (3, 3, 3, 3), "uneven": (1, 4, 2, 5), "empty": (0, 3, 0, 2), "all empty": (0, 0, 0, 0)}
CHANNELS = 3


def batches(split: str, dtype: torch.dtype, shape: tuple[int, ...] = (4, 5)) -> list[Tensor]:
    """One batch per process, far from zero mean so that naive sums of squares would cancel."""
    g = torch.Generator().manual_seed(len(split))
    return [
        (torch.randn(n, CHANNELS, *shape, generator=g, dtype=torch.float64) * (i + 1) + 50 * i).to(dtype)
        for i, n in enumerate(SPLITS[split])
    ]


def output_grads(split: str, dtype: torch.dtype, shape: tuple[int, ...] = (4, 5)) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)
    return [
        torch.randn(n, CHANNELS, *shape, generator=g, dtype=torch.float64).to(dtype) for n in SPLITS[split]
    ]


def with_values(layer: Any, dtype: torch.dtype) -> Any:
    layer = layer.to(dtype)
    if layer.affine:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
            layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    return layer


def train_step(layer: Any, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Two forward passes (the running statistics move twice) and one backward."""
    x = x.clone().requires_grad_()
    layer(x)
    y = layer(x)
    y.backward(grad)
    found = {"y": y.detach(), "x.grad": x.grad}
    found |= {f"{name}.grad": p.grad for name, p in layer.named_parameters()}
    return found | {name: b.clone() for name, b in layer.named_buffers()}


OPTIONS: list[dict[str, Any]] = [{}, {"momentum": None, "affine": False}, {"stats_mode": "N", "eps": 0.1}]


def work(rank: int, folder: str) -> None:
    """One process: every case, its results written to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    pair = dist.new_group([0, 1])
    results = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for split in SPLITS:
            for i, options in enumerate(OPTIONS):
                for world, group in ((4, None), (2, pair)):
                    if rank >= world:
                        continue
                    layer = with_values(SyncBatchNorm(CHANNELS, group=group, **options), _parameters(dtype))
                    x, grad = batches(split, dtype)[rank], output_grads(split, dtype)[rank]
                    found = train_step(layer, x, grad)
                    layer.eval()
                    results[dtype, split, i, world] = found | {"eval": layer(x).detach()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _parameters(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype is torch.bfloat16 else dtype


@functools.cache
def results() -> list[dict[Any, dict[str, Tensor]]]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=PROCESSES)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("split", ["even", "uneven", "empty"])
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("option", range(len(OPTIONS)))
def test_processes_together_are_one_batch_norm(
    dtype: torch.dtype, split: str, world: int, option: int
) -> None:
    options = {k: v for k, v in OPTIONS[option].items() if k != "stats_mode"}
    layer = with_values(nn.BatchNorm2d(CHANNELS, **options), torch.float64)
    x = torch.cat(batches(split, dtype)[:world]).double()
    expected = train_step(layer, x, torch.cat(output_grads(split, dtype)[:world]).double())
    layer.eval()
    expected["eval"] = layer(x).detach()
    found = [results()[rank][dtype, split, option, world] for rank in range(world)]
    rtol, atol = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 2e-4), torch.bfloat16: (0.02, 0.05)}[
        dtype
    ]
    for name, value in expected.items():
        parts = [f[name].double() for f in found]
        if name in ("y", "x.grad", "eval"):
            assert [f[name].dtype for f in found] == [dtype] * world
            together = torch.cat(parts)
        elif name.endswith(".grad"):
            together = torch.stack(parts).sum(0)  # what DistributedDataParallel does
        else:
            together = parts[0]
            for part in parts[1:]:
                assert torch.equal(part, together), name
        torch.testing.assert_close(
            together, value.double(), rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_all_batches_empty_leaves_the_running_statistics_alone() -> None:
    for world in (2, 4):
        for rank in range(world):
            found = results()[rank][torch.float32, "all empty", 0, world]
            assert found["y"].shape == found["x.grad"].shape == (0, CHANNELS, 4, 5)
            assert found["running_mean"].tolist() == [0] * CHANNELS
            assert found["running_var"].tolist() == [1] * CHANNELS
            assert found["num_batches_tracked"] == 0
            assert not found["weight.grad"].any()
            assert not found["bias.grad"].any()


class TestOneProcess:
    @pytest.mark.parametrize("shape", [(), (6,), (4, 5), (2, 3, 4)], ids=str)
    @pytest.mark.parametrize(
        "options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}]
    )
    def test_is_batch_norm(self, shape: tuple[int, ...], options: dict[str, Any]) -> None:
        kind = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][len(shape)]
        x, grad = (torch.cat(f("even", torch.float64, shape)) for f in (batches, output_grads))
        ours = with_values(SyncBatchNorm(CHANNELS, **options), torch.float64)
        theirs = with_values(kind(CHANNELS, **options), torch.float64)
        for a, b in ((train_step(layer, x, grad) for layer in (ours, theirs)),):
            assert a.keys() == b.keys()
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))

    @pytest.mark.parametrize("training", [True, False])
    def test_empty_batch(self, training: bool) -> None:
        layer = SyncBatchNorm(CHANNELS).train(training)
        x = torch.zeros(0, CHANNELS, 4, requires_grad=True)
        y = layer(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert layer.weight.grad.tolist() == layer.bias.grad.tolist() == [0] * CHANNELS
        assert x.grad.shape == x.shape
        assert layer.running_var.tolist() == [1] * CHANNELS
        assert SyncBatchNorm(CHANNELS, affine=False).train(training)(x).shape == x.shape

    def test_gradient_of_the_synchronised_path(self) -> None:
        """The formula itself, by finite differences."""
        layer = with_values(SyncBatchNorm(CHANNELS), torch.float64)
        x = torch.randn(3, CHANNELS, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer._synchronised, (x,))
        layer.affine, layer.weight, layer.bias = False, None, None
        assert torch.autograd.gradcheck(layer._synchronised, (x,))

    def test_state_dict_is_that_of_batch_norm(self) -> None:
        layer = SyncBatchNorm(CHANNELS)
        assert layer.state_dict().keys() == nn.BatchNorm2d(CHANNELS).state_dict().keys()
        layer.load_state_dict(nn.BatchNorm2d(CHANNELS).state_dict())
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        copy.deepcopy(layer)

    def test_repr_and_errors(self) -> None:
        layer = SyncBatchNorm(CHANNELS, stats_mode="N")
        assert "stats_mode='N'" in repr(layer)
        with pytest.raises(ValueError, match="stats_mode must be 'default' or 'N', got 'n'"):
            SyncBatchNorm(CHANNELS, stats_mode="n")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"input must have shape \(N, 3, \.\.\.\), got \(3,\)"):
            layer(torch.zeros(3))
        with pytest.raises(ValueError, match=r"input must have shape \(N, 3, \.\.\.\), got \(2, 4, 5\)"):
            layer(torch.zeros(2, 4, 5))
