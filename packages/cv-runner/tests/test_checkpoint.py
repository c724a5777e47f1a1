"""Saving, loading and keeping checkpoints; what happens when a file cannot be written."""

import contextlib
import logging
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from runner_toy import ToyModel, kill_while_saving
from test_evaluation import EvalModel, data_loader
from test_runner import Model, loader, make
from torch import nn

from cv.fileio import FileClient
from cv.parallel import MMDataParallel
from cv.runner import (
    CheckpointHook,
    ClosureHook,
    EvalHook,
    IterBasedRunner,
    load_checkpoint,
    save_checkpoint,
    save_safetensors,
    weights_to_cpu,
)
from cv.runner.checkpoint import get_state_dict, load_from_http, load_from_local, plain


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def test_loaders_of_single_schemes(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}}, path)
    assert load_from_local(str(path))["state_dict"]["a"] == 1
    with pytest.raises(FileNotFoundError):
        load_from_local(str(tmp_path / "none.pth"))
    monkeypatch.setattr("cv.cnn.checkpoint.loader.download", lambda url, model_dir: f"{model_dir}/{url[-5:]}")
    assert load_from_http("https://example.org/a.pth", model_dir=str(tmp_path))["state_dict"]["a"] == 1


class TestSaveCheckpoint:
    def test_fields(self, tmp_path):
        model = MMDataParallel(ToyModel())
        model.module.CLASSES = ("cat", "dog")
        optimizer = torch.optim.AdamW(model.parameters())
        path = tmp_path / "new" / "a.pth"
        save_checkpoint(model, str(path), optimizer, meta={"seed": np.int64(3), "path": tmp_path})
        loaded = torch.load(path, weights_only=True)
        assert set(loaded) == {"meta", "state_dict", "optimizer"}
        assert loaded["meta"]["CLASSES"] == ("cat", "dog")
        assert loaded["meta"]["seed"] == 3
        assert loaded["meta"]["path"] == str(tmp_path)
        assert "time" in loaded["meta"]
        assert next(iter(loaded["state_dict"])) == "net.0.weight"

    def test_versions_of_modules_come_along(self, tmp_path):
        class Versioned(nn.Linear):
            _version = 2
            seen = None

            def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
                self.seen = local_metadata.get("version")
                super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

        model = nn.Sequential(Versioned(1, 1))
        save_checkpoint(model, str(tmp_path / "a.pth"))
        model[0].seen = None
        load_checkpoint(model, str(tmp_path / "a.pth"))
        assert model[0].seen == 2

    def test_several_optimizers(self, tmp_path):
        model = Model()
        optimizers = {n: torch.optim.SGD(model.parameters(), lr=lr) for n, lr in (("a", 0.1), ("b", 0.2))}
        save_checkpoint(model, str(tmp_path / "a.pth"), optimizers)
        loaded = torch.load(tmp_path / "a.pth")["optimizer"]
        assert {n: s["param_groups"][0]["lr"] for n, s in loaded.items()} == {"a": 0.1, "b": 0.2}

    def test_wrappers_inside_leave_no_trace(self):
        model = nn.ModuleDict({"generator": MMDataParallel(Model()), "head": nn.Linear(1, 1)})
        keys = list(get_state_dict(model))
        assert keys == ["generator.linear.weight", "generator.linear.bias", "head.weight", "head.bias"]

    def test_meta_must_be_a_dict(self, tmp_path):
        with pytest.raises(TypeError, match="meta must be a dict or None, got str"):
            save_checkpoint(Model(), str(tmp_path / "a.pth"), meta="text")

    def test_values_that_a_checkpoint_cannot_hold(self, caplog):
        class Odd:
            def __str__(self):
                return "odd"

        assert plain({"x": [Odd(), (1, np.float32(2.5))]}, "meta[test]") == {"x": ["odd", (1, 2.5)]}
        assert "meta[test]['x'][0] is a Odd, which a checkpoint cannot hold" in caplog.text
        ordered = plain(OrderedDict(a=np.arange(2)), "meta")
        assert type(ordered) is OrderedDict
        assert torch.equal(ordered["a"], torch.arange(2))

    def test_weights_to_cpu(self):
        state = ToyModel().state_dict()
        copied = weights_to_cpu(state)
        assert list(copied) == list(state)
        assert copied._metadata == state._metadata

    def test_safetensors(self, tmp_path):
        from safetensors.torch import load_file

        model = ToyModel()
        model.tied = model.net[0].weight
        save_safetensors(model, str(tmp_path / "a.safetensors"), {"author": "me"})
        loaded = load_file(tmp_path / "a.safetensors")
        for key, value in model.state_dict().items():
            assert torch.equal(loaded[key], value)


