"""Schedules in a runner, optimizer hooks, moving averages, small hooks."""

import logging

import numpy as np
import pytest
import torch
from test_runner import Model, loader, make
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from cv.parallel import MMDataParallel
from cv.runner import (
    CheckpointHook,
    ClosureHook,
    EMAHook,
    EmptyCacheHook,
    Hook,
    IterBasedRunner,
    OptimizerHook,
    ProfilerHook,
    SyncBuffersHook,
)
from cv.runner.hooks.lr_updater import CyclicLrUpdaterHook, OneCycleLrUpdaterHook, format_param
from cv.runner.hooks.momentum_updater import OneCycleMomentumUpdaterHook


class Watch(Hook):
    """Notes learning rate and momentum of every iteration, as the model's step sees them."""

    def __init__(self):
        self.lrs, self.momenta = [], []

    def before_train_iter(self, runner):
        self.lrs.append(runner.current_lr())
        self.momenta.append(runner.current_momentum())


def curves(lr=None, momentum=None, by_epoch=True, epochs=5, optimizer=None, length=3):
    """Learning rates and momenta of all iterations of a run."""
    model = Model()
    optimizer = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.95)
    if by_epoch:
        runner = make(model=model, optimizer=optimizer, max_epochs=epochs)
    else:
        runner = make(IterBasedRunner, model=model, optimizer=optimizer, max_iters=epochs * length)
    runner.register_training_hooks(lr, momentum_config=momentum)
    watch = Watch()
    runner.register_hook(watch, "LOW")
    runner.run([loader(length)], [("train", 1)])
    return watch.lrs, watch.momenta


def first(values):
    return [v[0] for v in values]


