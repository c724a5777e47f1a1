"""ConvModule and DepthwiseSeparableConvModule."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cv.cnn import ConvModule, DepthwiseSeparableConvModule, HSwish

BN = dict(type="BN")


def test_plain():
    module = ConvModule(3, 8, 2)
    assert type(module.conv) is nn.Conv2d
    assert module.with_activation
    assert module.with_bias
    assert not module.with_norm
    assert module.norm is None
    assert module.norm_name is None
    assert not hasattr(module, "padding_layer")
    x = torch.randn(1, 3, 6, 6)
    assert torch.equal(module(x), F.relu(module.conv(x)))
    assert (module.in_channels, module.out_channels, module.kernel_size) == (3, 8, (2, 2))
    assert (module.stride, module.padding, module.dilation, module.groups) == ((1, 1), 0, (1, 1), 1)
    assert module.transposed is False


def test_bias_rule():
    assert not ConvModule(3, 8, 2, norm_cfg=BN).with_bias
    assert ConvModule(3, 8, 2, norm_cfg=BN).conv.bias is None
    assert ConvModule(3, 8, 2, bias=False).conv.bias is None
    assert ConvModule(4, 8, 2, bias=True, norm_cfg=dict(type="GN", num_groups=2)).conv.bias is not None
    for kind in ("BN", "IN"):
        with pytest.warns(UserWarning, match="^Unnecessary conv bias before batch/instance norm$") as record:
            ConvModule(3, 8, 2, bias=True, norm_cfg=dict(type=kind))
        assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConvModule(3, 8, 2, bias=True, norm_cfg=BN, order=("norm", "conv", "act"))  # it is not before


def test_configs_are_not_changed():
    cfgs = dict(
        conv_cfg=dict(type="Conv2d"), norm_cfg=dict(type="BN", momentum=0.3), act_cfg=dict(type="LeakyReLU")
    )
    before = copy.deepcopy(cfgs)
    module = ConvModule(3, 8, 2, **cfgs)
    assert cfgs == before
    assert module.norm_cfg == before["norm_cfg"]
    assert module.bn is module.norm
    assert module.norm.momentum == 0.3


@pytest.mark.parametrize("order", list(itertools.permutations(("conv", "norm", "act"))))
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("with_act", [True, False])
def test_every_order(order, with_norm, with_act):
    torch.manual_seed(0)
    module = ConvModule(
        3,
        5,
        3,
        padding=1,
        norm_cfg=BN if with_norm else None,
        act_cfg=dict(type="ReLU") if with_act else None,
        order=order,
    )
    if with_norm:
        nn.init.normal_(module.norm.weight)
        nn.init.normal_(module.norm.bias)
        nn.init.normal_(module.norm.running_mean)
    module.eval()
    parts = {"conv": module.conv, "norm": module.norm, "act": F.relu}
    x = torch.randn(2, 3, 6, 6)
    for activate, norm in itertools.product((True, False), repeat=2):
        expected = x
        skipped = {"norm"} if not (norm and with_norm) else set()
        skipped |= {"act"} if not (activate and with_act) else set()
        for part in order:
            if part not in skipped:
                expected = parts[part](expected)
        before = x.clone()
        assert torch.equal(module(x, activate=activate, norm=norm), expected)
        if norm or order[0] != "norm":
            assert torch.equal(x, before)  # an activation in front does not overwrite the caller's tensor


def test_what_runs_follows_the_attributes():
    # Code for mmcv 1.x sets them after construction.
    module = ConvModule(3, 3, 3, padding=1, norm_cfg=BN, padding_mode="reflect").eval()
    nn.init.constant_(module.norm.bias, -0.1)
    pad, conv, norm = module.padding_layer, module.conv, module.norm
    x = torch.randn(2, 3, 6, 6)
    module.with_activation = False
    assert torch.equal(module(x), norm(conv(pad(x))))
    module.order = ("norm", "conv", "act")
    assert torch.equal(module(x), conv(pad(norm(x))))
    module.with_explicit_padding = False
    assert torch.equal(module(x), conv(norm(x)))
    module.with_norm = False
    assert torch.equal(module(x), conv(x))
    module.with_activation = True
    assert torch.equal(module(x), F.relu(conv(x)))
    module.other_norm, module.norm_name, module.with_norm = nn.Identity(), "other_norm", True
    assert torch.equal(module(x), F.relu(conv(x)))
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    module.activate = nn.Tanh()
    assert torch.equal(module(x), conv(x).tanh())


def test_activations():
    assert ConvModule(3, 8, 2).activate.inplace
    assert not ConvModule(3, 8, 2, inplace=False).activate.inplace
    assert not ConvModule(3, 8, 2, act_cfg=dict(type="ReLU", inplace=False)).activate.inplace
    assert ConvModule(
        3, 8, 2, order=("act", "conv", "norm"), act_cfg=dict(type="ReLU", inplace=True)
    ).activate.inplace
    assert not hasattr(ConvModule(3, 8, 2, act_cfg=None), "activate")
    module = ConvModule(3, 8, 3, padding=1, act_cfg=dict(type="HSwish"))
    assert isinstance(module.activate, HSwish)
    for kind in ("Tanh", "Sigmoid", "PReLU", "GELU", "Swish", "HSigmoid", "Softmax2d", "SiLU", "LeakyReLU"):
        assert ConvModule(3, 8, 1, act_cfg=dict(type=kind))(torch.randn(1, 3, 4, 4)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
@pytest.mark.parametrize(("name", "dims"), [("Conv1d", 1), ("Conv2d", 2), ("Conv3d", 3)])
def test_padding_modes(mode, padding, name, dims):
    if isinstance(padding, tuple):
        padding = (2, 1, 1)[:dims]
    module = ConvModule(
        2, 3, 3, padding=padding, padding_mode=mode, conv_cfg=dict(type=name), act_cfg=None, dilation=2
    )
    assert hasattr(module, "padding_layer") == (mode in ("reflect", "replicate"))
    cls = getattr(nn, name)
    reference = cls(2, 3, 3, padding=padding, padding_mode=mode, dilation=2)
    reference.load_state_dict(module.conv.state_dict())
    x = torch.randn(2, 2, *(7, 8, 9)[:dims])
    torch.testing.assert_close(module(x), reference(x))


@pytest.mark.parametrize("name", ["ConvWS", "ConvAWS"])
@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_padding_modes_that_a_convolution_does_not_know(name, mode):
    module = ConvModule(
        2, 3, 3, padding=(2, 1), padding_mode=mode, conv_cfg=dict(type=name), norm_cfg=None, act_cfg=None
    )
    x = torch.randn(2, 2, 7, 8)
    padded = nn.functional.pad(x, (1, 1, 2, 2), mode=mode)
    torch.testing.assert_close(module(x), module.conv(padded))
    assert module.conv.padding == (0, 0)
    assert module.padding == (2, 1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_circular_padding_of_a_foreign_convolution(n):
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][n - 1]

    class Foreign(kind):
        def __init__(self, inputs, outputs, kernel_size, stride, padding, dilation, groups, bias):
            super().__init__(inputs, outputs, kernel_size, stride, padding, dilation, groups, bias)

    Foreign.__name__ = f"Foreign{n}d"
    Foreign.__qualname__ = Foreign.__name__
    module = ConvModule(
        2, 3, 3, padding=1, padding_mode="circular", conv_cfg=dict(type=Foreign), act_cfg=None
    )
    reference = kind(2, 3, 3, padding=1, padding_mode="circular")
    reference.load_state_dict(module.conv.state_dict())
    x = torch.randn(2, 2, *(7, 8, 9)[:n])
    torch.testing.assert_close(module(x), reference(x))


def test_padding_errors():
    with pytest.raises(KeyError, match="non_exists is not in the padding layer registry"):
        ConvModule(3, 8, 3, padding=1, padding_mode="non_exists")
    assert isinstance(
        ConvModule(3, 8, 3, padding=1, padding_mode="reflect").padding_layer, nn.ReflectionPad2d
    )
    module = ConvModule(3, 8, 3, padding="valid", padding_mode="reflect", act_cfg=None)
    assert module(torch.randn(1, 3, 5, 5)).shape == (1, 8, 3, 3)


def test_spectral_norm():
    torch.manual_seed(0)
    module = ConvModule(3, 8, 3, padding=1, with_spectral_norm=True)
    assert hasattr(module.conv, "weight_orig")
    x = torch.randn(1, 3, 5, 5)
    for _ in range(50):
        out = module(x)
    assert out.shape == (1, 8, 5, 5)
    greatest = torch.linalg.matrix_norm(module.conv.weight.detach().flatten(1), 2)
    assert greatest.item() == pytest.approx(1, abs=1e-4)


def test_initialisation():
    torch.manual_seed(0)
    module = ConvModule(32, 64, 3, norm_cfg=BN)
    assert module.conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert (module.norm.weight == 1).all()
    leaky = ConvModule(32, 64, 3, act_cfg=dict(type="LeakyReLU", negative_slope=0.7))
    assert leaky.conv.weight.std().item() == pytest.approx((2 / 1.49 / (64 * 9)) ** 0.5, rel=0.05)
    assert (leaky.conv.bias == 0).all()

    class SelfMade(nn.Conv2d):
        def init_weights(self):
            nn.init.constant_(self.weight, 3)

        def reset_parameters(self):
            self.init_weights()

    own = ConvModule(3, 8, 3, conv_cfg=dict(type=SelfMade), bias=False)
    assert (own.conv.weight == 3).all()


@pytest.mark.parametrize(
    "arguments",
    [
        dict(conv_cfg="conv"),
        dict(norm_cfg="norm"),
        dict(act_cfg="act"),
        dict(order=["conv", "norm", "act"]),
        dict(order=("conv", "norm")),
        dict(order=("conv", "norm", "norm")),
        dict(order=("conv", "norm", "activate")),
    ],
)
def test_errors(arguments):
    with pytest.raises(AssertionError, match=next(iter(arguments))):
        ConvModule(3, 8, 2, **arguments)


def test_bias_is_a_bool_or_auto():
    with pytest.raises(AssertionError, match="bias must be a bool or 'auto', got 'Auto'"):
        ConvModule(3, 8, 2, bias="Auto")
    assert ConvModule(3, 8, 2, bias=0).conv.bias is None


def test_unknown_types():
    for arguments in (
        dict(conv_cfg=dict(type="Cnv")),
        dict(norm_cfg=dict(type="BX")),
        dict(act_cfg=dict(type="RL")),
    ):
        with pytest.raises(KeyError):
            ConvModule(3, 8, 2, **arguments)


class TestDepthwiseSeparable:
    def test_structure(self):
        module = DepthwiseSeparableConvModule(3, 8, 3, padding=1, stride=2, norm_cfg=BN)
        assert module.depthwise_conv.conv.groups == 3
        assert module.depthwise_conv.conv.stride == (2, 2)
        assert module.pointwise_conv.conv.kernel_size == (1, 1)
        assert module.depthwise_conv.with_norm
        assert module.pointwise_conv.with_norm
        x = torch.randn(2, 3, 8, 8)
        assert torch.equal(module(x), module.pointwise_conv(module.depthwise_conv(x)))
        assert module(x).shape == (2, 8, 4, 4)

    @pytest.mark.parametrize("part", ["dw", "pw"])
    def test_own_configs(self, part):
        module = DepthwiseSeparableConvModule(3, 8, 3, **{f"{part}_norm_cfg": BN, f"{part}_act_cfg": None})
        parts = {"dw": module.depthwise_conv, "pw": module.pointwise_conv}
        for name, block in parts.items():
            assert block.with_norm == (name == part)
            assert block.with_activation == (name != part)

    def test_shared_arguments(self):
        module = DepthwiseSeparableConvModule(
            3, 8, 3, act_cfg=dict(type="Tanh"), order=("norm", "conv", "act"), norm_cfg=BN
        )
        for block in (module.depthwise_conv, module.pointwise_conv):
            assert isinstance(block.activate, nn.Tanh)
            assert block.norm.num_features == 3
            assert block.order == ("norm", "conv", "act")

    def test_groups(self):
        with pytest.raises(AssertionError, match="groups should not be specified"):
            DepthwiseSeparableConvModule(3, 8, 3, groups=3)
