"""EvalHook, DistEvalHook in one process, and cv.engine."""

import io
import logging
from collections import OrderedDict

import pytest
import torch
from test_runner import Model, loader, make
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cv.engine import collect_results_cpu, collect_results_gpu, multi_gpu_test, single_gpu_test
from cv.runner import ClosureHook, DistEvalHook, EMAHook, EvalHook, IterBasedRunner


class EvalData(Dataset):
    """``evaluate`` returns the next of the given metrics."""

    def __init__(self, *metrics):
        self.metrics = list(metrics)
        self.calls = []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"x": torch.full((2,), float(index))}

    def evaluate(self, results, logger=None, **kwargs):
        self.calls.append((results, logger, kwargs))
        metrics = self.metrics.pop(0) if self.metrics else {"acc": 0.5}
        return metrics if isinstance(metrics, dict) else OrderedDict(acc=metrics)


class EvalModel(Model):
    def forward(self, x, return_loss=True):
        assert not self.training
        assert not torch.is_grad_enabled()
        assert not return_loss
        return [int(v) for v in x[:, 0]]


def run(tmp_path, hook, by_epoch=True, length=5, start=0, before=(), **kwargs):
    runner_class = [] if by_epoch else [IterBasedRunner]
    limit = {"max_epochs": length} if by_epoch else {"max_iters": length}
    runner = make(*runner_class, model=EvalModel(), work_dir=tmp_path, meta={}, **limit, **kwargs)
    if by_epoch:
        runner._epoch = start
    else:
        runner._iter = start
    for other in before:
        runner.register_hook(other)
    runner.register_hook(hook, "LOW")
    runner.run([loader(1)], [("train", 1)])
    return runner


def data_loader(*metrics):
    return DataLoader(EvalData(*metrics), batch_size=2)


def test_results_come_in_order_with_logger_and_kwargs(tmp_path):
    data = data_loader()
    runner = run(tmp_path, EvalHook(data, metric="mAP"), length=1)
    assert data.dataset.calls == [([0, 1, 2], runner.logger, {"metric": "mAP"})]
    assert runner.log_buffer.output == {"eval_iter_num": 2, "acc": 0.5}
    assert runner.log_buffer.ready


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    ("start", "interval", "begin", "expected"),
    [
        (None, 1, 0, [1, 2, 3, 4, 5]),
        (None, 2, 0, [2, 4]),
        (1, 1, 0, [1, 2, 3, 4, 5]),
        (2, 2, 0, [2, 4]),
        (3, 2, 0, [3, 5]),
        (0, 3, 0, [0, 3]),
        (2, 2, 3, [3, 4]),  # started behind `start`: evaluates before training
        (None, {0: 2, 4: 1}, 0, [2, 4, 5]),
    ],
)
def test_when(tmp_path, by_epoch, start, interval, begin, expected):
    seen = []
    data = data_loader()

    class Noting(EvalHook):
        def _do_evaluate(self, runner):
            counted = runner.epoch if by_epoch else runner.iter
            stage = runner._stage
            seen.append(counted + (1 if stage.startswith("after") else 0))
            super()._do_evaluate(runner)

    run(tmp_path, Noting(data, start=start, interval=interval, by_epoch=by_epoch), by_epoch, start=begin)
    assert seen == expected


@pytest.mark.parametrize(("key", "rule"), [("acc", None), ("auto", None), ("acc", "less"), ("loss_x", None)])
def test_best_checkpoint(tmp_path, key, rule):
    scores = [0.1, 0.4, 0.3, 0.7, 0.05]
    name = "acc" if key == "auto" else key
    data = data_loader(*({name: s, "other": 1} for s in scores))
    less = rule == "less" or key == "loss_x"
    hook = EvalHook(data, save_best=key, rule=rule)
    runner = run(tmp_path, hook)
    best = 5 if less else 4
    messages = runner.meta["hook_msgs"]
    assert messages["best_score"] == (min(scores) if less else max(scores))
    assert messages["best_ckpt"] == str(tmp_path / f"best_{name}_epoch_{best}.pth")
    assert [p.name for p in tmp_path.glob("best_*")] == [f"best_{name}_epoch_{best}.pth"]
    assert torch.load(messages["best_ckpt"])["meta"]["epoch"] == best


def test_best_by_iteration_and_elsewhere(tmp_path):
    hook = EvalHook(data_loader(0.1, 0.9), by_epoch=False, save_best="acc", out_dir=str(tmp_path / "best"))
    run(tmp_path / "work", hook, by_epoch=False, length=2)
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["best_acc_iter_2.pth"]


def test_best_is_known_again_after_resuming(tmp_path):
    runner = run(tmp_path, EvalHook(data_loader(0.5, 0.8), save_best="acc"), length=2)
    best = runner.meta["hook_msgs"]["best_ckpt"]
    again = make(model=EvalModel(), work_dir=tmp_path, max_epochs=4)
    again.register_hook(EvalHook(data_loader(0.6, 0.9), save_best="acc"), "LOW")
    again.resume(best)
    assert again.meta["hook_msgs"]["best_score"] == 0.8
    again.run([loader(1)], [("train", 1)])
    assert [p.name for p in tmp_path.glob("best_*")] == ["best_acc_epoch_4.pth"]


