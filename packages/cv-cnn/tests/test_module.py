"""BaseModule and its containers: the order of initialisation, and the record in the log."""

import copy
import logging
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from cv.cnn import BaseModule, ModuleDict, ModuleList, Sequential
from cv.utils import get_logger
from cv.utils import logging as cv_logging


class Linear(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = nn.Linear(2, 2)


class Net(BaseModule):
    def __init__(self, init_cfg=None, child_cfg=None):
        super().__init__(init_cfg)
        self.stem = nn.Linear(2, 2)
        self.child = Linear(child_cfg)


CONSTANT = dict(type="Constant", layer="Linear", val=1, bias=2)


def test_children_come_after_their_parent():
    model = Net(CONSTANT, dict(type="Constant", layer="Linear", val=3))
    assert not model.is_init
    model.init_weights()
    assert model.is_init
    assert model.child.is_init
    assert (model.stem.weight == 1).all()
    assert (model.child.fc.weight == 3).all()
    assert (model.child.fc.bias == 0).all()


def test_plain_modules_in_between_hide_what_is_below():
    # nn.Sequential has no init_weights, the Sequential of this package has.
    below = dict(type="Constant", layer="Linear", val=3)
    for container, value in ((nn.Sequential, 1), (Sequential, 3)):
        model = Net(CONSTANT)
        model.body = container(Linear(below))
        model.init_weights()
        assert (model.body[0].fc.weight == value).all()


def test_config_is_copied():
    cfg = copy.deepcopy(CONSTANT)
    model = Net(cfg)
    cfg["val"] = 5
    model.init_weights()
    assert (model.stem.weight == 1).all()
    assert model.init_cfg == CONSTANT
    assert repr(model).endswith(f"init_cfg={CONSTANT}")
    assert "init_cfg" not in repr(Net())


def test_second_call_changes_nothing():
    model = Net(dict(type="Normal", layer="Linear"))
    model.init_weights()
    before = model.stem.weight.clone()
    with pytest.warns(UserWarning, match="init_weights of Net has been called more than once"):
        model.init_weights()
    assert torch.equal(model.stem.weight, before)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "net.pth"
    source = Net(dict(type="Constant", layer="Linear", val=9, bias=9))
    source.init_weights()
    torch.save(source.state_dict(), path)
    return str(path)


def test_pretrained_is_not_overwritten(checkpoint):
    model = Net(dict(type="Pretrained", checkpoint=checkpoint), dict(type="Constant", layer="Linear", val=3))
    model.init_weights()
    assert all((p == 9).all() for p in model.parameters())
    assert model.is_init
    assert not hasattr(model, "_params_init_info")
    assert not hasattr(model.child, "_params_init_info")


def test_pretrained_in_a_list_keeps_its_place(checkpoint):
    later = dict(type="Constant", val=5, override=dict(name="stem"))
    cfg = [dict(type="Constant", layer="Linear", val=1), dict(checkpoint=checkpoint), later]
    model = Net(cfg, dict(type="Constant", layer="Linear", val=3))
    model.init_weights()
    assert (model.child.fc.weight == 9).all()
    assert (model.stem.weight == 5).all()


def test_containers():
    layers = [nn.Linear(2, 2), Linear()]
    sequential = Sequential(*layers, init_cfg=CONSTANT)
    assert list(sequential) == layers
    assert isinstance(sequential, nn.Sequential)
    named = Sequential(OrderedDict(a=layers[0], b=layers[1]))
    assert [name for name, _ in named.named_children()] == ["a", "b"]
    assert len(sequential[:1]) == 1
    modules = ModuleList(layers, init_cfg=CONSTANT)
    assert list(modules) == layers
    assert len(ModuleList()) == 0
    table = ModuleDict({"x": layers[0]}, init_cfg=CONSTANT)
    assert table["x"] is layers[0]
    assert list(ModuleDict([("y", layers[1])]).keys()) == ["y"]
    for container in (sequential, modules, table):
        container.init_weights()
        for layer in container.modules():
            if isinstance(layer, nn.Linear):
                assert (layer.weight == 1).all()
                assert (layer.bias == 2).all()
        with torch.no_grad():
            for p in container.parameters():
                p.zero_()
    assert isinstance(pickle.loads(pickle.dumps(sequential)), Sequential)


class HandWritten(nn.Conv2d, BaseModule):
    """An init_weights of its own, and a torch layer before BaseModule among the bases."""

    def init_weights(self):
        for p in self.parameters():
            p.data.fill_(1)  # the version counter does not move


class Logged(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv1 = nn.Conv2d(1, 1, 1, 1)
        self.conv2 = HandWritten(1, 1, 1, 1)
        self.conv3 = nn.Conv2d(1, 1, 1, 1)
        self.fc1 = nn.Linear(1, 1)
        self.rest = nn.Linear(1, 1)
        self.empty = nn.Parameter(torch.empty(0))


LOGGED = [
    dict(
        type="Normal",
        layer="Conv2d",
        std=0.01,
        override=dict(type="Uniform", name="conv3", bias_prob=0.01),
    ),
    dict(type="Constant", val=0.0, bias=1.0, override=dict(name="fc1")),
]


@pytest.fixture
def only_logger(monkeypatch):
    """Forget the loggers of other tests, and the handlers this one adds."""
    monkeypatch.setattr(cv_logging, "logger_initialized", {})
    monkeypatch.setattr("cv.cnn.init.record.logger_initialized", cv_logging.logger_initialized)
    name = "test_cv_cnn_init"
    yield name
    for known in (name, "cv"):
        logger = logging.getLogger(known)
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


def test_log_says_who_initialised_what(tmp_path, only_logger):
    log_file = tmp_path / "train.log"
    get_logger(only_logger, log_file=log_file)
    model = Logged(LOGGED)
    assert not hasattr(model, "_params_init_info")
    model.init_weights()
    assert not hasattr(model, "_params_init_info")
    assert not hasattr(model.conv2, "_params_init_info")

    lines = log_file.read_text().splitlines()
    below = {line.split(" - ")[0]: lines[i + 1] for i, line in enumerate(lines[:-1])}
    assert lines[0].endswith("INFO - Name of parameter - Initialization information")
    assert below["conv1.weight"] == "NormalInit: bias=0, mean=0, std=0.01 "
    assert below["conv2.weight"] == "Initialized by user-defined `init_weights` in HandWritten  "
    assert "UniformInit" in below["conv3.bias"]
    assert "ConstantInit" in below["fc1.weight"]
    assert below["rest.bias"].startswith("The value is the same before and after calling `init_weights` of")
    assert "torch.Size([0])" in next(line for line in lines if line.startswith("empty - "))


def test_log_without_a_file_is_one_record(only_logger, caplog):
    get_logger(only_logger)
    with caplog.at_level(logging.INFO, logger=only_logger):
        Logged(LOGGED).init_weights()
    (record,) = (r for r in caplog.records if "Initialization information" in r.getMessage())
    assert record.name == only_logger
    assert "NormalInit" in record.getMessage()


def test_nobody_asked_for_a_log(only_logger, caplog, capsys):
    Logged(LOGGED).init_weights()
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("cv").handlers == []
    with caplog.at_level(logging.INFO, logger="cv"):
        Logged(LOGGED).init_weights()
    assert "NormalInit" in caplog.text


def test_record_is_gone_after_an_error():
    model = Net([CONSTANT, dict(type="Constant", val=1, override=dict(name="nothing"))])
    with pytest.raises(RuntimeError, match="did not have attribute nothing"):
        model.init_weights()
    assert not hasattr(model, "_params_init_info")
    assert not hasattr(model.child, "_params_init_info")


def test_replacing_a_parameter_is_an_error():
    class Replaces(BaseModule):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def init_weights(self):
            self.fc.weight = nn.Parameter(torch.ones(1, 1))

    model = Net()
    model.bad = Replaces()
    with pytest.raises(AssertionError, match=r"fc\.weight of Replaces is a new Parameter"):
        model.init_weights()


def test_meta_device():
    with torch.device("meta"):
        model = Net(CONSTANT)
    model.init_weights()
    assert model.stem.weight.is_meta
