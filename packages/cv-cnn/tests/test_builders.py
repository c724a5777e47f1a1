"""The registries and the builders of layers."""

import copy

import pytest
import torch
from torch import nn

from cv.cnn import (
    ACTIVATION_LAYERS,
    CONV_LAYERS,
    MODELS,
    NORM_LAYERS,
    PADDING_LAYERS,
    PLUGIN_LAYERS,
    UPSAMPLE_LAYERS,
    BaseModule,
    Conv2dAdaptivePadding,
    ConvAWS2d,
    ConvModule,
    ConvTranspose2d,
    ConvTranspose3d,
    ConvWS2d,
    PixelShufflePack,
    Sequential,
    build_activation_layer,
    build_conv_layer,
    build_model_from_cfg,
    build_norm_layer,
    build_padding_layer,
    build_plugin_layer,
    build_upsample_layer,
    is_norm,
)
from cv.cnn import Conv2d as WrappedConv2d
from cv.cnn import Conv3d as WrappedConv3d
from cv.cnn.bricks.norm import infer_abbr as infer_norm_abbr
from cv.cnn.bricks.plugin import infer_abbr as infer_plugin_abbr
from cv.cnn.bricks.registry import ATTENTION
from cv.utils import Registry


class TestConv:
    def test_default(self):
        layer = build_conv_layer(None, 3, 8, kernel_size=2)
        assert type(layer) is nn.Conv2d
        assert layer.weight.shape == (8, 3, 2, 2)

    @pytest.mark.parametrize(
        ("name", "cls"),
        [
            ("Conv", WrappedConv2d),
            ("Conv1d", nn.Conv1d),
            ("Conv2d", nn.Conv2d),
            ("Conv3d", WrappedConv3d),
            ("ConvWS", ConvWS2d),
            ("ConvAWS", ConvAWS2d),
            ("Conv2dAdaptivePadding", Conv2dAdaptivePadding),
            ("deconv", ConvTranspose2d),
            ("deconv3d", ConvTranspose3d),
            ("ConvTranspose1d", nn.ConvTranspose1d),
            ("ConvTranspose2d", nn.ConvTranspose2d),
            ("ConvTranspose3d", nn.ConvTranspose3d),
        ],
    )
    def test_names(self, name, cls):
        cfg = dict(type=name, bias=False)
        before = copy.deepcopy(cfg)
        layer = build_conv_layer(cfg, 4, 8, 3, stride=2)
        assert type(layer) is cls
        assert layer.bias is None
        assert layer.stride[0] == 2
        assert cfg == before

    @pytest.mark.parametrize(
        ("cfg", "error", "match"),
        [
            ("Conv2d", TypeError, "cfg must be a dict"),
            ({}, KeyError, 'must contain the key "type"'),
            (dict(kernel_size=3), KeyError, 'must contain the key "type"'),
            (dict(type="Conv2D"), KeyError, r"Conv2D is not in the conv layer registry; did you mean Conv2d"),
            (dict(type=3), TypeError, "type must be a str or a class, but got 3"),
            (dict(type="ConvWS", dilaton=2), TypeError, r"^ConvWS2d: .*'dilaton'; did you mean dilation\?$"),
            (dict(type="ConvWS", zzz=2), TypeError, r"^ConvWS2d: .*'zzz'$"),
        ],
    )
    def test_errors(self, cfg, error, match):
        with pytest.raises(error, match=match):
            build_conv_layer(cfg)

    def test_layers_of_cv_ops(self, monkeypatch):
        # As it is where cv-ops is not installed.
        monkeypatch.setattr(CONV_LAYERS, "_entry_points", {})
        monkeypatch.setattr(CONV_LAYERS, "_loaded", {})
        for name in ("DCN", "DCNv2", "SAC", "MaskedConv"):
            with pytest.raises(KeyError, match=r"pip install (--upgrade )?cv-ops"):
                build_conv_layer(dict(type=name), 1, 1, 1)
        for registry, name in (
            (NORM_LAYERS, "MMSyncBN"),
            (UPSAMPLE_LAYERS, "carafe"),
            (PLUGIN_LAYERS, "CrissCrossAttention"),
            (ATTENTION, "MultiScaleDeformableAttention"),
        ):
            monkeypatch.setattr(registry, "_entry_points", {})
            monkeypatch.setattr(registry, "_loaded", {})
            with pytest.raises(KeyError, match=r"pip install (--upgrade )?cv-ops"):
                registry.require(name)

    def test_registries_read_their_entry_point_groups(self):
        groups = {
            "conv_layers": CONV_LAYERS,
            "norm_layers": NORM_LAYERS,
            "activation_layers": ACTIVATION_LAYERS,
            "padding_layers": PADDING_LAYERS,
            "upsample_layers": UPSAMPLE_LAYERS,
            "plugin_layers": PLUGIN_LAYERS,
            "attention": ATTENTION,
        }
        for name, registry in groups.items():
            assert registry._entry_point_group == f"cv.cnn.{name}"


