"""Every logger against the real package, and what it wrote read back."""

import contextlib
import io
import json
import logging
import os
import pty
import re
import sys
import time
import types

import numpy as np
import pytest
import torch
from test_checkpoint import small_files
from test_runner import Model, loader, make

from cv.runner import ClosureHook, EvalHook, Hook, IterBasedRunner, LogBuffer, LoggerHook, TextLoggerHook
from cv.runner.hooks.logger.live import LiveLine


class Steps(Model):
    """Losses 1, 2, 3 … in training, 100 in validation."""

    calls = 0

    def train_step(self, x, optimizer, **kwargs):
        self.calls += 1
        loss = self.linear(x).sum() * 0 + self.calls
        return {"loss": loss, "log_vars": {"loss": loss.item(), "acc": 0.5}, "num_samples": len(x)}

    def val_step(self, x, optimizer, **kwargs):
        return {"loss": 0, "log_vars": {"loss": 100.0}, "num_samples": len(x)}


def train(tmp_path, hooks, interval=2, epochs=2, optimizer=None, iters=None, meta=None):
    model = Steps()
    optimizer = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    logger = logging.getLogger("cv.runner.tests")
    kind, length = ([IterBasedRunner], {"max_iters": iters}) if iters else ([], {"max_epochs": epochs})
    runner = make(
        *kind, model=model, optimizer=optimizer, work_dir=tmp_path, logger=logger, meta=meta, **length
    )
    runner.register_training_hooks(None, log_config={"interval": interval, "hooks": hooks})
    runner.run([loader(5), loader(3)], [("train", 5 if iters else 1), ("val", 1)])
    return runner


