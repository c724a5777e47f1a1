"""get_model_complexity_info: hand-computed figures, torch's own counter, published figures, the print-out."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cv.cnn import VGG, AlexNet, ConvModule, ResNet, get_model_complexity_info
from cv.cnn.bricks.transformer import BaseTransformerLayer
from cv.cnn.utils.flops_counter import flops_to_string, params_to_string


def count(model, shape, **kwargs):
    return get_model_complexity_info(model, shape, as_strings=False, ost=io.StringIO(), **kwargs)


@pytest.mark.parametrize(
    ("layer", "shape", "flops", "params"),
    [
        # out 14, kernel 3·3, 8 channels, and one per output for the bias
        (nn.Conv1d(3, 8, 3), (3, 16), 14 * 3 * 3 * 8 + 14 * 8, 80),
        (nn.Conv2d(3, 8, 3), (3, 16, 16), 196 * 27 * 8 + 196 * 8, 224),
        (nn.Conv2d(3, 8, 3, bias=False, stride=2), (3, 16, 16), 49 * 27 * 8, 216),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 16, 16), 196 * 18 * 8 + 196 * 8, 152),
        (nn.Conv3d(3, 8, 3), (3, 3, 16, 16), 196 * 81 * 8 + 196 * 8, 656),
        (nn.ConvTranspose2d(3, 8, 3), (3, 16, 16), 256 * 27 * 8 + 18 * 18 * 8, 224),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), (4, 5, 7), 35 * 4 * 3 * 9, 108),
        (nn.Linear(1024, 2), (1024,), 2048, 2050),
        (nn.Linear(8, 2), (5, 8), 80, 18),
        (nn.ReLU(), (3, 16, 16), 768, 0),
        (nn.PReLU(), (3, 16, 16), 768, 1),
        (nn.ELU(), (3, 16, 16), 768, 0),
        (nn.LeakyReLU(), (3, 16, 16), 768, 0),
        (nn.ReLU6(), (3, 16, 16), 768, 0),
        (nn.MaxPool1d(2), (3, 16), 48, 0),
        (nn.MaxPool2d(2), (3, 16, 16), 768, 0),
        (nn.MaxPool3d(2), (3, 3, 16, 16), 2304, 0),
        (nn.AvgPool1d(2), (3, 16), 48, 0),
        (nn.AvgPool2d(2), (3, 16, 16), 768, 0),
        (nn.AvgPool3d(2), (3, 3, 16, 16), 2304, 0),
        (nn.AdaptiveMaxPool1d(2), (3, 16), 48, 0),
        (nn.AdaptiveMaxPool2d(2), (3, 16, 16), 768, 0),
        (nn.AdaptiveMaxPool3d(2), (3, 3, 16, 16), 2304, 0),
        (nn.AdaptiveAvgPool1d(2), (3, 16), 48, 0),
        (nn.AdaptiveAvgPool2d(2), (3, 16, 16), 768, 0),
        (nn.AdaptiveAvgPool3d(2), (3, 3, 16, 16), 2304, 0),
        (nn.BatchNorm1d(3), (3, 16), 96, 6),
        (nn.BatchNorm2d(3), (3, 16, 16), 1536, 6),
        (nn.BatchNorm2d(3, affine=False), (3, 16, 16), 768, 0),
        (nn.BatchNorm3d(3), (3, 3, 16, 16), 4608, 6),
        (nn.GroupNorm(2, 6), (6, 16, 16), 3072, 12),
        (nn.InstanceNorm1d(3, affine=True), (3, 16), 96, 6),
        (nn.InstanceNorm2d(3, affine=True), (3, 16, 16), 1536, 6),
        (nn.InstanceNorm3d(3, affine=True), (3, 3, 16, 16), 4608, 6),
        (nn.LayerNorm((3, 16, 16)), (3, 16, 16), 1536, 1536),
        (nn.LayerNorm((3, 16, 16), elementwise_affine=False), (3, 16, 16), 768, 0),
        (nn.Upsample((32, 32)), (3, 16, 16), 3072, 0),
        (nn.Flatten(), (3, 16), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_layers(layer, shape, flops, params):
    assert count(layer, shape) == (flops, params)


def by_torch(model, *inputs):
    """Multiply-adds by torch's counter, which knows products only."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() // 2