class TestNorm:
    @pytest.mark.parametrize(
        ("kind", "cls", "abbreviation"),
        [
            ("BN", nn.BatchNorm2d, "bn"),
            ("BN1d", nn.BatchNorm1d, "bn"),
            ("BN2d", nn.BatchNorm2d, "bn"),
            ("BN3d", nn.BatchNorm3d, "bn"),
            ("SyncBN", nn.SyncBatchNorm, "bn"),
            ("LN", nn.LayerNorm, "ln"),
            ("IN", nn.InstanceNorm2d, "in"),
            ("IN1d", nn.InstanceNorm1d, "in"),
            ("IN2d", nn.InstanceNorm2d, "in"),
            ("IN3d", nn.InstanceNorm3d, "in"),
            (nn.BatchNorm2d, nn.BatchNorm2d, "bn"),
            (nn.RMSNorm, nn.RMSNorm, "rms_norm"),
        ],
    )
    def test_names(self, kind, cls, abbreviation):
        for postfix in ("_test", 1, ""):
            cfg = dict(type=kind)
            name, layer = build_norm_layer(cfg, 3, postfix=postfix)
            assert cfg == dict(type=kind)
            assert type(layer) is cls
            assert name == f"{abbreviation}{postfix}"
            assert layer.eps == 1e-5
            assert getattr(layer, "num_features", 3) == 3

    def test_names_are_the_documented_ones(self):
        names = ["BN", "BN1d", "BN2d", "BN3d", "SyncBN", "GN", "LN", "IN", "IN1d", "IN2d", "IN3d"]
        assert set(names) <= set(NORM_LAYERS.module_dict)

    def test_group_norm(self):
        name, layer = build_norm_layer(dict(type="GN", num_groups=2, eps=1e-3), 4, postfix=1)
        assert name == "gn1"
        assert (layer.num_groups, layer.num_channels, layer.eps) == (2, 4, 1e-3)
        with pytest.raises(AssertionError, match='must contain "num_groups"'):
            build_norm_layer(dict(type="GN"), 3)

    def test_requires_grad(self):
        _, layer = build_norm_layer(dict(type="BN", requires_grad=False, momentum=0.2), 3)
        assert not any(p.requires_grad for p in layer.parameters())
        assert layer.momentum == 0.2
        _, layer = build_norm_layer(dict(type="BN"), 3)
        assert all(p.requires_grad for p in layer.parameters())

    def test_own_layer(self, monkeypatch):
        monkeypatch.setattr(NORM_LAYERS, "_module_dict", dict(NORM_LAYERS.module_dict))

        @NORM_LAYERS.register_module()
        class FancyNorm(nn.Module):
            def __init__(self, num_features, scale=1):  # no eps
                super().__init__()
                self.num_features, self.scale = num_features, scale

        name, layer = build_norm_layer(dict(type="FancyNorm", scale=2), 5)
        assert name == "fancy_norm"
        assert (layer.num_features, layer.scale) == (5, 2)

    @pytest.mark.parametrize(
        ("cfg", "postfix", "error", "match"),
        [
            ([], "", TypeError, "cfg must be a dict"),
            ({}, "", KeyError, 'must contain the key "type"'),
            (dict(type="FancyNorm"), "", KeyError, "FancyNorm is not in the norm layer registry"),
            (dict(type="BN"), [1, 2], AssertionError, "postfix must be an int or a str"),
        ],
    )
    def test_errors(self, cfg, postfix, error, match):
        with pytest.raises(error, match=match):
            build_norm_layer(cfg, 3, postfix=postfix)

    def test_abbreviations(self):
        with pytest.raises(TypeError, match="class_type must be a type"):
            infer_norm_abbr(0)
        own = type("MyNorm", (), {"_abbr_": "mn"})
        assert infer_norm_abbr(own) == "mn"
        for name, abbreviation in {
            "FancyBatchNorm": "bn",
            "FancyInstanceNorm": "in",
            "FancyLayerNorm": "ln",
            "FancyGroupNorm": "gn",
            "FancyNorm": "fancy_norm",
            "LRNorm2d": "lr_norm2d",
        }.items():
            assert infer_norm_abbr(type(name, (), {})) == abbreviation

    def test_is_norm(self):
        norms = [
            nn.BatchNorm1d(3),
            nn.SyncBatchNorm(3),
            nn.InstanceNorm2d(3),
            nn.GroupNorm(1, 3),
            nn.LayerNorm(3),
        ]
        for norm in norms:
            assert is_norm(norm)
            assert not is_norm(norm, exclude=type(norm))
            assert not is_norm(norm, exclude=(nn.ReLU, type(norm)))
            assert is_norm(norm, exclude=nn.ReLU)
        assert not is_norm(nn.Conv2d(3, 8, 3))
        for wrong in ("BN", 3, (nn.ReLU, "BN")):
            with pytest.raises(TypeError, match="exclude must be None, a type or a tuple of types"):
                is_norm(norms[0], exclude=wrong)


