"""The loops: arguments, order of stages and hooks, workflows, counters."""

import functools
import logging
import os
import re
import signal

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cv.parallel import MMDataParallel
from cv.runner import (
    HOOKS,
    RUNNERS,
    CheckpointHook,
    ClosureHook,
    EmptyCacheHook,
    EpochBasedRunner,
    Hook,
    IterBasedRunner,
    IterLoader,
    Priority,
    Runner,
    build_runner,
    get_priority,
    set_random_seed,
)
from cv.runner.hooks.hook import acts_if

LOGGER = logging.getLogger("cv.runner.tests")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def train_step(self, x, optimizer, **kwargs):
        loss = self.linear(x).sum()
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(x)}

    def val_step(self, x, optimizer, **kwargs):
        return self.train_step(x, optimizer)


class NoStep(nn.Module):
    def forward(self, x):
        return x


def loader(n=5):
    return DataLoader(torch.ones(n, 2))


def make(runner_class=EpochBasedRunner, **kwargs):
    model = kwargs.pop("model", None) or Model()
    length = {"max_epochs": 1} if runner_class is EpochBasedRunner else {"max_iters": 5}
    if "max_epochs" in kwargs or "max_iters" in kwargs:
        length = {}
    options = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), "logger": LOGGER}
    return runner_class(model, **{**options, **length, **kwargs})


class Recorder(Hook):
    """Writes down every stage with its counters."""

    def __init__(self):
        self.calls = []
        for stage in Hook.stages:
            setattr(self, stage, lambda runner, s=stage: self.calls.append((s, runner.epoch, runner.iter)))

    @property
    def names(self):
        return [call[0] for call in self.calls]


@pytest.mark.parametrize("runner_class", [EpochBasedRunner, IterBasedRunner])
class TestArguments:
    def test_wrong_types(self, runner_class, tmp_path):
        for name, value in [
            ("optimizer", "SGD"),
            ("optimizer", {"a": 1}),
            ("logger", "log.txt"),
            ("meta", ["list"]),
            ("work_dir", 3),
        ]:
            with pytest.raises(TypeError, match=name):
                make(runner_class, **{name: value})
        with pytest.raises(TypeError, match="batch_processor must be callable, got str"):
            make(runner_class, model=NoStepWithParameter(), batch_processor="process")

    def test_a_step_and_only_one(self, runner_class):
        with pytest.raises(AssertionError, match="NoStepWithParameter must have train_step"):
            make(runner_class, model=NoStepWithParameter())
        with (
            pytest.warns(DeprecationWarning, match="batch_processor is deprecated"),
            pytest.raises(RuntimeError, match="cannot be both available"),
        ):
            make(runner_class, batch_processor=lambda *a, **k: {})
        with pytest.warns(DeprecationWarning, match="batch_processor is deprecated"):
            make(runner_class, model=NoStepWithParameter(), batch_processor=lambda *a, **k: {})

    def test_one_length(self, runner_class):
        with pytest.raises(ValueError, match=r"^Only one of"):
            make(runner_class, max_epochs=1, max_iters=1)

    def test_folder_and_names(self, runner_class, tmp_path):
        runner = make(runner_class, work_dir=str(tmp_path / "a" / "b"), model=MMDataParallel(Model()))
        assert (tmp_path / "a" / "b").is_dir()
        assert runner.model_name == "Model"
        assert (runner.rank, runner.world_size, runner.epoch, runner.iter, runner.inner_iter) == (
            0,
            1,
            0,
            0,
            0,
        )

    def test_workflow(self, runner_class):
        runner = make(runner_class)
        with pytest.raises(AssertionError, match="data_loaders must be a list"):
            runner.run(loader(), [("train", 1)])
        with pytest.raises(AssertionError, match="workflow must be a list of"):
            runner.run([loader()], [["train", 1]])
        with pytest.raises(AssertionError, match="same length, got 2 and 1"):
            runner.run([loader(), loader()], [("train", 1)])
        with pytest.raises(ValueError, match='no method named "learn"'):
            runner.run([loader()], [("learn", 1)])
        with pytest.raises(TypeError, match="mode in workflow must be a str"):
            runner.run([loader()], [(1, 1)])
        endless = make(runner_class, max_epochs=None)
        with pytest.raises(AssertionError, match=r"max_(epochs|iters) must be specified"):
            endless.run([loader()], [("train", 1)])

    def test_steps_return_dicts(self, runner_class):
        runner = make(runner_class)
        runner.model.train_step = lambda *args: 1
        with pytest.raises(TypeError, match="must return a dict, got int"):
            runner.run([loader()], [("train", 1)])

    def test_built_from_a_config(self, runner_class):
        model = Model()
        cfg = {"type": runner_class.__name__, "max_iters": 3}
        runner = build_runner(cfg, {"model": model, "logger": LOGGER})
        assert type(runner) is runner_class
        assert runner.max_iters == 3
        assert cfg == {"type": runner_class.__name__, "max_iters": 3}
        assert RUNNERS.get(runner_class.__name__) is runner_class