class TestHook:
    @pytest.mark.parametrize("runner_class", ["epoch", "iter"])
    def test_interval_keep_and_last(self, tmp_path, runner_class):
        by_epoch = runner_class == "epoch"
        runner = make(max_epochs=7, work_dir=tmp_path) if by_epoch else None
        runner = runner or make(IterBasedRunner, max_iters=7, work_dir=tmp_path)
        runner.register_checkpoint_hook({"interval": 2, "max_keep_ckpts": 2, "by_epoch": by_epoch})
        runner.run([loader(1)], [("train", 1)])
        unit = "epoch" if by_epoch else "iter"
        assert names(tmp_path) == [f"{unit}_6.pth", f"{unit}_7.pth", "latest.pth"]
        assert (tmp_path / "latest.pth").readlink() == Path(f"{unit}_7.pth")

    def test_not_the_last_unless_asked(self, tmp_path):
        runner = make(max_epochs=3, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=2, save_last=False))
        runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path) == ["epoch_2.pth", "latest.pth"]

    def test_own_folder_template_and_no_link(self, tmp_path):
        runner = make(max_epochs=2, work_dir=tmp_path / "work")
        runner.register_checkpoint_hook(
            {
                "interval": 1,
                "out_dir": str(tmp_path / "out"),
                "filename_tmpl": "model_{}.pth",
                "create_symlink": False,
                "save_optimizer": False,
                "meta": {"note": 1},
            }
        )
        runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path / "out") == ["model_1.pth", "model_2.pth"]
        loaded = torch.load(tmp_path / "out" / "model_2.pth")
        assert set(loaded) == {"meta", "state_dict"}
        assert (loaded["meta"]["epoch"], loaded["meta"]["iter"], loaded["meta"]["note"]) == (2, 2, 1)

    def test_iterations_within_epochs(self, tmp_path):
        runner = make(max_epochs=1, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=2, by_epoch=False))
        runner.run([loader(5)], [("train", 1)])
        assert names(tmp_path) == ["iter_2.pth", "iter_4.pth", "iter_5.pth", "latest.pth"]
        meta = torch.load(tmp_path / "iter_2.pth")["meta"]
        assert (meta["epoch"], meta["iter"]) == (0, 2)

    def test_later_files_of_another_run_stay(self, tmp_path):
        (tmp_path / "epoch_90.pth").write_text("of another run")
        runner = make(max_epochs=3, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=1, max_keep_ckpts=1))
        runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path) == ["epoch_3.pth", "epoch_90.pth", "latest.pth"]

    def test_left_overs_of_a_killed_save_are_removed(self, tmp_path):
        (tmp_path / ".epoch_1.pth.0a1b.tmp").write_text("half")
        runner = make(work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=1))
        runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path) == ["epoch_1.pth", "latest.pth"]

    def test_no_folder(self):
        runner = make()
        runner.register_hook(CheckpointHook(interval=1))
        with pytest.raises(ValueError, match="needs out_dir, or the runner a work_dir"):
            runner.run([loader(1)], [("train", 1)])

    def test_on_error(self):
        with pytest.raises(ValueError, match="on_error must be 'continue' or 'raise', got 'ignore'"):
            CheckpointHook(on_error="ignore")