def test_errors_of_arguments_name_class_key_and_near_matches():
    with pytest.raises(TypeError, match=r"^BatchNorm2d: .*'esp'; did you mean eps\?$"):
        build_norm_layer(dict(type="BN", esp=1e-3), 4)
    with pytest.raises(TypeError, match=r"^Upsample: .*'scalefactor'; did you mean scale_factor"):
        build_upsample_layer(dict(type="nearest", scalefactor=2))
    with pytest.raises(
        TypeError, match=r"^Conv2d: got multiple values for argument 'bias': True in the config, False from"
    ):
        build_conv_layer(dict(type="Conv2d", bias=True), 1, 1, 1, bias=False)
    # Names of classes that are registered under another one.
    for kind, name in {"BatchNorm2d": "BN", "LayerNorm": "LN", "InstanceNorm3d": "IN3d"}.items():
        with pytest.raises(KeyError, match=f"{kind} is not in the norm layer registry; did you mean {name}"):
            build_norm_layer(dict(type=kind), 4)


class TestActivation:
    @pytest.mark.parametrize(
        "name",
        ["ReLU", "LeakyReLU", "PReLU", "RReLU", "ReLU6", "ELU", "Sigmoid", "Tanh", "GELU", "SiLU", "Mish"],
    )
    def test_torch(self, name):
        assert type(build_activation_layer(dict(type=name))) is getattr(nn, name)

    def test_a_type_is_enough(self):
        for name, cls in ACTIVATION_LAYERS.module_dict.items():
            if name != "Threshold":
                assert type(build_activation_layer(dict(type=name))) is cls

    def test_threshold(self):
        layer = build_activation_layer(dict(type="Threshold", threshold=0.5, value=-1))
        assert layer(torch.tensor([0.4, 0.6])).tolist() == pytest.approx([-1, 0.6])

    def test_arguments(self):
        cfg = dict(type="LeakyReLU", negative_slope=0.3)
        assert build_activation_layer(cfg).negative_slope == 0.3
        assert cfg == dict(type="LeakyReLU", negative_slope=0.3)
        x = torch.linspace(-3, 3, 13)
        assert torch.equal(build_activation_layer(dict(type="Clamp"))(x), x.clamp(-1, 1))
        assert torch.equal(build_activation_layer(dict(type="Clip", min=0, max=2))(x), x.clamp(0, 2))

    def test_errors(self):
        with pytest.raises(KeyError, match=r"Relu is not in the activation layer .*; did you mean ReLU"):
            build_activation_layer(dict(type="Relu"))
        with pytest.raises(TypeError, match="cfg must be a dict"):
            build_activation_layer("ReLU")
        with pytest.raises(KeyError, match='must contain the key "type"'):
            build_activation_layer({})


class TestPadding:
    @pytest.mark.parametrize(
        ("name", "cls"),
        [
            ("zero", nn.ZeroPad2d),
            ("reflect", nn.ReflectionPad2d),
            ("replicate", nn.ReplicationPad2d),
            ("circular", nn.CircularPad2d),
            ("ReflectionPad1d", nn.ReflectionPad1d),
        ],
    )
    def test_names(self, name, cls):
        cfg = dict(type=name)
        layer = build_padding_layer(cfg, 2)
        assert type(layer) is cls
        assert cfg == dict(type=name)
        assert type(build_padding_layer(dict(type=name, padding=1))) is cls
        for other, kind in PADDING_LAYERS.module_dict.items():
            value = {"value": 7} if other.startswith("Constant") else {}
            assert type(build_padding_layer(dict(type=other, **value), 2)) is kind

    def test_constant(self):
        layer = build_padding_layer(dict(type="ConstantPad2d", value=7), (1, 0, 0, 0))
        assert layer(torch.zeros(1, 1, 1, 1)).flatten().tolist() == [7, 0]

    def test_errors(self):
        for cfg, error in (
            ("reflect", TypeError),
            (None, TypeError),
            ({}, KeyError),
            (dict(type="x"), KeyError),
        ):
            with pytest.raises(error):
                build_padding_layer(cfg, 1)