class TestLearningRate:
    def test_by_epoch(self):
        lrs, _ = curves({"policy": "step", "step": [1, 3], "gamma": 0.5})
        assert first(lrs) == pytest.approx([0.02] * 3 + [0.01] * 6 + [0.005] * 6)

    def test_by_iteration(self):
        lrs, _ = curves({"policy": "exp", "gamma": 0.9, "by_epoch": False})
        assert first(lrs) == pytest.approx([0.02 * 0.9**i for i in range(15)])

    def test_iteration_based(self):
        lrs, _ = curves({"policy": "poly", "power": 2, "min_lr": 1e-3}, by_epoch=False)
        assert first(lrs) == pytest.approx([(0.02 - 1e-3) * (1 - i / 15) ** 2 + 1e-3 for i in range(15)])

    @pytest.mark.parametrize(
        ("kind", "factors"),
        [
            ("constant", [0.1] * 5),
            ("linear", [0.1, 0.28, 0.46, 0.64, 0.82]),
            ("exp", [0.1 ** (1 - i / 5) for i in range(5)]),
        ],
    )
    @pytest.mark.parametrize("by_epoch", [True, False])
    def test_warmup_by_iteration(self, kind, factors, by_epoch):
        config = {"policy": "step", "step": 100, "warmup": kind, "warmup_iters": 5, "warmup_ratio": 0.1}
        lrs, _ = curves(config, by_epoch=by_epoch)
        assert first(lrs) == pytest.approx([0.02 * f for f in factors] + [0.02] * 10)

    def test_warmup_by_epoch(self):
        config = {"policy": "fixed", "warmup": "linear", "warmup_iters": 2, "warmup_ratio": 0.5}
        lrs, _ = curves({**config, "warmup_by_epoch": True})
        assert first(lrs) == pytest.approx([0.02 * (0.5 + 0.5 * min(i / 6, 1)) for i in range(15)])

    def test_after_warmup_iterations_are_left_alone(self):
        """A value that something else sets after warm-up stays until the next epoch."""
        lrs, model = [], Model()
        runner = make(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), max_epochs=3)
        runner.register_lr_hook({"policy": "fixed", "warmup": "constant", "warmup_iters": 4})

        def note_and_set(runner):
            lrs.append(runner.current_lr()[0])
            runner.optimizer.param_groups[0]["lr"] = 7.0

        runner.register_hook(ClosureHook("after_train_iter", note_and_set))
        runner.run([loader(3)], [("train", 1)])
        assert lrs == pytest.approx([0.05] * 4 + [0.5] + [7.0] + [0.5] + [7.0] * 2)

    def test_while_the_epoch_value_changes(self):
        config = {"policy": "step", "step": 1, "gamma": 0.5, "warmup": "constant", "warmup_iters": 4}
        lrs, _ = curves(config, epochs=3)
        assert first(lrs) == pytest.approx([0.002] * 3 + [0.001] + [0.01] * 2 + [0.005] * 3)

    def test_every_group_has_its_own(self):
        def optimizer(model):
            groups = [{"params": [model.linear.weight], "lr": 0.1}, {"params": [model.linear.bias]}]
            return torch.optim.SGD(groups, lr=0.4, momentum=0.9)

        lrs, _ = curves({"policy": "CosineAnnealing", "min_lr_ratio": 0.5}, optimizer=optimizer, epochs=2)
        assert lrs == [pytest.approx([0.1, 0.4])] * 3 + [pytest.approx([0.075, 0.3])] * 3

    def test_several_optimizers(self):
        def optimizers(model):
            return {
                "a": torch.optim.SGD([model.linear.weight], lr=0.1),
                "b": torch.optim.Adam([model.linear.bias], lr=0.2),
            }

        config = {"policy": "step", "step": [1], "warmup": "linear", "warmup_iters": 2, "warmup_ratio": 0.5}
        lrs, _ = curves(config, optimizer=optimizers, epochs=2)
        assert [v["a"][0] for v in lrs] == pytest.approx([0.05, 0.075, 0.1, 0.01, 0.01, 0.01])
        assert [v["b"][0] for v in lrs] == pytest.approx([0.1, 0.15, 0.2, 0.02, 0.02, 0.02])

    @pytest.mark.parametrize("three_phase", [False, True])
    def test_one_cycle_as_torch(self, three_phase):
        options = {"pct_start": 0.4, "div_factor": 10, "final_div_factor": 100, "three_phase": three_phase}
        lrs, _ = curves({"policy": "OneCycle", "max_lr": 0.5, **options}, by_epoch=False, length=10)
        optimizer = torch.optim.SGD(Model().parameters(), lr=0.1)
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=50, cycle_momentum=False, **options)
        for lr in first(lrs):
            assert lr == pytest.approx(optimizer.param_groups[0]["lr"])
            if scheduler.last_epoch < 49:
                optimizer.step()
                scheduler.step()

    def test_cyclic(self):
        lrs, _ = curves({"policy": "cyclic", "target_ratio": (5, 0.1), "cyclic_times": 3}, by_epoch=False)
        cycle = [1, 3, 5, 5 - 4.9 * 0.25, 2.55, 5 - 4.9 * 0.75]
        assert first(lrs)[:3] == pytest.approx([0.02 * f for f in cycle[:3]])
        assert first(lrs)[:5] == pytest.approx(first(lrs)[5:10])

    def test_restarts(self):
        config = {"policy": "CosineRestart", "periods": [2, 3], "restart_weights": [1, 0.5], "min_lr": 0}
        lrs, _ = curves(config, length=1)
        expected = [1, 0.5, 0.5, 0.5 * (1 + np.cos(np.pi / 3)) / 2, 0.5 * (1 + np.cos(2 * np.pi / 3)) / 2]
        assert first(lrs) == pytest.approx([0.02 * e for e in expected])

    def test_own_policy(self):
        from cv.runner import LrUpdaterHook

        class Halves(LrUpdaterHook):
            def get_lr(self, runner, base_lr):
                return base_lr / 2 ** (runner.epoch if self.by_epoch else runner.iter)

        lrs, _ = curves(Halves(), epochs=3, length=1)
        assert first(lrs) == pytest.approx([0.02, 0.01, 0.005])
        with pytest.raises(TypeError, match="LrUpdaterHook must implement get_lr"):
            curves(LrUpdaterHook())

    def test_errors(self):
        with pytest.raises(AssertionError, match="exactly one of min_lr and min_lr_ratio"):
            curves({"policy": "CosineAnnealing"})
        with pytest.raises(AssertionError, match="only by_epoch=False"):
            CyclicLrUpdaterHook(by_epoch=True)
        with pytest.raises(ValueError, match="target_ratio must be a number or a pair, got str"):
            CyclicLrUpdaterHook(target_ratio="10")
        with pytest.raises(AssertionError, match=r"step_ratio_up must be in \[0, 1\), got 1"):
            CyclicLrUpdaterHook(step_ratio_up=1)
        with pytest.raises(ValueError, match="total_steps must be a positive int, got 0"):
            OneCycleLrUpdaterHook(max_lr=1, total_steps=0)
        with pytest.raises(ValueError, match="total_steps must be at least the run's max_iters 15, got 3"):
            curves({"policy": "OneCycle", "max_lr": 1, "total_steps": 3}, by_epoch=False)
        with pytest.raises(ValueError, match="expected 1 values for max_lr, got 2"):
            format_param("max_lr", torch.optim.SGD(Model().parameters(), lr=1), [1, 2])
        with pytest.raises(ValueError, match="start_percent must be a number between 0 and 1, got 2"):
            curves({"policy": "FlatCosineAnnealing", "start_percent": 2, "min_lr": 0})