class NoStepWithParameter(NoStep):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def test_a_default_logger():
    assert EpochBasedRunner(Model()).logger.name == "cv.runner"


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match="Runner was deprecated, please use EpochBasedRunner"):
        runner = Runner(Model(), logger=LOGGER)
    assert isinstance(runner, EpochBasedRunner)


def test_max_epochs_of_run_is_deprecated():
    runner = make(max_epochs=None)
    with pytest.warns(DeprecationWarning, match="setting max_epochs in run is deprecated"):
        runner.run([loader(2)], [("train", 1)], max_epochs=2)
    assert runner.epoch == 2


def test_stages_of_epochs():
    runner, recorder = make(max_epochs=3), Recorder()
    runner.register_hook(recorder)
    runner.run([loader(2), loader(1)], [("train", 2), ("val", 1)])
    train = ["before_train_epoch", *["before_train_iter", "after_train_iter"] * 2, "after_train_epoch"]
    val = ["before_val_epoch", "before_val_iter", "after_val_iter", "after_val_epoch"]
    assert recorder.names == ["before_run", *train, *train, *val, *train, *val, "after_run"]
    assert (runner.epoch, runner.iter, runner.max_iters) == (3, 6, 6)
    # Within its stages an epoch or iteration is not counted yet.
    assert recorder.calls[1:5] == [
        ("before_train_epoch", 0, 0),
        ("before_train_iter", 0, 0),
        ("after_train_iter", 0, 0),
        ("before_train_iter", 0, 1),
    ]


def test_stages_of_iterations():
    runner, recorder = make(IterBasedRunner, max_iters=5), Recorder()
    runner.register_hook(recorder)
    runner.run([loader(2), loader(1)], [("train", 3), ("val", 1)])
    train, val = ["before_train_iter", "after_train_iter"], ["before_val_iter", "after_val_iter"]
    assert recorder.names == ["before_run", *train * 3, *val, *train * 2, *val, "after_run"]
    assert (runner.epoch, runner.iter) == (1, 5)


