"""Loading checkpoints: the report, the loaders by prefix, and what is refused."""

import hashlib
import http.server
import io
import json
import logging
import pathlib
import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from cv.cnn.checkpoint import (
    CheckpointLoader,
    UntrustedCheckpointError,
    _load_checkpoint,
    _load_checkpoint_with_prefix,
    load_checkpoint,
    load_state_dict,
    read_checkpoint,
)
from cv.cnn.checkpoint.download import download, hash_in_name
from cv.cnn.checkpoint.model_zoo import MMCLS_FILES, OPENMMLAB_FILES
from cv.cnn.module_wrapper import MODULE_WRAPPERS, is_module_wrapper
from cv.fileio import BaseStorageBackend, FileClient
from cv.utils import Registry


class Block(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.conv = nn.Conv2d(3, 3, 3)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def saved(tmp_path):
    model = Net()
    path = tmp_path / "net.pth"
    torch.save({"meta": {"epoch": 3}, "state_dict": model.state_dict()}, path)
    return model, str(path)


class TestLoadStateDict:
    def test_exact(self, capsys):
        source, target = Net(), Net()
        load_state_dict(target, source.state_dict(), strict=True)
        assert same(source, target)
        assert capsys.readouterr().out == ""

    def test_report(self, capsys, caplog):
        state = Net().state_dict()
        state["extra"] = torch.zeros(1)
        state["block.deep.extra"] = torch.zeros(1)
        state["conv.weight"] = torch.zeros(1, 1)
        del state["block.linear.bias"]
        del state["block.norm.num_batches_tracked"]  # does not count
        before, target = dict(state), Net()
        load_state_dict(target, state)
        report = capsys.readouterr().out
        assert report.startswith("The model and loaded state dict do not match exactly\n")
        assert "unexpected key in source state_dict: extra, block.deep.extra\n" in report
        assert "missing keys in source state_dict: block.linear.bias\n" in report
        assert "size mismatch for conv.weight" in report
        assert "num_batches_tracked" not in report
        assert state == before
        assert torch.equal(target.block.linear.weight, state["block.linear.weight"])  # the rest is loaded

        logger = logging.getLogger("test_cv_cnn_report")
        with caplog.at_level(logging.WARNING, logger=logger.name):
            load_state_dict(target, state, logger=logger)
        assert caplog.records[-1].levelno == logging.WARNING
        assert caplog.records[-1].getMessage() + "\n" == report
        with pytest.raises(RuntimeError, match="do not match exactly") as error:
            load_state_dict(target, state, strict=True)
        assert str(error.value) + "\n" == report

    def test_long_reports_are_cut(self, capsys):
        load_state_dict(nn.Linear(1, 1, bias=False), {f"k{i}": torch.zeros(1) for i in range(1000)})
        assert "k99, … and 900 more" in capsys.readouterr().out

    def test_wrappers_at_any_depth(self):
        source, target = Net(), Net()
        target.block = nn.DataParallel(target.block)
        load_state_dict(nn.DataParallel(target), source.state_dict(), strict=True)
        assert torch.equal(target.block.module.linear.weight, source.block.linear.weight)

    def test_own_wrappers(self, monkeypatch):
        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

        assert not is_module_wrapper(Wrapper(Net()))
        monkeypatch.setattr(MODULE_WRAPPERS, "_children", {})
        child = Registry("module wrapper", parent=MODULE_WRAPPERS, scope="test")
        child.register_module(module=Wrapper)
        assert is_module_wrapper(Wrapper(Net()))
        load_state_dict(Wrapper(Net()), Net().state_dict(), strict=True)

    def test_version_reaches_the_modules(self):
        class Versioned(nn.Linear):
            _version = 3

            def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
                self.seen = local_metadata.get("version")
                super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

        source, target = nn.Sequential(Versioned(1, 1)), nn.Sequential(Versioned(1, 1))
        load_state_dict(target, source.state_dict(), strict=True)
        assert target[0].seen == 3
        load_state_dict(target, dict(source.state_dict()), strict=True)
        assert target[0].seen is None

    def test_upgrades_may_take_keys_from_beside_them(self):
        class Renamed(nn.Module):
            def __init__(self):
                super().__init__()
                self.offset = nn.Linear(1, 1)

            def _load_from_state_dict(self, state_dict, prefix, *args):
                for name in ("weight", "bias"):
                    old = f"{prefix[:-1]}_offset.{name}"
                    if old in state_dict:
                        state_dict[f"{prefix}offset.{name}"] = state_dict.pop(old)
                super()._load_from_state_dict(state_dict, prefix, *args)

        model = nn.ModuleDict({"conv": Renamed()})
        state = {"conv_offset.weight": torch.ones(1, 1), "conv_offset.bias": torch.ones(1)}
        load_state_dict(model, state, strict=True)
        assert model["conv"].offset.weight.item() == 1
        assert set(state) == {"conv_offset.weight", "conv_offset.bias"}

    def test_post_hooks_run(self):
        model, seen = nn.Linear(1, 1), []
        model.register_load_state_dict_post_hook(lambda module, keys: seen.append(keys.missing_keys))
        load_state_dict(model, {"weight": torch.ones(1, 1)}, logger=logging.getLogger("silent"))
        assert seen == [["bias"]]


class TestLoadCheckpoint:
    def test_file(self, saved, capsys):
        source, path = saved
        target = Net()
        checkpoint = load_checkpoint(target, path, strict=True)
        assert same(source, target)
        assert checkpoint["meta"] == {"epoch": 3}
        assert capsys.readouterr().out == f"load checkpoint from local path: {path}\n"
        load_checkpoint(target, pathlib.Path(path), map_location="cpu", logger=logging.getLogger("silent"))

    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
    def test_where_the_weights_are(self, wrap, tmp_path):
        source, target = Net(), Net()
        torch.save(wrap(source.state_dict()), tmp_path / "a.pth")
        load_checkpoint(target, tmp_path / "a.pth", strict=True)
        assert same(source, target)

    def test_module_prefix_is_stripped_from_keys_and_versions(self, tmp_path):
        torch.save(nn.DataParallel(Net()).state_dict(), tmp_path / "a.pth")
        seen = {}

        class Spy(nn.BatchNorm1d):
            def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
                seen.update(local_metadata)
                super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

        target = Net()
        target.block.norm = Spy(2)
        load_checkpoint(target, tmp_path / "a.pth", strict=True)
        assert seen["version"] == 2

    def test_revise_keys(self, saved, tmp_path):
        source, path = saved
        target = Block()
        load_checkpoint(target, path, revise_keys=[(r"^block\.", "")])
        assert same(source.block, target)
        with pytest.raises(ValueError, match="two keys the name 'x'"):
            load_checkpoint(target, path, revise_keys=[(r"^.+$", "x")])

    def test_prefix(self, saved):
        source, path = saved
        for prefix in ("block", "block."):
            state = _load_checkpoint_with_prefix(prefix, path)
            assert list(state) == list(source.block.state_dict())
            assert state._metadata["norm"]["version"] == 2
        with pytest.raises(AssertionError, match=r"bloc\. is not in the pretrained model"):
            _load_checkpoint_with_prefix("bloc", path)

    def test_errors(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.pth can not be found"):
            load_checkpoint(Net(), tmp_path / "nothing.pth")
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(RuntimeError, match=r"No state_dict found in checkpoint file .*list\.pth"):
            load_checkpoint(Net(), tmp_path / "list.pth")
        (tmp_path / "text.pth").write_text("not a checkpoint")
        with pytest.raises(RuntimeError, match=r"text\.pth is damaged, or no checkpoint"):
            load_checkpoint(Net(), tmp_path / "text.pth")
        (tmp_path / "empty.pth").touch()
        with pytest.raises(RuntimeError, match=r"empty\.pth is damaged"):
            load_checkpoint(Net(), tmp_path / "empty.pth")
        torch.save(Net().state_dict(), tmp_path / "whole.pth")
        content = (tmp_path / "whole.pth").read_bytes()
        (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
        with pytest.raises(RuntimeError, match=r"cut\.pth is damaged"):
            load_checkpoint(Net(), tmp_path / "cut.pth")

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("zipped", [True, False])
    def test_damaged_bytes(self, zipped):
        """Whatever a broken file makes torch stumble over, the error is one of ours and names the file."""
        buffer = io.BytesIO()
        torch.save(
            {"a": torch.ones(3), "meta": {"x": [1, 2.0, "s"]}},
            buffer,
            _use_new_zipfile_serialization=zipped,
        )
        whole = buffer.getvalue()
        random = np.random.default_rng(0)
        texts = []
        for _ in range(300):
            content = bytearray(whole)
            for place in random.integers(0, min(len(whole), 400), 3):
                content[place] = random.integers(256)
            try:
                read_checkpoint(bytes(content), name="broken.pth")
            except (RuntimeError, UntrustedCheckpointError) as error:
                texts.append(str(error))
        assert len(texts) > 20
        assert all(text.startswith("broken.pth") for text in texts)

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\x80", b"(", b"a", b"\x80\x02K\x01K\x02K\x03K\x04."]
    )
    def test_no_checkpoint_at_all(self, content):
        with pytest.raises(RuntimeError, match=r"^junk is damaged, or no checkpoint"):
            read_checkpoint(content, name="junk")

    def test_weights_of_a_gpu_without_one(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
            torch.save(Net().state_dict(), tmp_path / "gpu.pth")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(RuntimeError, match=r"gpu\.pth: Attempting .* on a CUDA device .*map_location"):
            load_checkpoint(Net(), tmp_path / "gpu.pth")
        load_checkpoint(Net(), tmp_path / "gpu.pth", map_location="cpu", strict=True)


RAN = []


def run_this(text):
    RAN.append(text)
    return text


class Malicious:
    def __reduce__(self):
        return run_this, ("boo",)


class Plain:
    pass


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
class TestTrust:
    def write(self, path, obj, zipped):
        torch.save(obj, path, _use_new_zipfile_serialization=zipped)
        return path

    def test_code_is_not_run(self, tmp_path, zipped, monkeypatch):
        RAN.clear()
        path = self.write(tmp_path / "a.pth", {"state_dict": {}, "meta": [Malicious(), Plain()]}, zipped)
        with pytest.raises(UntrustedCheckpointError) as error:
            load_checkpoint(Net(), path)
        assert RAN == []
        names = [f"{__name__}.Plain", f"{__name__}.run_this"]
        assert [name.rpartition(".")[2] for name in error.value.names] == ["Plain", "run_this"]
        for word in (str(path), "trust=True", "CV_CHECKPOINT_TRUST=1", "run_this"):
            assert word in str(error.value), names
        assert isinstance(error.value, pickle.UnpicklingError)
        copied = pickle.loads(pickle.dumps(error.value))
        assert str(copied) == str(error.value)

        _load_checkpoint(path, trust=True)
        assert RAN == ["boo"]
        monkeypatch.setenv("CV_CHECKPOINT_TRUST", "1")
        _load_checkpoint(path)
        assert RAN == ["boo", "boo"]
        monkeypatch.setenv("CV_CHECKPOINT_TRUST", "0")
        with pytest.raises(UntrustedCheckpointError):
            _load_checkpoint(path)

    def test_plain_data_is_allowed(self, tmp_path, zipped):
        meta = {
            "epoch": 3,
            "CLASSES": ("cat", "dog"),
            "hook_msgs": {"best_score": np.float64(0.5), "n": np.int64(3), "flag": np.bool_(True)},
            "array": np.arange(6, dtype=np.float32).reshape(2, 3),
            "names": np.array(["a", "bc"]),
            "range": range(3),
            "set": {1, 2},
        }
        path = self.write(tmp_path / "a.pth", {"meta": meta}, zipped)
        got = _load_checkpoint(path)["meta"]
        assert got.keys() == meta.keys()
        assert got["hook_msgs"] == meta["hook_msgs"]
        assert isinstance(got["hook_msgs"]["best_score"], np.float64)
        np.testing.assert_array_equal(got["array"], meta["array"])
        np.testing.assert_array_equal(got["names"], meta["names"])
        assert got["set"] == {1, 2}

    def test_objects_in_arrays_are_refused(self, tmp_path, zipped):
        path = self.write(tmp_path / "a.pth", {"meta": np.array([{}, None], dtype=object)}, zipped)
        with pytest.raises(UntrustedCheckpointError, match="ObjectDType"):
            _load_checkpoint(path)

    def test_optimizer_and_rng_states(self, tmp_path, zipped):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        state = {
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "np": np.random.get_state(),  # noqa: NPY002
        }
        got = _load_checkpoint(self.write(tmp_path / "a.pth", state, zipped))
        assert got["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
        np.testing.assert_array_equal(got["np"][1], state["np"][1])


class TestLoaders:
    def test_registering(self, monkeypatch):
        monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))

        @CheckpointLoader.register_scheme(prefixes=["tst://", "tst2://"])
        def load_from_test(filename, map_location):
            return {"short": filename, "map": map_location}

        CheckpointLoader.register_scheme("tst://long/", lambda filename, map_location, trust=False: trust)
        assert _load_checkpoint("tst://a", map_location="cpu") == {"short": "tst://a", "map": "cpu"}
        assert _load_checkpoint("tst://a", trust=True)["short"] == "tst://a"
        assert _load_checkpoint("tst://long/a") is False  # the longest prefix wins
        assert _load_checkpoint("tst://long/a", trust=True) is True
        with pytest.raises(KeyError, match="'tst2://' is already registered"):
            CheckpointLoader.register_scheme(["tst3://", "tst2://"], load_from_test)
        assert "tst3://" not in CheckpointLoader._schemes
        CheckpointLoader.register_scheme("tst2://", lambda filename, map_location: 2, force=True)
        assert CheckpointLoader.load_checkpoint("tst2://x") == 2

    def test_storage_backends(self, saved, monkeypatch):
        source, path = saved

        class Memory(BaseStorageBackend):
            def get(self, filepath):
                assert filepath == "mem-tst://bucket/net.pth"
                return pathlib.Path(path).read_bytes()

            def get_text(self, filepath, encoding="utf-8"):
                return self.get(filepath).decode(encoding)

        monkeypatch.setattr(FileClient, "_backends", dict(FileClient._backends))
        monkeypatch.setattr(FileClient, "_prefixes", dict(FileClient._prefixes))
        FileClient.register_backend("mem-tst", Memory, prefixes="mem-tst")
        target = Net()
        load_checkpoint(target, "mem-tst://bucket/net.pth", strict=True)
        assert same(source, target)
        with pytest.raises(ValueError, match=r'no loader for zzz://.*register_scheme\("zzz://", loader\)'):
            _load_checkpoint("zzz://a")

    def test_unknown_torchvision_name(self):
        with pytest.raises(ValueError, match="'resnet51' is not one of alexnet"):
            _load_checkpoint("torchvision://resnet51")

    def test_openmmlab(self, saved, tmp_path, monkeypatch):
        source, path = saved
        monkeypatch.delenv("CV_OPENMMLAB_MIRROR", raising=False)
        monkeypatch.delenv("MMCV_HOME", raising=False)
        with pytest.raises(FileNotFoundError, match=r"gone.*CV_OPENMMLAB_MIRROR"):
            _load_checkpoint("open-mmlab://resnet50_v1c")
        with pytest.raises(ValueError, match="'resnet50_v1x' is not a known model"):
            _load_checkpoint("open-mmlab://resnet50_v1x")

        mirrored = tmp_path / "mirror" / "pretrain" / "third_party" / "resnet50_msra-5891d200.pth"
        mirrored.parent.mkdir(parents=True)
        mirrored.write_bytes(pathlib.Path(path).read_bytes())
        monkeypatch.setenv("CV_OPENMMLAB_MIRROR", str(tmp_path / "mirror"))
        for name in ("open-mmlab://detectron2/resnet50_caffe", "openmmlab://detectron2/resnet50_caffe"):
            load_checkpoint(Net(), name, strict=True)
        with pytest.warns(UserWarning, match="in favor of open-mmlab://detectron2/resnet50_caffe"):
            _load_checkpoint("open-mmlab://resnet50_caffe_bgr")

        (tmp_path / "open_mmlab.json").write_text(json.dumps({"own": path}))
        monkeypatch.setenv("MMCV_HOME", str(tmp_path))
        target = Net()
        load_checkpoint(target, "open-mmlab://own", strict=True)
        assert same(source, target)

    def test_mmcls_gives_the_backbone(self, saved, tmp_path, monkeypatch):
        source, _ = saved
        monkeypatch.delenv("CV_OPENMMLAB_MIRROR", raising=False)
        with pytest.raises(FileNotFoundError, match=r"mmclassification/v0/vgg/vgg16_bn_.* is gone"):
            _load_checkpoint("mmcls://vgg16_bn")
        with pytest.raises(ValueError, match="'vgg17' is not a known model; known are mobilenet_v2, "):
            _load_checkpoint("mmcls://vgg17")
        path = tmp_path / MMCLS_FILES["vgg16_bn"]
        path.parent.mkdir(parents=True)
        entries = {f"backbone.{key}": value for key, value in source.state_dict().items()}
        torch.save({"state_dict": {**entries, "head.fc.weight": torch.ones(1)}, "meta": {}}, path)
        monkeypatch.setenv("CV_OPENMMLAB_MIRROR", str(tmp_path))
        target = Net()
        load_checkpoint(target, "mmcls://vgg16_bn", strict=True)
        assert same(source, target)

    def test_published_names(self):
        # Those that configs of mmdet, mmseg, mmpose, mmaction and mmedit ask for most.
        assert {"resnest101", "regnetx_3.2gf", "msra/hrnetv2_w40", "mmdet/mobilenet_v2"} < {*OPENMMLAB_FILES}
        assert {"mobilenet_v2", "resnet50_v1d", "se-resnet50", "shufflenet_v2"} < {*MMCLS_FILES}
        for file in (*OPENMMLAB_FILES.values(), *MMCLS_FILES.values()):
            assert hash_in_name(file)
            assert len(hash_in_name(file)) == 8


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server on a folder; its cache is another folder."""
    root = tmp_path / "www"
    root.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(root))

        def log_message(self, *args):
            requests.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()
        thread.join()


class TestHttp:
    def test_downloads_once(self, server):
        root, url, requests = server
        source, target = Net(), Net()
        torch.save(source.state_dict(), root / "net.pth")
        for _ in range(2):
            load_checkpoint(target, f"{url}/net.pth", strict=True)
            assert same(source, target)
        assert len(requests) == 1

    def test_same_file_name_elsewhere_is_another_file(self, server):
        root, url, _ = server
        for folder, value in (("a", 1), ("b", 2)):
            (root / folder).mkdir()
            torch.save({"x": value}, root / folder / "epoch_12.pth")
        assert [_load_checkpoint(f"{url}/{f}/epoch_12.pth")["x"] for f in "ab"] == [1, 2]

    def test_hash(self, server, tmp_path):
        root, url, requests = server
        torch.save({"x": 1}, root / "net.pth")
        digest = hashlib.sha256((root / "net.pth").read_bytes()).hexdigest()
        for _ in range(2):
            assert _load_checkpoint(f"{url}/net.pth#sha256={digest}") == {"x": 1}
        assert len(requests) == 1
        (cached,) = (tmp_path / "cache").rglob("net.pth")
        cached.write_bytes(b"broken")  # found out, and loaded again
        assert _load_checkpoint(f"{url}/net.pth#sha256={digest}") == {"x": 1}
        with pytest.raises(RuntimeError, match="invalid hash value"):
            _load_checkpoint(f"{url}/net.pth#sha256={'0' * 64}")

    def test_missing(self, server):
        _, url, _ = server
        with pytest.raises(OSError, match="404"):
            _load_checkpoint(f"{url}/nothing.pth")

    def test_torchvision_is_checked(self, server, monkeypatch, tmp_path):
        root, url, _ = server
        monkeypatch.setattr("cv.cnn.checkpoint.loader.TORCHVISION_BASE", f"{url}/")
        (root / "resnet18-f37072fd.pth").write_bytes(b"something else")
        with pytest.raises(RuntimeError, match=r'invalid hash value .expected "f37072fd"'):
            _load_checkpoint("torchvision://resnet18")
        assert not list((tmp_path / "cache").rglob("*.pth"))
        with (
            pytest.warns(UserWarning, match='"modelzoo://" is deprecated'),
            pytest.raises(RuntimeError, match="invalid hash value"),
        ):
            _load_checkpoint("modelzoo://resnet18")

    def test_openmmlab_mirror_is_checked(self, server, monkeypatch):
        root, url, _ = server
        monkeypatch.setenv("CV_OPENMMLAB_MIRROR", f"{url}/")
        (root / "pretrain" / "third_party").mkdir(parents=True)
        (root / "pretrain" / "third_party" / "resnet50_v1c-2cccc1ad.pth").write_bytes(b"something else")
        with pytest.raises(RuntimeError, match="invalid hash value"):
            _load_checkpoint("open-mmlab://resnet50_v1c")


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A server with the faults that real ones have; it keeps the headers of what it was asked."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cv.fileio.backends.http.time.sleep", lambda seconds: None)
    body = io.BytesIO()
    torch.save({"x": torch.arange(500_000)}, body)
    content = body.getvalue()
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers.get("Range")))
            first = sum(path == self.path for path, _ in asked) == 1
            if self.path == "/moved.pth":
                self.send_response(302)
                self.send_header("Location", "/whole.pth")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = int(self.headers["Range"][6:-1]) if "Range" in self.headers else 0
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.send_header("ETag", '"1"')
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            broken = self.path == "/always-cut.pth" or (self.path == "/cut.pth" and first)
            self.wfile.write(content[begin : len(content) // 2 if broken else None])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked, content
        httpd.shutdown()
        thread.join()


class TestFaultyServers:
    def files(self, tmp_path):
        return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]

    def test_a_download_that_is_cut_short_continues(self, faulty, tmp_path):
        url, asked, content = faulty
        assert torch.equal(_load_checkpoint(f"{url}/cut.pth")["x"], torch.arange(500_000))
        assert asked == [("/cut.pth", None), ("/cut.pth", f"bytes={len(content) // 2}-")]
        (cached,) = self.files(tmp_path)
        assert cached.read_bytes() == content

    def test_half_a_file_never_gets_into_the_cache(self, faulty, tmp_path):
        url, _, _ = faulty
        with pytest.raises(ConnectionError, match=r"always-cut\.pth: the connection was lost"):
            _load_checkpoint(f"{url}/always-cut.pth")
        assert self.files(tmp_path) == []

    def test_a_wrong_hash_leaves_nothing(self, faulty, tmp_path):
        url, _, _ = faulty
        with pytest.raises(RuntimeError, match=r'whole\.pth: invalid hash value \(expected "0000"'):
            _load_checkpoint(f"{url}/whole.pth#sha256=0000")
        assert self.files(tmp_path) == []

    def test_a_redirect_is_followed(self, faulty):
        url, asked, _ = faulty
        assert _load_checkpoint(f"{url}/moved.pth")["x"].shape == (500_000,)
        assert [path for path, _ in asked] == ["/moved.pth", "/whole.pth"]

    def test_progress_is_shown_by_the_first_rank(self, faulty, capsys, monkeypatch):
        url, _, _ = faulty
        _load_checkpoint(f"{url}/whole.pth")
        assert "100" in capsys.readouterr().err
        monkeypatch.setattr("cv.cnn.checkpoint.download.get_dist_info", lambda: (1, 2))
        _load_checkpoint(f"{url}/other.pth")
        assert capsys.readouterr().err == ""

    def test_several_at_once_download_once(self, faulty, tmp_path):
        # flock is between open files, so threads wait for each other as the ranks of a job do.
        url, asked, content = faulty
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(download(f"{url}/whole.pth"))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len(set(found)) == 1
        assert pathlib.Path(found[0]).read_bytes() == content
        assert len(asked) == 1

    def test_a_cache_that_cannot_be_written(self, faulty, tmp_path, monkeypatch):
        url, asked, _ = faulty
        cached = download(f"{url}/whole.pth")

        def refuse(*args):
            raise AssertionError("written to")

        with monkeypatch.context() as patch:  # read-only: what is there is found all the same
            patch.setattr("cv.cnn.checkpoint.download._one_process_at_a_time", refuse)
            patch.setattr("pathlib.Path.mkdir", refuse)
            assert download(f"{url}/whole.pth") == cached
        assert len(asked) == 1
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            download(f"{url}/whole.pth", tmp_path / "file" / "cache")
        assert len(asked) == 1


class TestSafetensors:
    def test_read(self, tmp_path):
        safetensors = pytest.importorskip("safetensors.torch", reason="needs cv-cnn[safetensors]")
        source, target = Net(), Net()
        path = tmp_path / "net.safetensors"
        safetensors.save_file(source.state_dict(), path, metadata={"epoch": "3"})
        checkpoint = load_checkpoint(target, path, map_location="cpu", strict=True)
        assert same(source, target)
        assert checkpoint["meta"] == {"epoch": "3"}
        assert isinstance(checkpoint["state_dict"], OrderedDict)
        again = read_checkpoint(path.read_bytes(), name="x.safetensors")
        assert again["state_dict"].keys() == checkpoint["state_dict"].keys()
        path.write_bytes(b"broken")
        with pytest.raises(RuntimeError, match="not a safetensors file, or damaged"):
            load_checkpoint(target, path)

    def test_not_installed(self, tmp_path, monkeypatch):
        (tmp_path / "a.safetensors").touch()
        monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
        with pytest.raises(ImportError, match=r"pip install cv-cnn\[safetensors\]"):
            read_checkpoint(tmp_path / "a.safetensors")
