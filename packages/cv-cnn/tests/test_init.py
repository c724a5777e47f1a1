"""Initialisers: distributions, the picking of layers, overrides, and the errors."""

import copy
import math

import pytest
import torch
from torch import nn

from cv.cnn import (
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    NormalInit,
    PretrainedInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
    bias_init_with_prob,
    caffe2_xavier_init,
    constant_init,
    initialize,
    kaiming_init,
    normal_init,
    trunc_normal_init,
    uniform_init,
    update_init_info,
    xavier_init,
)
from cv.cnn.utils.weight_init import trunc_normal_


def conv(out=64, inp=32, kernel=3, groups=1):
    return nn.Conv2d(inp * groups, out, kernel, groups=groups)


def kolmogorov_smirnov(sample, cdf):
    """The greatest distance between the empirical and the given distribution function."""
    x = sample.detach().double().flatten().sort().values
    n = x.numel()
    theory = cdf(x)
    steps = torch.arange(n + 1, dtype=torch.double) / n
    return max((theory - steps[:-1]).max().item(), (steps[1:] - theory).max().item())


def assert_distribution(sample, cdf):
    # sqrt(n)·D exceeds 2.2 with a probability of 1e-4 if the distribution is right (Kolmogorov 1933).
    assert kolmogorov_smirnov(sample, cdf) * math.sqrt(sample.numel()) < 2.2


def normal_cdf(mean, std):
    return lambda x: 0.5 * (1 + torch.erf((x - mean) / (std * math.sqrt(2))))


def uniform_cdf(a, b):
    return lambda x: ((x - a) / (b - a)).clamp(0, 1)


FAN_IN, FAN_OUT = 32 * 9, 64 * 9