def test_iter_loader_tells_the_sampler():
    class Sampler(torch.utils.data.SequentialSampler):
        epochs = ()

        def set_epoch(self, epoch):
            self.epochs = (*self.epochs, epoch)

    data = torch.arange(3)
    sampler = Sampler(data)
    batches = IterLoader(DataLoader(data, sampler=sampler))
    assert [int(next(batches)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert (batches.epoch, sampler.epochs, len(batches)) == (2, (1, 2), 3)
    with pytest.raises(ValueError, match="the data loader is empty"):
        next(IterLoader([]))


class TestHooks:
    def test_order(self):
        runner = make()
        names = ["NORMAL", "LOW", "HIGHEST", "NORMAL", 45, "VERY_LOW"]
        hooks = [Hook() for _ in names]
        for hook, priority in zip(hooks, names, strict=True):
            runner.register_hook(hook, priority)
        assert runner.hooks == [hooks[2], hooks[4], hooks[0], hooks[3], hooks[1], hooks[5]]
        assert [h.priority for h in runner.hooks] == [0, 45, 50, 50, 70, 90]

    def test_documented_order_of_training_hooks(self):
        runner = make()
        configs = {
            "lr_config": {"policy": "step", "step": 1},
            "optimizer_config": {"grad_clip": None},
            "checkpoint_config": {"interval": 1},
            "log_config": {"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
            "momentum_config": {"policy": "CosineAnnealing", "min_momentum": 0},
            "custom_hooks_config": [
                {"type": "EmptyCacheHook"},
                {"type": "DistSamplerSeedHook", "priority": "VERY_LOW"},
            ],
        }
        kept = repr(configs)
        runner.register_training_hooks(**configs)
        assert [(type(h).__name__, h.priority) for h in runner.hooks] == [
            ("StepLrUpdaterHook", 10),
            ("CosineAnnealingMomentumUpdaterHook", 30),
            ("OptimizerHook", 40),
            ("CheckpointHook", 50),
            ("EmptyCacheHook", 50),
            ("IterTimerHook", 70),
            ("TextLoggerHook", 90),
            ("DistSamplerSeedHook", 90),
        ]
        assert repr(configs) == kept
        info = runner.get_hook_info()
        assert info.startswith("before_run:\n(VERY_HIGH   ) StepLrUpdaterHook")
        assert re.search(r"after_train_iter:\n\(ABOVE_NORMAL\) OptimizerHook +\n\(NORMAL      \) Check", info)

    def test_iteration_based_configs_default_to_iterations(self):
        runner = make(IterBasedRunner)
        runner.register_training_hooks(
            {"policy": "poly"},
            checkpoint_config={"interval": 2},
            log_config={"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
            momentum_config={"policy": "step", "step": 2},
        )
        assert [h.by_epoch for h in runner.hooks if hasattr(h, "by_epoch")] == [False] * 4

    def test_registration_errors(self):
        runner = make()
        with pytest.raises(AssertionError, match="hook must be a Hook, got str"):
            runner.register_hook("hook")
        hook = Hook()
        runner.register_hook(hook)
        with pytest.raises(ValueError, match='"priority" is a reserved attribute'):
            runner.register_hook(hook)
        with pytest.raises(KeyError, match="'policy' or 'type'"):
            runner.register_lr_hook({"step": 1})

    def test_policy_names(self):
        runner = make()
        runner.register_lr_hook({"policy": "fixed"})
        runner.register_lr_hook({"policy": "OneCycle", "max_lr": 1})
        runner.register_lr_hook({"type": "InvLrUpdaterHook", "gamma": 1})
        names = [type(hook).__name__ for hook in runner.hooks]
        assert names == ["FixedLrUpdaterHook", "OneCycleLrUpdaterHook", "InvLrUpdaterHook"]

    def test_general_stages(self):
        calls = []

        class Both(Hook):
            def before_epoch(self, runner):
                calls.append(runner.mode)

        runner = make(max_epochs=1)
        runner.register_hook(Both())
        runner.run([loader(1), loader(1)], [("train", 1), ("val", 1)])
        assert calls == ["train", "val"]
        assert Both().get_triggered_stages() == ["before_train_epoch", "before_val_epoch"]

    def test_a_failing_hook_names_itself(self, caplog):
        runner = make()
        runner.register_hook(ClosureHook("after_train_iter", lambda runner: 1 / 0))
        with pytest.raises(ZeroDivisionError) as caught:
            runner.run([loader()], [("train", 1)])
        assert "ClosureHook.after_train_iter failed" in caplog.text
        if hasattr(caught.value, "__notes__"):
            assert caught.value.__notes__ == ["(ClosureHook.after_train_iter failed)"]

    def test_every_helper(self):
        runner, hook = make(max_epochs=4), Hook()
        runner._epoch, runner._iter, runner._inner_iter, runner._max_iters = 3, 9, 4, 10
        runner.data_loader = loader(5)
        assert hook.every_n_epochs(runner, 2)
        assert not hook.every_n_epochs(runner, 3)
        assert not hook.every_n_epochs(runner, 0)
        assert hook.every_n_iters(runner, 5)
        assert hook.every_n_inner_iters(runner, 5)
        assert not hook.every_n_inner_iters(runner, -1)
        assert hook.end_of_epoch(runner)
        assert hook.is_last_epoch(runner)
        assert hook.is_last_iter(runner)

    def test_closure(self):
        with pytest.raises(AssertionError, match="fn_name must be the name of a stage"):
            ClosureHook("after_lunch", print)
        with pytest.raises(AssertionError, match="fn must be callable"):
            ClosureHook("after_run", 1)

    def test_a_hook_added_on_the_way_is_called(self):
        runner, late = make(max_epochs=2), Recorder()
        runner.register_hook(
            ClosureHook("after_train_epoch", lambda r: r.epoch == 0 and r.register_hook(late, "LOW"))
        )
        runner.run([loader(1)], [("train", 1)])
        assert late.names[-4:] == ["before_train_iter", "after_train_iter", "after_train_epoch", "after_run"]


class TestCallsOfAnIteration:
    """What the loop calls is looked up once an epoch; nothing that acts may be left out."""

    def test_hooks_that_act_by_epoch_are_not_called_in_iterations(self, monkeypatch):
        called = []
        for cls in (CheckpointHook, EmptyCacheHook):
            for name in ("after_train_iter", "after_iter"):
                if name in vars(cls):
                    method = functools.wraps(vars(cls)[name])(lambda *_, c=cls: called.append(c))
                    monkeypatch.setattr(cls, name, method)
        runner = make(max_epochs=1)
        by_epoch = CheckpointHook(save_last=False), EmptyCacheHook()
        by_iter = CheckpointHook(by_epoch=False), EmptyCacheHook(after_iter=True)
        for hook in (*by_epoch, *by_iter):
            runner.register_hook(hook)
        runner.run([loader(1)], [("train", 1)])
        assert called == [CheckpointHook, EmptyCacheHook]

    def test_a_subclass_that_overrides_is_called(self):
        class Mine(CheckpointHook):
            seen = 0

            def after_train_iter(self, runner):
                self.seen += 1
                super().after_train_iter(runner)

        hook = Mine(save_last=False)  # by epoch: its base class would have nothing to do
        runner = make(max_epochs=2)
        runner.register_hook(hook)
        runner.run([loader(3)], [("train", 1)])
        assert hook.seen == 6

    def test_settings_changed_between_epochs_count(self):
        seen = []

        class Mine(Hook):
            active = False

            @acts_if(lambda hook: hook.active)
            def before_iter(self, runner):
                seen.append(runner.iter)

            def after_train_epoch(self, runner):
                self.active = True

        runner = make(max_epochs=2)
        runner.register_hook(Mine())
        runner.run([loader(3)], [("train", 1)])
        assert seen == [3, 4, 5]

    def test_hooks_and_methods_that_come_while_training(self):
        late, replaced = Recorder(), []

        class First(Hook):
            def before_train_iter(self, runner):
                if runner.iter == 1:
                    runner.register_hook(late, "LOW")
                if runner.iter == 2:
                    self.after_iter = lambda runner: replaced.append(runner.iter)

            def after_iter(self, runner):
                pass

        runner = make(max_epochs=1)
        runner.register_hook(First())
        runner.run([loader(4)], [("train", 1)])
        assert [c[2] for c in late.calls if c[0] == "after_train_iter"] == [1, 2, 3]
        assert [c[2] for c in late.calls if c[0] == "before_train_iter"] == [2, 3]
        assert replaced == [2, 3]

    def test_training_and_general_methods_of_a_mixed_hook(self):
        calls = []

        class Mixed(Hook):
            def after_iter(self, runner):
                calls.append((runner.mode, "general"))

            def after_train_iter(self, runner):
                calls.append((runner.mode, "own"))

        runner = make(max_epochs=1)
        runner.register_hook(Mixed())
        runner.run([loader(1), loader(1)], [("train", 1), ("val", 1)])
        assert calls == [("train", "own"), ("val", "general")]


def test_priorities():
    assert get_priority("very_high") == get_priority(Priority.VERY_HIGH) == get_priority(10) == 10
    with pytest.raises(ValueError, match="between 0 and 100, got 101"):
        get_priority(101)
    with pytest.raises(KeyError, match="priority must be one of HIGHEST"):
        get_priority("URGENT")
    with pytest.raises(TypeError, match="must be an int, a str or a Priority, got float"):
        get_priority(5.0)


def test_current_values_of_several_optimizers():
    model = Model()
    optimizers = {
        "sgd": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8),
        "adam": torch.optim.Adam(model.parameters(), lr=0.2, betas=(0.7, 0.9)),
        "rprop": torch.optim.Rprop(model.parameters(), lr=0.3),
    }
    runner = make(model=model, optimizer=optimizers)
    assert runner.current_lr() == {"sgd": [0.1], "adam": [0.2], "rprop": [0.3]}
    assert runner.current_momentum() == {"sgd": [0.8], "adam": [0.7], "rprop": [0]}
    with pytest.raises(RuntimeError, match="lr is not applicable because optimizer does not exist"):
        make(optimizer=None).current_lr()


def test_a_dead_worker_says_which_samples(caplog):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            if index == 7:
                raise OSError("cannot read")
            return torch.ones(2)

    set_random_seed(3)
    order = list(DataLoader(range(12), batch_size=3, shuffle=True))
    batch = next(i for i, b in enumerate(order) if 7 in b.tolist())
    runner = make()
    set_random_seed(3)
    with pytest.raises(OSError, match="cannot read"):
        runner.run([DataLoader(Broken(), batch_size=3, shuffle=True)], [("train", 1)])
    assert f"while loading batch {batch} (counted from 0) of this pass, samples" in caplog.text
    assert str(order[batch].tolist()) in caplog.text


def test_checkpoints_of_an_unsaved_run(tmp_path):
    runner = make(work_dir=str(tmp_path))
    runner.register_hook(CheckpointHook(interval=1))
    runner.run([loader(1)], [("train", 1)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_1.pth", "latest.pth"]
    assert runner.meta["hook_msgs"]["last_ckpt"] == str(tmp_path / "epoch_1.pth")
    assert set(HOOKS.module_dict) >= {"CheckpointHook", "EvalHook", "TextLoggerHook"}


class Deadly(torch.utils.data.Dataset):
    """A worker that loads sample 7 is killed, as one that takes too much memory is."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(2)


def train_with_a_killed_worker(log_file):
    """In a process of its own: torch raises for a dead worker wherever the program is when the news come."""
    logging.basicConfig(filename=log_file, force=True)
    runner = make()
    runner.run([DataLoader(Deadly(), batch_size=3, num_workers=1)], [("train", 1)])


def test_a_killed_worker_says_which_samples_were_under_way(tmp_path, server):
    process = server.Process(target=train_with_a_killed_worker, args=(tmp_path / "log.txt",))
    process.start()
    process.join(100)
    assert process.exitcode == 1
    log = (tmp_path / "log.txt").read_text()
    message = next(line for line in log.splitlines() if "while loading batch" in line)
    assert "7" in message.partition("samples")[2]