def beside_products(model, x):
    """What biases, norms, poolings and activations add, from the shapes that pass."""
    total = 0

    def add(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            total += 2 * inputs[0].numel()
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            total += output.numel()
        elif isinstance(module, (nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            total += inputs[0].numel()
        elif isinstance(module, nn.ReLU):
            total += output.numel()

    handles = [m.register_forward_hook(add) for m in model.modules()]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total


# GFLOPs (multiply-adds of convolutions and linear layers) that torchvision documents for its networks; for
# ResNets without the classifier, 2048 (or 512) × 1000.
@pytest.mark.parametrize(
    ("cls", "args", "published"),
    [
        (AlexNet, dict(num_classes=1000), 0.714),
        (VGG, dict(depth=11, num_classes=1000), 7.609),
        (VGG, dict(depth=16, num_classes=1000), 15.47),
        (VGG, dict(depth=19, with_bn=True, num_classes=1000), 19.632),
        (ResNet, dict(depth=18), 1.814 - 0.000512),
        (ResNet, dict(depth=50), 4.089 - 0.002048),
        (ResNet, dict(depth=152), 11.514 - 0.002048),
    ],
)
def test_networks(cls, args, published):
    with torch.device("meta"):
        model = cls(**args).eval()
        x = torch.empty(1, 3, 224, 224)
    flops, params = count(model, (3, 224, 224))
    products = flops - beside_products(model, x)
    assert products == by_torch(model, x)
    assert round(products / 1e9, 3) == pytest.approx(
        round(published, 3), abs=0.0011 if published < 15 else 0.006
    )
    assert params == sum(p.numel() for p in model.parameters())


class TestTransformers:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        "model",
        [
            nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
            BaseTransformerLayer(
                dict(type="MultiheadAttention", embed_dims=64, num_heads=4),
                dict(type="FFN", feedforward_channels=128),
                operation_order=("self_attn", "norm", "ffn", "norm"),
                batch_first=True,
            ),
        ],
        ids=["torch", "cv"],
    )
    def test_attention_is_counted(self, model, training):
        model.train(training)
        flops, _ = count(model, (10, 64))
        # projections, energies and weighted sums, feed-forward; norms 2 each, and one ReLU if it is a module
        products = 4 * 10 * 64 * 64 + 2 * 10 * 10 * 64 + 2 * 10 * 64 * 128
        relu = 10 * 128 if isinstance(model, BaseTransformerLayer) else 0
        assert flops == products + 2 * (2 * 640) + relu
        assert by_torch(model.train(), torch.randn(1, 10, 64)) in (products, products - 2 * 10 * 10 * 64)
        assert model.training

    def test_functional_products(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))
                self.known = nn.Conv2d(5, 2, 1)

            def forward(self, x):
                x = self.known(F.conv2d(x, self.weight))
                return torch.einsum("nchw,ndhw->ncd", x, x)

        flops, _ = count(Net(), (3, 6, 6))
        assert flops == 16 * 5 * 27 + (16 * 2 * 5 + 16 * 2) + 2 * 2 * 16


class TestReport:
    def test_one_layer(self):
        out = io.StringIO()
        get_model_complexity_info(nn.Conv1d(3, 8, 3), (3, 16), ost=out)
        assert out.getvalue() == (
            "Conv1d(0.0 M, 100.000% Params, 0.0 GFLOPs, 100.000% FLOPs, "
            "3, 8, kernel_size=(3,), stride=(1,))\n"
        )

    def test_tree(self):
        out = io.StringIO()
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Flatten(), nn.Linear(1568, 2)))
        result = get_model_complexity_info(model, (3, 16, 16), ost=out, flush=True)
        assert result == ("0.0 GFLOPs", "3.36 k")
        assert out.getvalue() == (
            "Sequential(\n"
            "  0.003 M, 100.000% Params, 0.0 GFLOPs, 100.000% FLOPs, \n"
            "  (0): Conv2d(0.0 M, 6.663% Params, 0.0 GFLOPs, 93.333% FLOPs, "
            "3, 8, kernel_size=(3, 3), stride=(1, 1))\n"
            "  (1): Sequential(\n"
            "    0.003 M, 93.337% Params, 0.0 GFLOPs, 6.667% FLOPs, \n"
            "    (0): Flatten(0.0 M, 0.000% Params, 0.0 GFLOPs, 0.000% FLOPs, start_dim=1, end_dim=-1)\n"
            "    (1): Linear(0.003 M, 93.337% Params, 0.0 GFLOPs, 6.667% FLOPs, "
            "in_features=1568, out_features=2, bias=True)\n"
            "  )\n"
            ")\n"
        )

    def test_nothing_at_all(self):
        out = io.StringIO()
        assert get_model_complexity_info(nn.Identity(), (3,), ost=out) == ("0.0 GFLOPs", "0")
        assert "0.000% Params" in out.getvalue()

    def test_unknown_layers_are_listed(self):
        class Odd(nn.Module):
            def forward(self, x):
                return x * 2

        model = nn.Sequential(Odd(), nn.GELU(), Odd(), nn.Dropout(), nn.ReLU())
        out = io.StringIO()
        get_model_complexity_info(model, (3,), ost=out)
        assert out.getvalue().endswith("Not counted, for want of a rule: GELU ×1, Odd ×2\n")
        with pytest.warns(UserWarning, match="GELU ×1, Odd ×2"):
            get_model_complexity_info(model, (3,), print_per_layer_stat=False)

    def test_unknown_layers_with_parts_are_listed(self):
        """As a deformable convolution, whose operator torch has no formula for."""

        class Deformable(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(3))
                self.offset = nn.Linear(3, 3)

            def forward(self, x):
                return self.offset(x) * self.weight

        out = io.StringIO()
        get_model_complexity_info(nn.Sequential(Deformable()), (3,), ost=out)
        assert out.getvalue().endswith("Not counted, for want of a rule: Deformable ×1\n")

    def test_input_constructor(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = ConvModule(3, 8, 3, norm_cfg=dict(type="BN"))

            def forward(self, *, img, scale):
                return self.conv(img) * scale

        seen = []

        def make(shape):
            seen.append(shape)
            return {"img": torch.zeros(2, *shape), "scale": 3}

        flops, params = count(Two(), (3, 6, 6), input_constructor=make)
        assert seen == [(3, 6, 6)]
        assert flops == 2 * (16 * 27 * 8 + 2 * 128 + 128)
        assert params == 3 * 8 * 9 + 16

    def test_model_is_as_before(self):
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
        model[2].eval()
        model[0].weight.requires_grad = False
        rng, mean = torch.get_rng_state(), model[1].running_mean.clone()
        _, params = count(model, (3, 4, 4))
        assert params == 3 + 6  # what is frozen does not count
        assert torch.equal(torch.get_rng_state(), rng)
        assert torch.equal(model[1].running_mean, mean)
        assert [m.training for m in model] == [True, True, False]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert torch.backends.mha.get_fastpath_enabled()

    def test_hooks_go_after_an_error(self):
        model = nn.Sequential(nn.Linear(3, 3))
        with pytest.raises(RuntimeError):
            count(model, (4,))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert model.training

    @pytest.mark.parametrize("shape", [[1, 3], (), 3])
    def test_errors(self, shape):
        with pytest.raises(AssertionError, match="input_shape must be a tuple with at least one entry"):
            get_model_complexity_info(nn.Linear(1, 1), shape)


def test_strings():
    flops = 6.54321 * 10.0**9
    assert flops_to_string(flops) == "6.54 GFLOPs"
    assert flops_to_string(flops, "MFLOPs") == "6543.21 MFLOPs"
    assert flops_to_string(flops, "KFLOPs") == "6543210.0 KFLOPs"
    assert flops_to_string(flops, "FLOPs") == "6543210000.0 FLOPs"
    assert flops_to_string(flops, precision=4) == "6.5432 GFLOPs"
    assert flops_to_string(flops, None) == "6.54 GFLOPs"
    assert flops_to_string(3.21 * 10.0**7, None) == "32.1 MFLOPs"
    assert flops_to_string(5.4 * 10.0**3, None) == "5.4 KFLOPs"
    assert flops_to_string(987, None) == "987 FLOPs"
    params = 6.54321 * 10.0**7
    assert params_to_string(params) == "65.43 M"
    assert params_to_string(4.56 * 10.0**5) == "456.0 k"
    assert params_to_string(7.89 * 10.0**2) == "789.0"
    assert params_to_string(params, "M") == "65.43 M"
    assert params_to_string(params, "K") == "65432.1 K"
    assert params_to_string(params, "") == "65432100.0"
    assert params_to_string(params, "M", precision=4) == "65.4321 M"