@contextlib.contextmanager
def small_files():
    """Lets the process write files of 2 kB at most: what a full disk looks like to it.

    Not a fixture: the limit must be off before pytest itself writes, for its output may be such a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(on):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000 if on else soft, hard))

    try:
        yield limit
    finally:
        limit(False)


@pytest.mark.parametrize("background", [False, True])
class TestFaults:
    def test_training_goes_on_when_a_save_fails(self, tmp_path, caplog, background):
        """Epoch 2 cannot be saved; epochs 1 and 3 can. Nothing is truncated, latest is whole."""
        runner = make(max_epochs=3, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=1, background=background))
        with small_files() as limit:
            runner.register_hook(ClosureHook("before_train_epoch", lambda r: _settle(r, limit, r.epoch == 1)))
            runner.register_hook(
                ClosureHook("after_train_epoch", lambda r: _settle(r, limit, False)), "LOWEST"
            )
            runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path) == ["epoch_1.pth", "epoch_3.pth", "latest.pth"]
        assert torch.load(tmp_path / "latest.pth")["meta"]["epoch"] == 3
        assert "The checkpoint could not be saved, training goes on" in caplog.text

    def test_the_last_save_raises(self, tmp_path, background):
        runner = make(max_epochs=2, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=1, background=background))
        with small_files() as limit:
            runner.register_hook(ClosureHook("before_train_epoch", lambda r: _settle(r, limit, r.epoch == 1)))
            with pytest.raises(OSError):
                runner.run([loader(1)], [("train", 1)])
        assert names(tmp_path) == ["epoch_1.pth", "latest.pth"]
        assert torch.load(tmp_path / "latest.pth")["meta"]["epoch"] == 1

    def test_or_stops_as_configured(self, tmp_path, background):
        runner = make(max_epochs=9, work_dir=tmp_path)
        runner.register_hook(CheckpointHook(interval=1, background=background, on_error="raise"))
        with small_files() as limit:
            runner.register_hook(ClosureHook("before_train_epoch", lambda r: _settle(r, limit, r.epoch >= 1)))
            with pytest.raises(OSError):
                runner.run([loader(1)], [("train", 1)])
        assert runner.epoch < 4


class TestBestOnAFullDisk:
    def run(self, folder, scores, **options):
        """The best checkpoint of epoch 2 cannot be saved."""
        runner = make(max_epochs=3, work_dir=folder, meta={})
        data = torch.utils.data.DataLoader(Scored())
        runner.register_hook(CheckpointHook(interval=-1, save_last=False, **options))
        runner.register_hook(
            EvalHook(data, save_best="acc", test_fn=lambda *_: [scores[runner.epoch]]), "LOW"
        )
        with small_files() as limit:
            runner.register_hook(ClosureHook("before_train_epoch", lambda r: limit(on=r.epoch == 1)))
            runner.register_hook(ClosureHook("after_train_epoch", lambda r: limit(on=False)), "LOWEST")
            runner.run([loader(1)], [("train", 1)])
        return runner.meta["hook_msgs"]

    def test_training_goes_on_and_the_former_best_stays(self, tmp_path, caplog, monkeypatch):
        seen = []
        monkeypatch.setattr(Scored, "seen", lambda self: seen.append(names(tmp_path)))
        messages = self.run(tmp_path, [0, 1, 2])
        assert seen[2] == ["best_acc_epoch_1.pth"]
        assert names(tmp_path) == ["best_acc_epoch_3.pth"]
        assert messages["best_score"] == 2
        assert messages["best_ckpt"] == str(tmp_path / "best_acc_epoch_3.pth")
        assert caplog.text.count("The best checkpoint could not be saved, training goes on") == 1

    def test_or_stops_as_configured(self, tmp_path):
        with pytest.raises(OSError):
            self.run(tmp_path, [0, 1, 2], on_error="raise")
        assert names(tmp_path) == ["best_acc_epoch_1.pth"]

    def test_the_score_of_the_former_best_counts(self, tmp_path):
        messages = self.run(tmp_path, [2, 3, 1])
        assert names(tmp_path) == ["best_acc_epoch_1.pth"]
        assert messages == {"best_score": 2, "best_ckpt": str(tmp_path / "best_acc_epoch_1.pth")}

    def test_a_better_one_of_the_same_name_stays(self, tmp_path):
        runner = make(work_dir=tmp_path, meta={})
        hook = EvalHook(torch.utils.data.DataLoader(Scored()), save_best="acc", out_dir=str(tmp_path))
        for score in (1.0, 2.0):
            hook._save_ckpt(runner, score)
            assert names(tmp_path) == ["best_acc_epoch_1.pth"]


class Scored(torch.utils.data.Dataset):
    """Its score is what the test function returned."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return torch.ones(2)

    def seen(self):
        """Called with every evaluation."""

    def evaluate(self, results, logger=None):
        self.seen()
        return {"acc": float(results[0])}


def _settle(runner, limit, on):
    """Change the limit only when a save in the background is done with the former one."""
    jobs = getattr(runner.writer, "_jobs", None)
    if jobs is not None:
        jobs.join()
    limit(on)


@pytest.mark.slow
def test_a_saving_process_is_killed_again_and_again(tmp_path, server):
    """Whenever the kill comes, every checkpoint is whole and latest points at one."""
    process = server.Process(target=kill_while_saving, args=(tmp_path, 12))
    process.start()
    process.join()
    assert process.exitcode == 0
    # A kill in the middle of a save leaves the file beside its target behind.
    assert int((tmp_path / "cut_short.txt").read_text()) >= 12


