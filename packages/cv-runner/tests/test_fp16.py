"""Mixed precision, on the CPU; on a GPU with ``-m cuda``."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cv.runner import (
    EpochBasedRunner,
    Fp16OptimizerHook,
    GradientCumulativeFp16OptimizerHook,
    LossScaler,
    auto_fp16,
    force_fp32,
    wrap_fp16_model,
)
from cv.runner.fp16_utils import cast_tensor_type


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fp16_enabled = False
        self.layer = nn.Linear(3, 3)

    @auto_fp16(apply_to=("x",))
    def forward(self, x, y, flag=None):
        return {"x": x, "y": y, "out": [self.layer(x)], "flag": flag}

    @auto_fp16(out_fp32=True)
    def back(self, x):
        return (x,)

    @force_fp32(apply_to=("pred",))
    def loss(self, pred, target):
        return pred, target

    @force_fp32(out_fp16=True)
    def small(self, pred):
        return pred * 2


def test_auto_fp16_casts_what_it_should_and_only_when_enabled():
    model, x, y = Mixed(), torch.ones(2, 3), torch.ones(2, 3)
    assert model(x, y)["x"].dtype == torch.float32
    wrap_fp16_model(model)
    out = model(x, y=y, flag="text")
    assert out["x"].dtype == torch.float16
    assert out["y"].dtype == torch.float32
    assert out["out"][0].dtype == torch.float16
    assert out["flag"] == "text"
    assert model(x=x, y=y)["x"].dtype == torch.float16  # by keyword, too
    assert model.back(x)[0].dtype == torch.float32
    assert model.layer.weight.dtype == torch.float32


def test_bfloat16():
    model = Mixed()
    wrap_fp16_model(model, dtype="bfloat16")
    assert model(torch.ones(2, 3), torch.ones(2, 3))["out"][0].dtype == torch.bfloat16
    assert model.small(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_force_fp32():
    model = Mixed()
    half = torch.ones(2, dtype=torch.float16)
    assert model.loss(half, half)[0].dtype == torch.float16
    wrap_fp16_model(model)
    pred, target = model.loss(half, half)
    assert (pred.dtype, target.dtype) == (torch.float32, torch.float16)
    assert model.small(half).dtype == torch.float16
    with torch.autocast("cpu", dtype=torch.bfloat16):  # autocast is off inside
        assert Inside()(torch.ones(1, 3)).dtype == torch.float32


class Inside(nn.Module):
    fp16_enabled = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    @force_fp32()
    def forward(self, x):
        return self.layer(x)


def test_decorators_are_for_modules():
    class NotAModule:
        @auto_fp16()
        def one(self, x):
            return x

        @force_fp32()
        def two(self, x):
            return x

    for method in (NotAModule().one, NotAModule().two):
        with pytest.raises(TypeError, match=r"can only be used to decorate the method of nn.Module"):
            method(1)


def test_cast_tensor_type_enters_containers():
    value = {"a": [torch.ones(1)], "b": (torch.ones(1, dtype=torch.int64), "text", None)}
    out = cast_tensor_type(value, torch.float32, torch.float16)
    assert out["a"][0].dtype == torch.float16
    assert out["b"][0].dtype == torch.int64
    assert out["b"][1:] == ("text", None)
    assert value["a"][0].dtype == torch.float32


def test_loss_scaler():
    scaler = LossScaler(init_scale=2.0**8, scale_window=3)
    parameter = nn.Parameter(torch.zeros(2))
    assert not scaler.has_overflow([parameter])  # no gradient yet
    parameter.grad = torch.tensor([1.0, float("inf")])
    assert scaler.has_overflow([parameter])
    scaler.update_scale(True)
    assert scaler.loss_scale == 2.0**7
    for _ in range(3):
        scaler.update_scale(False)
    assert scaler.loss_scale == 2.0**8
    other = LossScaler()
    other.load_state_dict(scaler.state_dict())
    assert vars(other) == vars(scaler)
    tiny = LossScaler(init_scale=1.0)
    tiny.update_scale(True)
    assert tiny.loss_scale == 1  # never below

    static = LossScaler(init_scale=4.0, mode="static")
    assert not static.has_overflow([parameter])
    static.update_scale(True)
    assert static.loss_scale == 4.0
    with pytest.raises(AssertionError, match="mode can only be 'dynamic' or 'static', got 'other'"):
        LossScaler(mode="other")


class Regression(nn.Module):
    """A linear model whose loss is made inf at chosen iterations."""

    def __init__(self, broken=()):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)
        self.broken, self.calls = broken, 0
        self.dtypes = set()

    def train_step(self, data, optimizer):
        out = self.layer(data)
        self.dtypes.add(out.dtype)
        loss = (out.float() - data.sum(1, keepdim=True)).square().mean()
        if self.calls in self.broken:
            loss = loss * float("inf")
        self.calls += 1
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data)}


def run(tmp_path, hook, model, epochs=10, lr=0.05, device="cpu"):
    torch.manual_seed(1)
    model.to(device)
    data = torch.randn(32, 4).to(device)
    runner = EpochBasedRunner(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        work_dir=str(tmp_path),
        logger=logging.getLogger("cv.runner.tests"),
        max_epochs=epochs,
    )
    runner.register_training_hooks(None, hook, None, None)
    runner.run([DataLoader(data, batch_size=8)], [("train", 1)])
    return runner


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss_scale", [512.0, {"init_scale": 1024.0, "growth_interval": 8}])
def test_training_follows_float32(tmp_path, dtype, loss_scale):
    plain = run(tmp_path, {"grad_clip": {"max_norm": 1.0}}, Regression())
    hook = Fp16OptimizerHook(grad_clip={"max_norm": 1.0}, loss_scale=loss_scale, dtype=dtype)
    mixed = run(tmp_path, hook, Regression())
    assert mixed.model.dtypes == {getattr(torch, dtype)}
    assert mixed.model.layer.weight.dtype == torch.float32
    eps = torch.finfo(getattr(torch, dtype)).eps
    torch.testing.assert_close(
        plain.model.layer.weight, mixed.model.layer.weight, rtol=20 * eps, atol=20 * eps
    )
    if dtype == "bfloat16":  # no scale that a checkpoint would hand to a run that goes on in float16
        assert "fp16" not in (mixed.meta or {})
    elif isinstance(loss_scale, dict):
        assert mixed.meta["fp16"]["loss_scaler"]["scale"] > 1024
    else:
        assert mixed.meta["fp16"]["loss_scaler"]["scale"] == 512.0


@pytest.mark.parametrize("loss_scale", [8.0, {"init_scale": 64.0}])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_steps_that_are_not_finite_are_left_out_and_reported(tmp_path, caplog, loss_scale, dtype):
    caplog.set_level(logging.WARNING)
    hook = Fp16OptimizerHook(loss_scale=loss_scale, dtype=dtype)
    runner = run(tmp_path, hook, Regression(broken={3, 4, 5}), epochs=2)
    assert torch.isfinite(runner.model.layer.weight).all()
    reports = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(reports) == 2  # the 1st and the 2nd in a row
    assert reports[0].startswith("Iteration 4: gradients hold inf or nan")
    assert hook.skipped == 0
    if dtype == "float16":
        assert hook.loss_scaler.get_scale() == 8.0  # static, or halved three times


def test_dynamic_begins_high_and_finds_its_scale(tmp_path):
    hook = Fp16OptimizerHook(loss_scale="dynamic")
    runner = run(tmp_path, hook, Regression())
    assert hook.loss_scaler.get_scale() < 2.0**16
    assert runner.meta["fp16"]["loss_scaler"]["scale"] == hook.loss_scaler.get_scale()


def test_accumulation_equals_a_larger_batch(tmp_path):
    """4 iterations of 8 samples: one step on their mean gradient, as in float32."""
    hook = GradientCumulativeFp16OptimizerHook(cumulative_iters=4, loss_scale=64.0)
    mixed = run(tmp_path, hook, Regression(), epochs=3)
    plain = run(
        tmp_path, {"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 4}, Regression(), epochs=3
    )
    torch.testing.assert_close(plain.model.layer.weight, mixed.model.layer.weight, rtol=1e-2, atol=1e-2)
    assert mixed.optimizer.state_dict()["param_groups"] == plain.optimizer.state_dict()["param_groups"]


def test_copies_between_precisions():
    net = nn.Linear(2, 2).half()
    weights = [p.detach().clone().float() for p in net.parameters()]
    net.weight.grad = torch.ones_like(net.weight)
    hook = Fp16OptimizerHook()
    hook.copy_grads_to_fp32(net, weights)
    assert weights[0].grad.dtype == torch.float32
    assert weights[1].grad is None
    hook.copy_params_to_fp16(net, [w * 0 + 3 for w in weights])
    assert (net.weight == 3).all()


def test_errors():
    with pytest.raises(ValueError, match="loss_scale must be a number, a dict or 'dynamic', got 'static'"):
        Fp16OptimizerHook(loss_scale="static")
    with pytest.raises(ValueError, match="dtype must be 'float16' or 'bfloat16', got 'int8'"):
        Fp16OptimizerHook(dtype="int8")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu(tmp_path):
    hook = Fp16OptimizerHook(loss_scale="dynamic")
    runner = run(tmp_path, hook, Regression(), device="cuda")
    assert runner.model.dtypes == {torch.float16}
    assert torch.isfinite(runner.model.layer.weight).all()