class TestUpsample:
    @pytest.mark.parametrize("mode", ["nearest", "bilinear", "nearest-exact", "bicubic"])
    def test_modes(self, mode):
        cfg = dict(type=mode, scale_factor=2)
        layer = build_upsample_layer(cfg)
        assert cfg == dict(type=mode, scale_factor=2)
        assert type(layer) is nn.Upsample
        assert (layer.mode, layer.scale_factor) == (mode, 2)
        assert layer(torch.randn(1, 3, 4, 5)).shape == (1, 3, 8, 10)

    def test_deconv(self):
        layer = build_upsample_layer(dict(type="deconv", stride=2), 3, 4, kernel_size=2)
        assert type(layer) is ConvTranspose2d
        assert layer(torch.randn(1, 3, 4, 5)).shape == (1, 4, 8, 10)
        layer = build_upsample_layer(dict(type="deconv3d", stride=2), 3, 4, kernel_size=2)
        assert layer(torch.randn(1, 3, 2, 4, 5)).shape == (1, 4, 4, 8, 10)

    def test_pixel_shuffle(self):
        cfg = dict(type="pixel_shuffle", in_channels=3, out_channels=5, scale_factor=2, upsample_kernel=3)
        layer = build_upsample_layer(cfg)
        assert type(layer) is PixelShufflePack
        x = torch.randn(2, 3, 4, 6)
        out = layer(x)
        assert out.shape == (2, 5, 8, 12)
        inner = layer.upsample_conv(x)
        for dy in range(2):
            for dx in range(2):
                assert torch.equal(out[:, :, dy::2, dx::2], inner[:, dy * 2 + dx :: 4])

    def test_errors(self):
        for cfg, error in (
            ([], TypeError),
            ({}, KeyError),
            (dict(type="bilinea"), KeyError),
            (None, TypeError),
        ):
            with pytest.raises(error):
                build_upsample_layer(cfg)


class TestPlugin:
    @pytest.mark.parametrize(
        ("cfg", "abbreviation"),
        [
            (dict(type="ContextBlock", ratio=0.5), "context_block"),
            (dict(type="GeneralizedAttention", num_heads=2), "gen_attention_block"),
            (dict(type="NonLocal1d"), "nonlocal_block"),
            (dict(type="NonLocal2d"), "nonlocal_block"),
            (dict(type="NonLocal3d"), "nonlocal_block"),
            (dict(type="ConvModule", out_channels=4, kernel_size=1), "conv_block"),
        ],
    )
    def test_names(self, cfg, abbreviation):
        before = copy.deepcopy(cfg)
        for postfix in ("", 1, "_x"):
            name, layer = build_plugin_layer(cfg, postfix=postfix, in_channels=8)
            assert name == f"{abbreviation}{postfix}"
            assert type(layer).__name__ == cfg["type"]
        assert cfg == before

    def test_errors(self):
        with pytest.raises(AssertionError, match="postfix must be an int or a str"):
            build_plugin_layer(dict(type="NonLocal2d"), postfix=[], in_channels=8)
        for cfg, error in (("a", TypeError), ({}, KeyError), (dict(type="NonLocal"), KeyError)):
            with pytest.raises(error):
                build_plugin_layer(cfg)
        with pytest.raises(TypeError, match="class_type must be a type"):
            infer_plugin_abbr(0)
        assert infer_plugin_abbr(type("MyBlock", (), {})) == "my_block"


class TestModels:
    def test_build(self):
        backbones = Registry("backbone", build_func=build_model_from_cfg)

        @backbones.register_module()
        class Net(BaseModule):
            def __init__(self, depth, stages=4):
                super().__init__()
                self.depth, self.stages = depth, stages

        net = backbones.build(dict(type="Net", depth=50))
        assert (net.depth, net.stages) == (50, 4)
        both = build_model_from_cfg(
            [dict(type="Net", depth=1), dict(type="Net", depth=2)], backbones, dict(stages=3)
        )
        assert type(both) is Sequential
        assert [net.depth for net in both] == [1, 2]
        assert [net.stages for net in both] == [3, 3]

    def test_models(self):
        assert MODELS.build(dict(type="ResNet", depth=18)).depth == 18
        child = Registry("model", parent=MODELS, scope="test_cnn_scope")
        assert child.build(dict(type="AlexNet")).num_classes == -1
        with pytest.raises(KeyError, match="did you mean ResNet"):
            MODELS.build(dict(type="Resnet", depth=18))

    def test_conv_module_is_a_plugin(self):
        assert PLUGIN_LAYERS.get("ConvModule") is ConvModule