@pytest.mark.parametrize(
    ("init", "cdf"),
    [
        (lambda m: normal_init(m, mean=1.5, std=0.3, bias=0.25), normal_cdf(1.5, 0.3)),
        (lambda m: uniform_init(m, a=-0.5, b=2, bias=0.25), uniform_cdf(-0.5, 2)),
        (lambda m: xavier_init(m, gain=2, bias=0.25), normal_cdf(0, 2 * math.sqrt(2 / (FAN_IN + FAN_OUT)))),
        (
            lambda m: xavier_init(m, gain=2, bias=0.25, distribution="uniform"),
            uniform_cdf(-2 * math.sqrt(6 / (FAN_IN + FAN_OUT)), 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
        ),
        (lambda m: kaiming_init(m, bias=0.25), normal_cdf(0, math.sqrt(2 / FAN_OUT))),
        (
            lambda m: kaiming_init(m, a=0.5, mode="fan_in", nonlinearity="leaky_relu", bias=0.25),
            normal_cdf(0, math.sqrt(2 / (1 + 0.25) / FAN_IN)),
        ),
        (
            lambda m: kaiming_init(m, bias=0.25, distribution="uniform"),
            uniform_cdf(-math.sqrt(6 / FAN_OUT), math.sqrt(6 / FAN_OUT)),
        ),
        (
            lambda m: caffe2_xavier_init(m, bias=0.25),
            uniform_cdf(-math.sqrt(3 / FAN_IN), math.sqrt(3 / FAN_IN)),
        ),
    ],
    ids=["normal", "uniform", "xavier", "xavier-u", "kaiming", "kaiming-leaky", "kaiming-u", "caffe2"],
)
def test_functions_draw_from_their_distribution(init, cdf):
    torch.manual_seed(0)
    layer = conv()
    init(layer)
    assert_distribution(layer.weight, cdf)
    assert (layer.bias == 0.25).all()


@pytest.mark.parametrize(("mean", "std", "a", "b"), [(0, 1, -2, 2), (0.5, 0.2, 0.4, 0.9), (0, 1, 0.5, 2)])
def test_trunc_normal(mean, std, a, b):
    torch.manual_seed(0)
    layer = conv()
    trunc_normal_init(layer, mean, std, a, b, bias=1)
    inner = normal_cdf(mean, std)
    low, high = (inner(torch.tensor(float(x), dtype=torch.double)) for x in (a, b))
    assert_distribution(layer.weight, lambda x: (inner(x) - low) / (high - low))
    assert layer.weight.min() >= a
    assert layer.weight.max() <= b
    assert (layer.bias == 1).all()
    tensor = torch.empty(100, dtype=torch.double, requires_grad=True)
    assert trunc_normal_(tensor, mean, std, a, b) is tensor
    assert ((tensor >= a) & (tensor <= b)).all()


def test_functions_leave_layers_without_parameters_alone():
    for init in (normal_init, xavier_init, kaiming_init, caffe2_xavier_init, uniform_init, trunc_normal_init):
        init(nn.ReLU())
        init(nn.BatchNorm2d(3, affine=False))
    constant_init(nn.ReLU(), 1)
    no_bias = nn.Linear(2, 3, bias=False)
    constant_init(no_bias, 2, bias=5)
    assert (no_bias.weight == 2).all()


@pytest.mark.parametrize("init", [xavier_init, kaiming_init])
def test_unknown_distribution(init):
    with pytest.raises(AssertionError, match="distribution must be 'uniform' or 'normal', got 'student'"):
        init(conv(), distribution="student")


@pytest.mark.parametrize("prior", [0.01, 0.3, 0.5, 0.99])
def test_bias_init_with_prob_is_the_inverse_of_the_sigmoid(prior):
    assert torch.sigmoid(torch.tensor(bias_init_with_prob(prior)).double()).item() == pytest.approx(prior)


@pytest.mark.parametrize(
    ("initializer", "function"),
    [
        (ConstantInit(0.5, bias=2, layer="Conv2d"), lambda m: constant_init(m, 0.5, 2)),
        (
            XavierInit(gain=3, distribution="uniform", layer="Conv2d"),
            lambda m: xavier_init(m, 3, 0, "uniform"),
        ),
        (NormalInit(1, 0.1, bias=1, layer="Conv2d"), lambda m: normal_init(m, 1, 0.1, 1)),
        (TruncNormalInit(1, 2, 0, 3, layer="Conv2d"), lambda m: trunc_normal_init(m, 1, 2, 0, 3)),
        (UniformInit(2, 3, layer="Conv2d"), lambda m: uniform_init(m, 2, 3)),
        (
            KaimingInit(a=0.1, mode="fan_in", nonlinearity="leaky_relu", layer="Conv2d"),
            lambda m: kaiming_init(m, 0.1, "fan_in", "leaky_relu"),
        ),
        (Caffe2XavierInit(bias=3, layer="Conv2d"), lambda m: caffe2_xavier_init(m, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_initializers_do_what_their_functions_do(initializer, function):
    model = nn.Sequential(conv(), nn.Linear(2, 3))
    expected = copy.deepcopy(model)
    torch.manual_seed(1)
    initializer(model)
    torch.manual_seed(1)
    function(expected[0])
    for got, want in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, want)


def test_layer_picks_classes_and_base_classes():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Linear(1, 1), nn.BatchNorm2d(1))
    initialize(model, dict(type="Constant", layer=["_ConvNd", "Linear"], val=3, bias=4))
    for layer in model[:3]:
        assert (layer.weight == 3).all()
        assert (layer.bias == 4).all()
    assert (model[3].weight == 1).all()


def test_config_without_layer_and_override_initialises_nothing():
    model = nn.Sequential(nn.Linear(2, 2))
    before = model[0].weight.clone()
    initialize(model, dict(type="Constant", val=7))
    assert torch.equal(model[0].weight, before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.feat = nn.Conv1d(3, 1, 3)
        self.reg = nn.Linear(3, 3)
        self.cls = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(1, 1, 1))


def test_override():
    model = Net()
    cfg = [
        dict(
            type="Constant",
            layer="Linear",
            val=1,
            bias=2,
            override=[dict(type="Constant", name="reg", val=13, bias_prob=0.01), dict(name="cls")],
        ),
        dict(type="Constant", val=5, override=dict(name="feat")),
    ]
    untouched = copy.deepcopy(cfg)
    initialize(model, cfg)
    assert cfg == untouched
    assert (model.reg.weight == 13).all()
    assert model.reg.bias.tolist() == pytest.approx([bias_init_with_prob(0.01)] * 3)
    assert (model.cls[0].weight == 1).all()
    assert (model.cls[1].weight == 1).all()  # an override is about the whole child
    assert (model.cls[1].bias == 2).all()
    assert (model.feat.weight == 5).all()


@pytest.mark.parametrize(
    ("cfg", "error", "match"),
    [
        ("Constant", TypeError, "init_cfg must be a dict or a list of dict"),
        ([dict(type="Constant", val=1), 3], TypeError, "a list with <class 'int'>"),
        (
            dict(type="Constant", val=1, override="reg"),
            TypeError,
            "override must be a dict or a list of dict",
        ),
        (dict(type="Constant", val=1, override=["reg"]), TypeError, "override must be a dict"),
        (dict(type="Constant", val=1, override=dict(name="box")), RuntimeError, "did not have attribute box"),
        (dict(type="Constant", val=1, override=dict(name="rge")), RuntimeError, "Net .*; did you mean reg"),
        (dict(type="Normal", sdt=1), TypeError, r"^NormalInit: .*'sdt'; did you mean std"),
        (dict(type="Normal", bias_pro=1), TypeError, "did you mean bias_prob"),  # taken by the base class
        (dict(type="Normal", bias_prob=1.5), ValueError, "prior_prob must be between 0 and 1, got 1.5"),
        (
            dict(type="TruncNormal", layer="Conv1d", a=2, b=1),
            ValueError,
            "a must be less than b, got a=2, b=1",
        ),
        (dict(type="Constant", val=1, override=dict(type="Normal")), ValueError, '"name"'),
        (dict(type="Constant", val=1, override=dict(name="reg", val=3)), ValueError, '"type"'),
        (dict(type="Constnt", val=1), KeyError, "did you mean Constant"),
        (dict(val=1), KeyError, 'must contain the key "type"'),
        (dict(type="Constant", val=1, bias="1"), TypeError, "bias must be a number"),
        (dict(type="Constant", val=1, bias_prob="0.1"), TypeError, "bias_prob type must be float"),
        (dict(type="Constant", val=1, layer=1), TypeError, "layer must be a str or a list of str"),
        (dict(type="Constant", val=1, layer=[1]), TypeError, "layer must be a str or a list of str"),
    ],
)
def test_errors(cfg, error, match):
    with pytest.raises(error, match=match):
        initialize(Net(), cfg)


def test_pretrained(tmp_path, capsys):
    source, target = Net(), Net()
    initialize(source, [dict(type="Normal", layer=["Linear", "Conv1d"])])
    whole, part = tmp_path / "whole.pth", tmp_path / "detector.pth"
    torch.save(source.state_dict(), whole)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in source.state_dict().items()}}, part)

    PretrainedInit(str(whole))(target)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    for cfg in (
        dict(type="Pretrained", checkpoint=str(part), prefix="backbone."),
        dict(checkpoint=str(part), prefix="backbone"),  # the type is clear
        dict(type="Constant", val=0, override=dict(name="reg", checkpoint=str(part), prefix="backbone.reg")),
    ):
        target = Net()
        initialize(target, cfg)
        assert torch.equal(target.reg.weight, source.reg.weight)
    with pytest.raises(AssertionError, match=r"neck\. is not in the pretrained model"):
        initialize(target, dict(type="Pretrained", checkpoint=str(part), prefix="neck."))


def test_update_init_info():
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1))
    # As code for mmcv 1.x sets it up itself.
    model._params_init_info = {
        p: {"init_info": "init", "tmp_mean_value": p.data.mean()} for p in model.parameters()
    }
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1)
    update_init_info(model, init_info="fill_1")
    for item in model._params_init_info.values():
        assert item["init_info"] == "fill_1"
        assert item["tmp_mean_value"] == 1
    model[1].bias = nn.Parameter(torch.ones(1))
    with pytest.raises(AssertionError, match=r"1\.bias of Sequential is a new Parameter"):
        update_init_info(model, init_info=" ")