class TestMomentum:
    def test_step(self):
        _, momenta = curves(momentum={"policy": "step", "step": 2, "min_momentum": 0.3}, epochs=5, length=1)
        assert first(momenta) == pytest.approx([0.95, 0.95, 0.475, 0.475, 0.3])

    def test_warmup_begins_above(self):
        config = {"policy": "step", "step": 9, "warmup": "linear", "warmup_iters": 5, "warmup_ratio": 0.95}
        _, momenta = curves(momentum=config)
        factors = [0.95 + 0.05 * min(i / 5, 1) for i in range(15)]
        assert first(momenta) == pytest.approx([0.95 / f for f in factors])

    def test_betas(self):
        def adam(model):
            return torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.99))

        config = {"policy": "LinearAnnealing", "min_momentum": 0.4}
        _, momenta = curves(momentum=config, optimizer=adam, epochs=4, length=1)
        assert first(momenta) == pytest.approx([0.8, 0.7, 0.6, 0.5])

    def test_cyclic_mirrors(self):
        config = {"policy": "cyclic", "target_ratio": (0.5, 1), "anneal_strategy": "linear"}
        _, momenta = curves(momentum=config, by_epoch=False)
        expected = np.interp(range(15), [0, 6, 15], [0.95, 0.475, 0.95])
        assert first(momenta) == pytest.approx(list(expected))

    @pytest.mark.parametrize("three_phase", [False, True])
    def test_one_cycle_as_torch(self, three_phase):
        config = {"policy": "OneCycle", "pct_start": 0.4, "three_phase": three_phase}
        _, momenta = curves(momentum=config, by_epoch=False, length=10)
        optimizer = torch.optim.SGD(Model().parameters(), lr=0.1, momentum=0.9)
        scheduler = lr_scheduler.OneCycleLR(
            optimizer, 1, total_steps=50, pct_start=0.4, three_phase=three_phase
        )
        for momentum in first(momenta):
            assert momentum == pytest.approx(optimizer.param_groups[0]["momentum"])
            if scheduler.last_epoch < 49:
                optimizer.step()
                scheduler.step()

    def test_one_cycle_needs_a_momentum(self):
        with pytest.raises(ValueError, match="optimizer must support momentum"):
            curves(
                momentum=OneCycleMomentumUpdaterHook(),
                by_epoch=False,
                optimizer=lambda m: torch.optim.Rprop(m.parameters()),
            )