class TestResumeOfOldCheckpoints:
    """Layouts that mmcv 1.x wrote: no section for exact resuming, ``module.`` prefixes, meta fields."""

    def write(self, path, prefix=""):
        model = Model()
        nn.init.constant_(model.linear.weight, 3.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        state = OrderedDict((prefix + k, v) for k, v in model.state_dict().items())
        meta = {
            "epoch": 2,
            "iter": 6,
            "mmcv_version": "1.3.15",
            "time": "Sun",
            "hook_msgs": {"best_score": 0.5},
        }
        torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer.state_dict()}, path)

    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_they_resume_with_the_next_epoch(self, tmp_path, prefix):
        self.write(tmp_path / "old.pth", prefix)
        runner = make(max_epochs=3)
        runner.resume(str(tmp_path / "old.pth"))
        assert (runner.epoch, runner.iter) == (2, 6)
        assert runner.current_lr() == [0.5]
        assert (runner.model.linear.weight == 3).all()
        assert runner.meta["hook_msgs"]["best_score"] == 0.5
        runner.run([loader(3)], [("train", 1)])
        assert (runner.epoch, runner.iter) == (3, 9)

    def test_without_the_optimizer(self, tmp_path):
        self.write(tmp_path / "old.pth")
        runner = make(max_epochs=3)
        runner.resume(str(tmp_path / "old.pth"), resume_optimizer=False)
        assert runner.current_lr() == [0.02]


def test_other_data_than_before_is_an_error(tmp_path):
    runner = make(max_epochs=1, work_dir=tmp_path)
    runner.register_hook(CheckpointHook(interval=3, by_epoch=False))
    runner.run([loader(5)], [("train", 1)])
    shorter = make(max_epochs=1)
    shorter.resume(str(tmp_path / "iter_3.pth"))
    with pytest.raises(RuntimeError, match="ended after 2 batches, but the checkpoint was saved after 3"):
        shorter.run([loader(2)], [("train", 1)])


def test_changed_hooks_are_noticed(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    runner = make(max_epochs=2, work_dir=tmp_path)
    runner.register_hook(CheckpointHook(interval=1))
    runner.run([loader(1)], [("train", 1)])
    other = make(max_epochs=2)
    other.register_hook(ClosureHook("after_train_epoch", lambda r: None), "HIGHEST")
    other.resume(str(tmp_path / "epoch_1.pth"))
    other.run([loader(1)], [("train", 1)])
    assert "The hooks of after_train_epoch have changed" in caplog.text
    assert other.epoch == 2


class TestRemoteFolder:
    """``out_dir`` as a URI: fsspec, which torch depends on, has a file system in memory."""

    @pytest.fixture
    def folder(self):
        fsspec = pytest.importorskip("fsspec", reason="the extra cv-fileio[fsspec] is not installed")
        system = fsspec.filesystem("memory")
        system.store.clear()
        yield "memory://bucket/run"
        system.store.clear()

    def names(self, folder):
        return sorted(FileClient.infer_client(uri=folder).list_dir_or_file(folder))

    @pytest.mark.parametrize("background", [False, True])
    def test_saves_keeps_the_latest_and_resumes(self, tmp_path, folder, background):
        runner = make(work_dir=str(tmp_path), max_epochs=3)
        runner.register_hook(
            CheckpointHook(interval=1, out_dir=folder, max_keep_ckpts=2, background=background)
        )
        runner.run([loader(2)], [("train", 1)])
        assert self.names(folder) == ["epoch_2.pth", "epoch_3.pth"]
        assert runner.meta["hook_msgs"]["last_ckpt"] == f"{folder}/epoch_3.pth"
        assert names(tmp_path) == []

        resumed = make(work_dir=str(tmp_path), max_epochs=4)
        resumed.register_hook(CheckpointHook(interval=1, out_dir=f"{folder}/"))
        resumed.resume(f"{folder}/epoch_3.pth")
        assert resumed.epoch == 3
        resumed.run([loader(2)], [("train", 1)])
        assert "epoch_4.pth" in self.names(folder)

    def test_keeps_the_best(self, tmp_path, folder):
        runner = make(model=EvalModel(), work_dir=str(tmp_path), max_epochs=3, meta={})
        runner.register_hook(EvalHook(data_loader(0.5, 0.25, 0.75), save_best="acc", out_dir=folder))
        runner.run([loader(1)], [("train", 1)])
        assert self.names(folder) == ["best_acc_epoch_3.pth"]
        assert runner.meta["hook_msgs"]["best_ckpt"] == f"{folder}/best_acc_epoch_3.pth"

    def test_a_storage_that_refuses(self, tmp_path, folder, monkeypatch, caplog):
        from fsspec.implementations.memory import MemoryFileSystem

        def refuse(*args, **kwargs):
            raise PermissionError("the bucket is read-only")

        runner = make(work_dir=str(tmp_path), max_epochs=2)
        runner.register_hook(CheckpointHook(interval=1, out_dir=folder))
        monkeypatch.setattr(MemoryFileSystem, "_open", refuse)
        with pytest.raises(PermissionError, match="read-only"):  # the last save of a run
            runner.run([loader(1)], [("train", 1)])
        assert runner.epoch == 1
        assert "could not be saved, training goes on: the bucket is read-only" in caplog.text