def json_lines(tmp_path):
    (path,) = tmp_path.glob("*.log.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestText:
    def test_lines(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        train(tmp_path, [{"type": "TextLoggerHook", "ignore_last": False}], meta={"seed": 1})
        lines = [m for m in caplog.messages if m.startswith("Epoch")]
        time = r"time: \d+\.\d{3}, data_time: \d+\.\d{3}"
        eta = r"eta: \d:\d\d:\d\d"
        assert re.fullmatch(
            rf"Epoch \[1\]\[2/5\]\tlr: 2\.000e-02, {eta}, {time}, loss: 1\.5000, acc: 0\.5000", lines[0]
        )
        assert re.fullmatch(rf"Epoch \[1\]\[5/5\]\tlr: .*, {eta}, {time}, loss: 4\.5000, .*", lines[2])
        assert lines[3] == "Epoch(val) [1][3]\tloss: 100.0000"
        assert len(lines) == 8

    def test_json(self, tmp_path):
        train(tmp_path, [{"type": "TextLoggerHook"}], meta={"seed": 1, "exp_name": "x"})
        lines = json_lines(tmp_path)
        assert lines[0] == {"seed": 1, "exp_name": "x"}
        assert [line["mode"] for line in lines[1:]] == ["train", "train", "val"] * 2
        times = {"time", "data_time"}
        assert {k: v for k, v in lines[1].items() if k not in times} == {
            "mode": "train", "epoch": 1, "iter": 2, "lr": 0.02, "loss": 1.5, "acc": 0.5,
        }  # fmt: skip
        assert times < set(lines[1])
        validation = {k: v for k, v in lines[3].items() if k not in times}
        assert validation == {"mode": "val", "epoch": 1, "iter": 3, "lr": 0.02, "loss": 100.0}

    def test_by_iteration(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        train(tmp_path, [{"type": "TextLoggerHook"}], iters=4)
        lines = [m.split("\t")[0] for m in caplog.messages if m.startswith("Iter")]
        assert lines == ["Iter [2/4]", "Iter [4/4]"]

    def test_several_optimizers(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)

        def optimizers(model):
            return {
                "a": torch.optim.SGD([model.linear.weight], lr=0.1),
                "b": torch.optim.SGD([model.linear.bias], lr=0.2),
            }

        train(tmp_path, [{"type": "TextLoggerHook"}], optimizer=optimizers)
        assert any("lr_a: 1.000e-01 lr_b: 2.000e-01" in m for m in caplog.messages)
        assert json_lines(tmp_path)[0]["lr"] == {"a": 0.1, "b": 0.2}

    def test_experiment_name(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        hooks = [{"type": "TextLoggerHook", "interval_exp_name": 2}]
        train(tmp_path, hooks, epochs=1, meta={"exp_name": "first try"})
        assert caplog.messages.count("Exp name: first try") == 3  # twice, and after validation

    def test_values_of_any_kind(self, tmp_path):
        runner = make(work_dir=tmp_path, meta={})
        runner.mode, runner.data_loader = "val", loader(1)
        hook = TextLoggerHook()
        hook.before_run(runner)
        values = {
            "a": np.float32(0.5),
            "b": torch.tensor([1.0, 2]),
            "c": [0.123456789],
            "d": "text",
            "e": None,
        }
        runner.log_buffer.output.update(values)
        hook.log(runner)
        line = json_lines(tmp_path)[1]
        assert {k: line[k] for k in values} == {
            "a": 0.5,
            "b": [1.0, 2.0],
            "c": [0.12346],
            "d": "text",
            "e": None,
        }

    def test_interval_of_the_last_logger_clears(self, tmp_path):
        hooks = [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}]
        runner = train(tmp_path, hooks)
        assert [h.reset_flag for h in runner.hooks if isinstance(h, LoggerHook)] == [False, True]
        assert not runner.log_buffer.ready


def read_all(descriptor):
    """What was written to a terminal so far; the system hands it over in pieces."""
    pieces = []
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            pieces.append(os.read(descriptor, 100_000))
        time.sleep(0.01)
    return b"".join(pieces).decode()


def test_a_full_disk_does_not_end_the_run(tmp_path, caplog):
    """The line that does not fit is left out whole, later ones are written, and the log says so."""
    meta = {"note": "x" * 1800}  # so that a part of the line would fit
    runner = make(model=Steps(), work_dir=tmp_path, meta=meta, max_epochs=1)
    runner.register_training_hooks(None, log_config={"interval": 1, "hooks": [{"type": "TextLoggerHook"}]})
    with small_files() as limit:
        runner.register_hook(ClosureHook("before_train_iter", lambda r: limit(on=r.iter in (1, 2))))
        runner.run([loader(5)], [("train", 1)])
    assert [line["iter"] for line in json_lines(tmp_path)[1:]] == [1, 4, 5]
    assert caplog.text.count("A line of the log could not be written, training goes on") == 2


class TestLiveLine:
    def test_on_a_terminal(self, tmp_path, monkeypatch):
        """What a person sees: a bar that is redrawn, log lines above it, nothing left at the end."""
        monkeypatch.setenv("CV_LIVE_LINE", "1")
        monkeypatch.setenv("COLUMNS", "100")
        leader, follower = pty.openpty()
        os.set_blocking(leader, False)
        stream = os.fdopen(follower, "w")
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr("cv.runner.hooks.logger.live.REFRESH", 0.0)
        logger = logging.getLogger("cv.runner.live")
        handler = logging.StreamHandler(stream)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        runner = make(model=Steps(), logger=logger, max_epochs=1)
        runner.register_training_hooks(
            None, log_config={"interval": 3, "hooks": [{"type": "TextLoggerHook"}]}
        )
        runner.run([loader(5)], [("train", 1)])
        logger.removeHandler(handler)
        stream.flush()
        seen = read_all(leader)
        bars = re.findall(r"\r\x1b\[2K(\[=+ *\] \d/5 epoch 1/1 [^\r]*)", seen)
        assert [bar.split("] ")[1][:3] for bar in bars] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
        assert all(len(bar) < 100 for bar in bars)
        assert "it/s eta 0:00:00 loss 5.0000" in bars[-1]
        assert re.search(r"\r\x1b\[2KEpoch \[1\]\[3/5\]", seen)  # the bar makes room for the log line
        assert seen.endswith("\r\x1b[2K")
        assert [type(hook).__name__ for hook in runner.hooks] == ["IterTimerHook", "TextLoggerHook"]
        stream.close()
        os.close(leader)

    def test_not_in_a_file(self):
        stream = io.StringIO()
        line = LiveLine(logging.getLogger("cv.runner.tests"), stream)
        assert not line.due()
        line.close()
        assert stream.getvalue() == ""


class TestTags:
    def make(self, **kwargs):
        runner = make(**kwargs)
        runner.mode = "train"
        runner.log_buffer.output.update(
            loss=1.0, time=0.1, data_time=0.1, text="hello", array=np.array(2.0), vector=np.zeros(3)
        )
        return runner, type("Log", (LoggerHook,), {"log": lambda self, runner: None})()

    def test_loggable(self):
        runner, hook = self.make()
        rates = {"learning_rate": 0.02, "momentum": 0.9}
        assert hook.get_loggable_tags(runner) == {"train/loss": 1.0, "train/array": 2.0, **rates}
        text = hook.get_loggable_tags(runner, allow_scalar=False, allow_text=True, add_mode=False)
        assert text == {"text": "hello", **rates}
        everything = hook.get_loggable_tags(runner, tags_to_skip=())
        assert everything["train/time"] == 0.1

    def test_modes(self):
        runner, hook = self.make()
        del runner.log_buffer.output["time"]
        assert hook.get_mode(runner) == "val"  # what an evaluation hook put there
        runner.mode = "val"
        runner._epoch = 3
        assert (hook.get_mode(runner), hook.get_epoch(runner)) == ("val", 3)
        runner.mode = "test"
        with pytest.raises(ValueError, match="should be 'train' or 'val', but got test"):
            hook.get_mode(runner)

    def test_scalars(self):
        assert LoggerHook.is_scalar(1)
        assert LoggerHook.is_scalar(np.float64(1))
        assert LoggerHook.is_scalar(np.array(1))
        assert LoggerHook.is_scalar(torch.tensor([1.0]))
        assert not LoggerHook.is_scalar(np.array(1), include_np=False)
        assert not LoggerHook.is_scalar(torch.tensor(1), include_torch=False)
        assert not LoggerHook.is_scalar(np.zeros(2))
        assert not LoggerHook.is_scalar("1")


class TestLogBuffer:
    def test_averages_are_weighted(self):
        buffer = LogBuffer()
        buffer.update({"a": 1.0}, 1)
        buffer.update({"a": 4.0, "b": 2.0}, 3)
        buffer.average()
        assert buffer.output == {"a": 3.25, "b": 2.0}
        assert buffer.ready
        buffer.average(1)
        assert buffer.output["a"] == 4.0
        buffer.clear_output()
        assert not buffer.ready
        assert buffer.val_history["a"] == [1.0, 4.0]

    def test_state_comes_back(self):
        buffer, other = LogBuffer(), LogBuffer()
        buffer.update({"a": 0.25, "b": np.float32(2)}, 3)
        buffer.average()
        other.load_state_dict(buffer.state_dict())
        assert other.val_history == {"a": [0.25], "b": [2.0]}
        assert other.n_history == {"a": [3], "b": [3]}
        assert (other.output, other.ready) == ({"a": 0.25, "b": 2.0}, True)

    def test_history_may_be_bounded(self):
        buffer = LogBuffer(max_history=10)
        for i in range(1000):
            buffer.update({"a": i})
        assert 10 <= len(buffer.val_history["a"]) < 20
        buffer.average(10)
        assert buffer.output["a"] == 994.5

    def test_errors(self):
        with pytest.raises(TypeError, match="vars must be a dict, got list"):
            LogBuffer().update([1])
        with pytest.raises(ValueError, match="n must not be negative, got -1"):
            LogBuffer().average(-1)


EXPECTED_LOSSES = {2: 1.5, 4: 3.5, 7: 6.5, 9: 8.5}  # iteration: mean of the two latest


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, [{"type": "TensorboardLoggerHook"}])
    events = EventAccumulator(str(tmp_path / "tf_logs"))
    events.Reload()
    assert {"train/loss", "train/acc", "val/loss", "learning_rate", "momentum"} == set(
        events.Tags()["scalars"]
    )
    assert {e.step: e.value for e in events.Scalars("train/loss")} == EXPECTED_LOSSES
    assert events.Scalars("learning_rate")[0].value == pytest.approx(0.02)


@pytest.mark.filterwarnings("default")
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra cv-runner[mlflow] is not installed")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    hook = {"type": "MlflowLoggerHook", "exp_name": "digits", "tags": {"kind": "test"}, "log_model": False}
    train(tmp_path, [hook])
    run = mlflow.active_run() or mlflow.last_active_run()
    mlflow.end_run()
    client = mlflow.tracking.MlflowClient()
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    assert client.get_run(run.info.run_id).data.tags["kind"] == "test"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {m.step: m.value for m in history} == EXPECTED_LOSSES
    assert client.get_metric_history(run.info.run_id, "learning_rate")[0].value == 0.02


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("with_step", [True, False])
def test_wandb(tmp_path, monkeypatch, with_step):
    wandb = pytest.importorskip("wandb", reason="the extra cv-runner[wandb] is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = {"mode": "offline", "project": "digits", "dir": str(tmp_path)}
    hook = {"type": "WandbLoggerHook", "init_kwargs": options, "with_step": with_step}
    train(tmp_path, [hook])
    assert wandb.run is None  # finished
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = b""
    for _ in range(100):  # another process writes it
        content = record.read_bytes()
        if b"8.5" in content:
            break
        time.sleep(0.1)
    # A log of length-prefixed records; each item is a key and its value as JSON.
    found = re.findall(rb"train/(loss|step).{1,4}?(\d+\.?\d*)", content, re.DOTALL)
    losses = [float(value) for key, value in found if key == b"loss"]
    assert set(EXPECTED_LOSSES.values()) <= set(losses)
    assert any(key == b"step" for key, _ in found) is not with_step


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("with_step", [True, False])
def test_neptune(tmp_path, monkeypatch, with_step):
    pytest.importorskip("neptune", reason="the extra cv-runner[neptune] is not installed")
    monkeypatch.chdir(tmp_path)
    options = {"mode": "offline", "capture_hardware_metrics": False, "capture_stdout": False}
    options["capture_stderr"] = False
    train(tmp_path, [{"type": "NeptuneLoggerHook", "init_kwargs": options, "with_step": with_step}])
    (log,) = tmp_path.glob(".neptune/offline/**/data-*.log")
    text, decoder, position, entries = log.read_text(), json.JSONDecoder(), 0, []
    while position < len(text):
        entry, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        entries.append(entry["obj"])
    floats = [e for e in entries if e["type"] == "LogFloats"]
    losses = [(v["value"], v["step"]) for e in floats if e["path"] == ["train", "loss"] for v in e["values"]]
    assert sorted(value for value, _ in losses) == list(EXPECTED_LOSSES.values())
    if with_step:
        assert {step: value for value, step in losses} == EXPECTED_LOSSES
    else:
        assert any(e["path"] == ["train", "step"] for e in floats)


@pytest.mark.filterwarnings("default")
def test_dvclive(tmp_path, monkeypatch):
    pytest.importorskip("dvclive", reason="the extra cv-runner[dvclive] is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVCLIVE_TEST", "1")
    options = {"save_dvc_exp": False, "report": None}
    train(tmp_path, [{"type": "DvcliveLoggerHook", "path": str(tmp_path / "live"), "init_kwargs": options}])
    lines = (tmp_path / "live" / "plots" / "metrics" / "train" / "loss.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0] == ["step", "loss"]
    assert {int(step): float(value) for step, value in rows[1:]} == EXPECTED_LOSSES
    assert json.loads((tmp_path / "live" / "metrics.json").read_text())["train"]["loss"] == 8.5


def test_pavi_by_its_interface(tmp_path, monkeypatch):
    """The client is not public: what the hook calls, on a stand-in of the documented interface."""
    calls = []

    class SummaryWriter:
        def __init__(self, **kwargs):
            calls.append(("init", kwargs))

        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, args, kwargs))

    monkeypatch.setitem(sys.modules, "pavi", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    train(tmp_path, [{"type": "PaviLoggerHook", "init_kwargs": {"name": "first"}}], meta={"seed": 1})
    kind, options = calls[0]
    assert kind == "init"
    assert (options["name"], options["task"], options["model"]) == ("first", "first", "Steps")
    assert json.loads(options["session_text"]) == {"seed": 1}
    scalars = [call[1] for call in calls if call[0] == "add_scalars"]
    assert scalars[0][0] == "train"
    assert scalars[0][1]["loss"] == 1.5
    assert scalars[0][2] == 2
    assert scalars[2][0] == "val"
    assert scalars[2][2] == 1  # the epoch
    assert calls[-1][0] == "close"


@pytest.mark.parametrize(
    ("hook", "package", "extra"),
    [
        ("WandbLoggerHook", "wandb", "wandb"),
        ("MlflowLoggerHook", "mlflow", "mlflow"),
        ("NeptuneLoggerHook", "neptune", "neptune"),
        ("DvcliveLoggerHook", "dvclive", "dvclive"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, hook, package, extra):
    import cv.runner

    monkeypatch.setitem(sys.modules, package, None)
    options = {"path": "x"} if package == "dvclive" else {}
    with pytest.raises(ImportError, match=rf"pip install cv-runner\[{extra}\]"):
        getattr(cv.runner, hook)(**options)


def test_evaluation_results_are_tagged_val(tmp_path):
    """With TensorBoard and the evaluation hook together, as in every training script."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from test_evaluation import EvalModel, data_loader

    runner = make(model=EvalModel(), work_dir=tmp_path, max_epochs=2)
    hooks = [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}]
    runner.register_training_hooks(None, log_config={"interval": 1, "hooks": hooks})
    runner.register_hook(EvalHook(data_loader(0.25, 0.75)), "LOW")
    runner.run([loader(2)], [("train", 1)])
    events = EventAccumulator(str(tmp_path / "tf_logs"))
    events.Reload()
    assert [e.value for e in events.Scalars("val/acc")] == [0.25, 0.75]
    lines = json_lines(tmp_path)
    assert [line.get("acc") for line in lines if line["mode"] == "val"] == [0.25, 0.75]


def test_no_line_without_values(tmp_path, caplog):
    class Evaluation(Hook):  # as code for mmcv 1.x writes it: it clears the log, and its results are logged
        def after_train_iter(self, runner):
            if self.every_n_iters(runner, 2):
                runner.log_buffer.clear()
                runner.log_buffer.output["PSNR"] = 30.0
                runner.log_buffer.ready = True
                runner.call_hook("after_val_epoch")

    caplog.set_level(logging.INFO)
    model = Steps()
    runner = make(
        IterBasedRunner,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.02),
        work_dir=tmp_path,
        logger=logging.getLogger("cv.runner.tests"),
        max_iters=4,
    )
    log_config = {"interval": 1, "hooks": [{"type": "TextLoggerHook", "by_epoch": False}]}
    runner.register_training_hooks(None, log_config=log_config)
    runner.register_hook(Evaluation(), "LOW")
    runner.run([loader(5)], [("train", 1)])
    lines = [m.split("\t") for m in caplog.messages if m.startswith("Iter")]
    assert [line[0] for line in lines] == ["Iter [1/4]", "Iter(val) [2]", "Iter [3/4]", "Iter(val) [4]"]
    assert lines[1][1] == lines[3][1] == "PSNR: 30.0000"