class TestOptimizerHook:
    def run(self, hook, batches=8, model=None):
        torch.manual_seed(0)
        model = model or Quadratic()
        runner = make(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), max_epochs=1)
        runner.register_optimizer_hook(hook)
        runner.run([DataLoader(torch.randn(batches, 3), batch_size=1)], [("train", 1)])
        return runner

    def test_clips_and_logs_the_norm(self):
        runner = self.run({"grad_clip": {"max_norm": 1e-3}}, batches=1)
        assert runner.log_buffer.val_history["grad_norm"][0] > 1e-3
        moved = (runner.model.weight.detach() - 1).norm()
        assert moved == pytest.approx(0.1 * 1e-3, rel=1e-2)

    def test_clips_values(self):
        runner = self.run({"grad_clip": {"clip_value": 1e-3}}, batches=1)
        assert (runner.model.weight.detach() - 1).abs().max() == pytest.approx(1e-4, rel=1e-2)
        assert "grad_norm" not in runner.log_buffer.val_history

    def test_no_parameters_to_clip(self):
        assert OptimizerHook(grad_clip={"max_norm": 1}).clip_grads([nn.Parameter(torch.zeros(1))]) is None

    @pytest.mark.parametrize("batches", [6, 7, 8])
    def test_accumulation_is_the_mean_over_its_group(self, batches):
        """3 batches of 1 sample step as 1 batch of 3; the group at the end is as large as it is."""
        runner = self.run({"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 3}, batches)
        torch.manual_seed(0)
        data, weight = torch.randn(batches, 3), torch.ones(3)
        for group in data.split(3):
            weight -= 0.1 * 2 * (weight - group).mean(0)
        torch.testing.assert_close(runner.model.weight.detach(), weight)

    def test_unused_parameters_are_named(self, caplog):
        model = Quadratic()
        model.idle = nn.Parameter(torch.zeros(2, 5))
        self.run({"detect_anomalous_params": True}, batches=1, model=model)
        assert "idle with shape (2, 5) is not in the computational graph" in caplog.text

    def test_cumulative_iters(self):
        with pytest.raises(AssertionError, match="cumulative_iters must be a positive int, got 0"):
            self.run({"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 0})

    def test_several_optimizers(self):
        model = Quadratic()
        model.other = nn.Parameter(torch.zeros(()))
        optimizers = {
            "a": torch.optim.SGD([model.weight], lr=0.1),
            "b": torch.optim.SGD([model.other], lr=0.1),
        }
        runner = make(model=model, optimizer=optimizers, max_epochs=1)
        runner.register_optimizer_hook({})
        runner.run([DataLoader(torch.zeros(1, 3))], [("train", 1)])
        assert (model.weight < 1).all()


class Quadratic(nn.Module):
    """Sum of squared distances from the data."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def train_step(self, data, optimizer):
        loss = (self.weight - data).square().sum(1).mean()
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data)}

    val_step = train_step


class TestEMA:
    @pytest.mark.parametrize("by_epoch", [True, False])
    @pytest.mark.parametrize("wrap", [False, True])
    def test_follows_its_formula(self, tmp_path, by_epoch, wrap):
        """The average by hand, in float64, beside the run's."""
        torch.manual_seed(0)
        model = Quadratic()
        kept = model.weight.detach().clone().double()
        runner = make(
            *([] if by_epoch else [IterBasedRunner]),
            model=MMDataParallel(model) if wrap else model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            work_dir=tmp_path,
            **({"max_epochs": 2} if by_epoch else {"max_iters": 8}),
        )
        trained = []

        def by_hand(runner):
            nonlocal kept
            weight = model.weight.detach().double()
            trained.append(weight)
            if runner.iter % 2 == 0:
                momentum = min(0.1**2, (1 + runner.iter) / (10 + runner.iter))
                kept = (1 - momentum) * kept + momentum * weight

        runner.register_optimizer_hook({})
        runner.register_hook(ClosureHook("after_train_iter", by_hand), "ABOVE_NORMAL")
        runner.register_hook(EMAHook(momentum=0.1, interval=2, warm_up=10), "ABOVE_NORMAL")
        runner.register_hook(CheckpointHook(interval=1, by_epoch=by_epoch))
        runner.run([DataLoader(torch.randn(4, 3))], [("train", 1)])
        loaded = torch.load(tmp_path / "latest.pth")["state_dict"]
        assert set(loaded) == {"weight", "ema_weight"}
        torch.testing.assert_close(loaded["weight"].double(), kept, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(loaded["ema_weight"].double(), trained[-1])
        assert torch.equal(model.weight, loaded["weight"])  # the averages stay in the model

    def test_names_that_differ_in_dots_only(self):
        model = nn.Module()
        model.a = nn.Module()
        model.a.b_c = nn.Parameter(torch.zeros(1))
        model.a_b = nn.Module()
        model.a_b.c = nn.Parameter(torch.ones(1))
        model.train_step = lambda data, optimizer: {"loss": 0}
        runner = make(model=model, optimizer=None)
        hook = EMAHook()
        hook.before_run(type("R", (), {"model": model}))
        assert len(set(hook.param_ema_buffer.values())) == 2
        assert runner.model.ema_a_b_c.item() == 0

    def test_resume_from(self, tmp_path):
        runner = make(work_dir=tmp_path, max_epochs=1)
        runner.register_hook(EMAHook(momentum=0.1), "HIGH")
        runner.register_hook(CheckpointHook(interval=1))
        runner.run([loader(2)], [("train", 1)])
        saved = torch.load(tmp_path / "epoch_1.pth")
        saved["state_dict"]["ema_linear_weight"].fill_(5.0)  # the trained weights
        torch.save(saved, tmp_path / "epoch_1.pth")
        other = make(max_epochs=2)
        seen = []
        other.register_hook(
            EMAHook(momentum=0.5, warm_up=0, resume_from=str(tmp_path / "epoch_1.pth")), "HIGH"
        )
        other.register_hook(CheckpointHook(interval=0, save_last=False))
        other.register_hook(
            ClosureHook("before_train_iter", lambda r: seen.append(r.model.linear.weight.clone()))
        )
        other.run([loader(2)], [("train", 1)])
        assert other.epoch == 2
        assert len(seen) == 2
        assert (seen[0] == 5).all()

    def test_arguments(self):
        with pytest.raises(AssertionError, match="interval must be a positive int, got 0"):
            EMAHook(interval=0)
        with pytest.raises(AssertionError, match=r"momentum must be in \(0, 1\), got 1"):
            EMAHook(momentum=1)


class TestSmallHooks:
    def test_timer(self):
        runner = make(max_epochs=1)
        runner.register_timer_hook({"type": "IterTimerHook"})
        runner.run([loader(3)], [("train", 1)])
        history = runner.log_buffer.val_history
        assert len(history["time"]) == len(history["data_time"]) == 3
        assert all(0 <= d <= t for d, t in zip(history["data_time"], history["time"], strict=True))

    def test_empty_cache(self, monkeypatch):
        calls = []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
        runner = make(max_epochs=2)
        runner.register_hook(EmptyCacheHook(before_epoch=True, after_epoch=True, after_iter=True))
        runner.run([loader(3)], [("train", 1)])
        assert len(calls) == 2 * (1 + 3 + 1)

    def test_sync_buffers_alone_does_nothing(self):
        runner = make(max_epochs=1)
        runner.register_hook(SyncBuffersHook())
        runner.run([loader(1)], [("train", 1)])

    def test_sampler_seed(self):
        from torch.utils.data.distributed import DistributedSampler

        data = torch.ones(4, 2)
        sampler = DistributedSampler(data, num_replicas=1, rank=0)
        runner, seen = make(max_epochs=3), []
        runner.register_custom_hooks({"type": "DistSamplerSeedHook"})
        runner.register_hook(ClosureHook("before_train_iter", lambda r: seen.append(sampler.epoch)))
        runner.run([DataLoader(data, sampler=sampler, batch_size=4)], [("train", 1)])
        assert seen == [0, 1, 2]

    @pytest.mark.parametrize("by_epoch", [True, False])
    def test_profiler(self, tmp_path, by_epoch, caplog):
        caplog.set_level(logging.INFO)
        runner = make(max_epochs=2)
        hook = {
            "by_epoch": by_epoch,
            "profile_iters": 1,
            "activities": ["cpu"],
            "on_trace_ready": {"type": "log_trace", "sort_by": "self_cpu_time_total", "row_limit": 3},
            "json_trace_path": str(tmp_path / "trace.json"),
        }
        runner.register_profiler_hook(hook)
        runner.run([loader(2)], [("train", 1)])
        assert "Self CPU" in caplog.text
        assert '"traceEvents"' in (tmp_path / "trace.json").read_text()

    def test_profiler_errors(self):
        with pytest.raises(ValueError, match="profile_iters should be greater than 0, got 0"):
            ProfilerHook(profile_iters=0)
        with pytest.raises(ValueError, match="activity should be 'cpu' or 'cuda', got 'tpu'"):
            ProfilerHook(activities=["tpu"])
        runner = make(max_epochs=1)
        runner.register_hook(ProfilerHook(profile_iters=2))
        with pytest.raises(ValueError, match="should not be greater than the run's length 1, got 2"):
            runner.run([loader(1)], [("train", 1)])
