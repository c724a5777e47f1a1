"""Optimizers from configs, and the rules for single parameters."""

import pytest
import torch
from torch import nn

from cv.cnn import DeformableLayer
from cv.parallel import MMDataParallel
from cv.runner import (
    OPTIMIZER_BUILDERS,
    OPTIMIZERS,
    DefaultOptimizerConstructor,
    build_optimizer,
    build_optimizer_constructor,
)

LR, DECAY = 0.01, 0.0001


class Deformable(DeformableLayer, nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.conv_offset = nn.Conv2d(2, 2, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.param1 = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.depthwise = nn.Conv2d(4, 4, 1, groups=4)
        self.bn = nn.BatchNorm2d(4)
        self.sub = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "gn": nn.GroupNorm(2, 4)})
        self.dcn = Deformable()


def settings(paramwise=None, model=None, **kwargs):
    """Learning rate and weight decay of every parameter, by name."""
    model = model or Net()
    cfg = {"type": "SGD", "lr": LR, "weight_decay": DECAY, "momentum": 0.9, **kwargs}
    optimizer = build_optimizer(model, {**cfg, "paramwise_cfg": paramwise})
    inner = model.module if isinstance(model, MMDataParallel) else model
    name_of = {id(p): n for n, p in inner.named_parameters()}
    return {
        name_of[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def factors(paramwise, **kwargs):
    """Those that differ from the defaults, as multiples of them."""
    found = settings(paramwise, **kwargs)
    return {
        name: (pytest.approx(lr / LR), pytest.approx(decay / DECAY))
        for name, (lr, decay) in found.items()
        if (lr, decay) != (LR, DECAY)
    }


def test_every_torch_optimizer_is_registered():
    for name in (
        "SGD",
        "Adam",
        "AdamW",
        "RMSprop",
        "Adagrad",
        "LBFGS",
        "NAdam",
        "RAdam",
        "SparseAdam",
        "Rprop",
    ):
        assert OPTIMIZERS.get(name) is getattr(torch.optim, name)
    assert OPTIMIZERS.get("Optimizer") is None
    cfg = {"type": "AdamW", "lr": 0.1, "betas": (0.8, 0.9)}
    optimizer = build_optimizer(Net(), cfg)
    assert type(optimizer) is torch.optim.AdamW
    assert len(optimizer.param_groups) == 1
    assert cfg == {"type": "AdamW", "lr": 0.1, "betas": (0.8, 0.9)}


@pytest.mark.parametrize("wrap", [False, True])
def test_without_rules(wrap):
    model = MMDataParallel(Net()) if wrap else Net()
    assert set(settings(model=model).values()) == {(LR, DECAY)}


def test_every_rule():
    found = factors(
        {
            "bias_lr_mult": 2,
            "bias_decay_mult": 0.5,
            "norm_decay_mult": 0,
            "dwconv_decay_mult": 0.1,
            "dcn_offset_lr_mult": 0.1,
        }
    )
    assert found == {
        "depthwise.weight": (1, 0.1),
        "depthwise.bias": (2, 0.1),
        "bn.weight": (1, 0),
        "bn.bias": (1, 0),
        "sub.conv.bias": (2, 0.5),
        "sub.gn.weight": (1, 0),
        "sub.gn.bias": (1, 0),
        "dcn.conv_offset.weight": (0.1, 1),
        "dcn.conv_offset.bias": (0.1, 1),
    }


def test_custom_keys():
    """The longest key counts; among equally long ones the first in the alphabet; rules leave it alone."""
    found = factors(
        {
            "bias_lr_mult": 2,
            "custom_keys": {
                "sub": {"lr_mult": 3},
                "sub.conv": {"decay_mult": 0},
                "sub.gnx": {"lr_mult": 9},
                "conv.bias": {"lr_mult": 5},
                "sub.conv.": {"lr_mult": 7},
                "aram1": {"lr_mult": 4},
                "param": {"lr_mult": 6},
            },
        }
    )
    assert found == {
        "param1": (4, 1),
        "sub.conv.weight": (7, 1),
        "sub.conv.bias": (5, 1),
        "sub.gn.weight": (3, 1),
        "sub.gn.bias": (3, 1),
        "depthwise.bias": (2, 1),
    }


def test_frozen_parameters_stay_in():
    model = Net()
    model.conv.weight.requires_grad = False
    assert "conv.weight" in settings({"norm_decay_mult": 0}, model=model)


def test_duplicates():
    model = Net()
    model.again = nn.Sequential(model.conv)
    with pytest.raises(ValueError, match="more than one parameter group"):
        settings({"norm_decay_mult": 0}, model=model)
    with pytest.warns(UserWarning, match=r"again\.0 is duplicate. It is skipped since bypass_duplicate=True"):
        found = settings({"norm_decay_mult": 0, "bypass_duplicate": True}, model=model)
    assert len(found) == len(list(model.parameters()))


def test_errors():
    with pytest.raises(TypeError, match="optimizer_cfg should be a dict, but got <class 'list'>"):
        DefaultOptimizerConstructor([])
    with pytest.raises(TypeError, match="paramwise_cfg should be None or a dict"):
        DefaultOptimizerConstructor({}, [])
    with pytest.raises(TypeError, match="custom_keys should be a dict of dicts"):
        DefaultOptimizerConstructor({}, {"custom_keys": []})
    for rules in ({"norm_decay_mult": 0}, {"custom_keys": {"a": {"decay_mult": 1}}}):
        with pytest.raises(ValueError, match="optimizer_cfg must have a weight_decay"):
            DefaultOptimizerConstructor({"lr": 0.1}, rules)
    with pytest.raises(KeyError, match="NoSuch"):
        build_optimizer(Net(), {"type": "NoSuch"})


def test_own_constructor():
    @OPTIMIZER_BUILDERS.register_module()
    class Halving(DefaultOptimizerConstructor):
        def __call__(self, model):
            return torch.optim.SGD(model.parameters(), lr=self.base_lr / 2)

    try:
        cfg = {"type": "SGD", "lr": 1.0, "constructor": "Halving"}
        assert build_optimizer(Net(), cfg).param_groups[0]["lr"] == 0.5
        built = build_optimizer_constructor({"type": "Halving", "optimizer_cfg": {"lr": 1.0}})
        assert isinstance(built, Halving)
    finally:
        OPTIMIZER_BUILDERS.module_dict.pop("Halving")