def test_nan_and_empty_are_no_best(tmp_path, caplog):
    runner = run(tmp_path, EvalHook(data_loader(float("nan"), 0.2), save_best="acc"), length=2)
    assert runner.meta["hook_msgs"]["best_score"] == 0.2
    assert "acc is nan: no best checkpoint this time" in caplog.text
    with pytest.warns(UserWarning, match="empty dict, the behavior to save the best checkpoint"):
        run(tmp_path / "b", EvalHook(data_loader({}), save_best="auto"), length=1)


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("mIoU", "greater"),
        ("bbox_mAP_50", "greater"),
        ("AR@100", "greater"),
        ("accuracy_top-1", "greater"),
        ("loss_cls", "less"),
        ("EPE", "less"),
        ("f1_score", "greater"),
    ],
)
def test_rules_are_inferred(key, rule):
    assert EvalHook(data_loader(), save_best=key).rule == rule


def test_own_keys():
    hook = EvalHook(data_loader(), save_best="height", greater_keys="height")
    assert hook.rule == "greater"
    assert EvalHook(data_loader(), save_best="acc", greater_keys=[], less_keys=["acc"]).rule == "less"


def test_argument_errors(tmp_path):
    with pytest.raises(TypeError, match="dataloader must be a pytorch DataLoader, but got <class 'list'>"):
        EvalHook([1])
    with pytest.raises(ValueError, match="interval must be a positive number, but got -1"):
        EvalHook(data_loader(), interval=-1)
    with pytest.raises(ValueError, match="start epoch -1 is smaller than 0"):
        EvalHook(data_loader(), start=-1)
    with pytest.raises(AssertionError, match="save_best should be a str or None"):
        EvalHook(data_loader(), save_best=True)
    with pytest.raises(KeyError, match="rule must be greater, less or None, but got bigger"):
        EvalHook(data_loader(), save_best="acc", rule="bigger")
    with pytest.raises(ValueError, match="Cannot infer the rule for key 'beauty'"):
        EvalHook(data_loader(), save_best="beauty")
    with pytest.raises(ValueError, match="save_best must be one of the metrics"):
        run(tmp_path, EvalHook(data_loader(), save_best="mAP"))


@pytest.mark.parametrize("by_epoch", [True, False])
def test_training_goes_on_in_training_mode(tmp_path, by_epoch):
    modes = []
    watch = ClosureHook("before_train_iter", lambda runner: modes.append(runner.model.training))
    run(tmp_path, EvalHook(data_loader(), by_epoch=False), by_epoch, length=3, before=[watch])
    assert modes == [True] * 3


def test_averaged_weights_are_evaluated(tmp_path):
    """In an iteration-based run, too; training goes on with its own weights."""
    evaluated, trained = [], []

    def note(model, loader):
        evaluated.append(model.linear.weight.detach().clone())
        return [0, 0, 0]

    before = [
        EMAHook(momentum=0.01, warm_up=1000),
        ClosureHook("before_train_iter", lambda r: [p.data.add_(1) for p in (r.model.linear.weight,)]),
        ClosureHook("after_train_iter", lambda r: trained.append(r.model.linear.weight.detach().clone())),
    ]
    run(tmp_path, EvalHook(data_loader(), by_epoch=False, test_fn=note), False, length=3, before=before)
    for i in range(3):
        assert not torch.equal(evaluated[i], trained[i])
    assert torch.allclose(trained[2] - trained[0], torch.tensor(2.0))


def test_metrics_are_logged_apart_from_training(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    runner = make(IterBasedRunner, model=EvalModel(), work_dir=tmp_path, max_iters=4)
    runner.register_training_hooks(None, log_config={"interval": 2, "hooks": [{"type": "TextLoggerHook"}]})
    runner.register_hook(EvalHook(data_loader(0.25), by_epoch=False, interval=4), "LOW")
    runner.run([loader(2)], [("train", 1)])
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Iter")]
    assert [line.split("\t")[0] for line in lines] == ["Iter [2/4]", "Iter [4/4]", "Iter(val) [2]"]
    assert lines[2].endswith("acc: 0.2500")


def test_dist_hook_in_one_process(tmp_path):
    data = data_loader(0.3, 0.9)
    run(tmp_path, DistEvalHook(data, save_best="acc"), length=2)
    assert [c[0] for c in data.dataset.calls] == [[0, 1, 2]] * 2
    assert [p.name for p in tmp_path.glob("best_*")] == ["best_acc_epoch_2.pth"]


class Plain(nn.Module):
    def forward(self, x, return_loss):
        return list(x[:, 0])


def test_engine_in_one_process(capsys):
    data = data_loader()
    for test in (single_gpu_test, multi_gpu_test, lambda m, d: multi_gpu_test(m, d, gpu_collect=True)):
        assert [int(v) for v in test(Plain(), data)] == [0, 1, 2]
    assert "3/3" in capsys.readouterr().out
    assert collect_results_cpu([1, 2, 3], 2) == collect_results_gpu([1, 2, 3], 2) == [1, 2]


def test_the_progress_bar_ends_its_line(monkeypatch):
    """On a terminal, whatever is printed next would else stand behind the bar."""
    out = io.StringIO()
    out.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")

    class Answers(nn.Module):
        def forward(self, x, return_loss):
            return list(x)

    batches = [{"x": torch.ones(2)}, {"x": torch.ones(1)}]
    data = type("Loader", (), {"dataset": range(3), "__iter__": lambda self: iter(batches)})()
    assert len(single_gpu_test(Answers(), data)) == 3
    assert "3/3" in out.getvalue()
    assert out.getvalue().endswith("\n")
