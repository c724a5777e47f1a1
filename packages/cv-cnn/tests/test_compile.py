"""Every module under torch.compile(fullgraph=True), torch.export, bf16 autocast, and in channels-last."""

import pytest
import torch
from torch import nn

import cv.cnn as cnn
from cv.cnn.bricks.drop import Dropout, DropPath
from cv.cnn.bricks.transformer import FFN, BaseTransformerLayer, MultiheadAttention, TransformerLayerSequence

BN = dict(type="BN")
LAYER = dict(
    attn_cfgs=dict(type="MultiheadAttention", embed_dims=16, num_heads=2),
    ffn_cfgs=dict(type="FFN", embed_dims=16, feedforward_channels=32),
    operation_order=("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
)
TYPED_LAYER = {"type": "BaseTransformerLayer", **LAYER}


def image(*shape):
    return torch.randn(*(shape or (2, 8, 6, 6)))


def clip():
    return torch.randn(2, 8, 4, 4, 4)


def photo():
    return torch.randn(1, 3, 32, 32)


def sequence():
    return torch.randn(2, 5, 16)


TWO_STAGES = dict(num_stages=2, dilations=(1, 1), out_indices=(0, 1))

CASES = {
    "ConvModule": (lambda: cnn.ConvModule(8, 4, 3, norm_cfg=BN), image),
    "ConvModule-order": (lambda: cnn.ConvModule(8, 4, 3, norm_cfg=BN, order=("norm", "act", "conv")), image),
    "ConvModule-padding": (lambda: cnn.ConvModule(8, 4, 3, padding=1, padding_mode="reflect"), image),
    "DepthwiseSeparable": (lambda: cnn.DepthwiseSeparableConvModule(8, 4, 3, norm_cfg=BN), image),
    "ConvWS2d": (lambda: cnn.ConvWS2d(8, 4, 3), image),
    "ConvAWS2d": (lambda: cnn.ConvAWS2d(8, 4, 3), image),
    "AdaptivePadding": (lambda: cnn.Conv2dAdaptivePadding(8, 4, 3, stride=2), image),
    "NonLocal1d": (lambda: cnn.NonLocal1d(8, True, zeros_init=False), lambda: image(2, 8, 6)),
    "NonLocal2d": (lambda: cnn.NonLocal2d(8, True, mode="gaussian", zeros_init=False), image),
    "NonLocal2d-concat": (lambda: cnn.NonLocal2d(8, mode="concatenation", zeros_init=False), image),
    "NonLocal3d": (lambda: cnn.NonLocal3d(8, mode="dot_product", zeros_init=False), clip),
    "ContextBlock": (lambda: cnn.ContextBlock(8, 0.5, fusion_types=("channel_add", "channel_mul")), image),
    "GeneralizedAttention": (
        lambda: cnn.GeneralizedAttention(8, num_heads=2, spatial_range=2, q_stride=2),
        image,
    ),
    "HSigmoid": (cnn.HSigmoid, image),
    "HSwish": (cnn.HSwish, image),
    "Swish": (cnn.Swish, image),
    "Scale": (lambda: cnn.Scale(2.0), image),
    "Clamp": (cnn.Clamp, image),
    "DropPath": (DropPath, image),
    "Dropout": (Dropout, image),
    "Conv2d": (lambda: cnn.Conv2d(8, 4, 3), image),
    "Conv3d": (lambda: cnn.Conv3d(8, 4, 3), clip),
    "ConvTranspose2d": (lambda: cnn.ConvTranspose2d(8, 4, 2, stride=2), image),
    "ConvTranspose3d": (lambda: cnn.ConvTranspose3d(8, 4, 2), clip),
    "MaxPool2d": (lambda: cnn.MaxPool2d(2), image),
    "MaxPool3d": (lambda: cnn.MaxPool3d(2), clip),
    "Linear": (lambda: cnn.Linear(8, 4), lambda: image(2, 8)),
    "PixelShufflePack": (lambda: cnn.PixelShufflePack(8, 4, 2, 3), image),
    "Sequential": (lambda: cnn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU()), image),
    "MultiheadAttention": (lambda: MultiheadAttention(16, 2, batch_first=True), sequence),
    "FFN": (lambda: FFN(16, 32), sequence),
    "TransformerLayer": (lambda: _Decoder(BaseTransformerLayer(**LAYER)), sequence),
    "TransformerSequence": (lambda: _Decoder(TransformerLayerSequence(TYPED_LAYER, 2)), sequence),
    "AlexNet": (cnn.AlexNet, lambda: image(1, 3, 64, 64)),
    "VGG": (lambda: cnn.VGG(11, with_bn=True, **TWO_STAGES), photo),
    "ResNet": (lambda: cnn.ResNet(18, strides=(1, 2), **TWO_STAGES), photo),
    "ResNet-cp": (lambda: cnn.ResNet(18, strides=(1, 2), with_cp=True, **TWO_STAGES), photo),
}
# What does not cast its input under autocast is given bf16.
KEEPS_DTYPE = {"HSigmoid", "HSwish", "Swish", "Scale", "Clamp", "DropPath", "Dropout"}
KEEPS_DTYPE |= {"MaxPool2d", "MaxPool3d"}


class _Decoder(nn.Module):
    """One input for all that a decoder layer takes."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x, query_pos=x, key_pos=x)


def make_case(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    make, data = CASES[name]
    module, x = make().eval(), data()
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("gamma") or p.abs().sum() == 0:  # what starts as the identity shall do something
                p.normal_(std=0.5)
    return name, module, x


@pytest.fixture(params=CASES)
def case(request):
    return make_case(request.param)


def flat(outputs):
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def assert_same(got, expected, **tolerance):
    for a, b in zip(flat(got), flat(expected), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_compile(case):
    _, module, x = case
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = compiled(inputs), module(again)
    assert_same(got, expected, rtol=1e-4, atol=1e-5)
    flat(got)[-1].sum().backward()
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    flat(expected)[-1].sum().backward()
    torch.testing.assert_close(inputs.grad, again.grad, rtol=1e-3, atol=1e-4)
    for a, p in zip(grads, module.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-3, atol=1e-3)


def test_export(case):
    _, module, x = case
    with torch.no_grad():
        exported = torch.export.export(module, (x,)).module()
        assert_same(exported(x), module(x), rtol=1e-4, atol=1e-5)


def test_autocast(case):
    name, module, x = case
    with torch.no_grad():
        expected = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = module(x.bfloat16() if name in KEEPS_DTYPE else x)
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert a.isfinite().all()
        scale = b.abs().max().item()
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.05 * scale)


@pytest.mark.parametrize("name", [name for name, (_, data) in CASES.items() if data().ndim > 3])
def test_channels_last(name):
    _, module, x = make_case(name)
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}[x.ndim]
    with torch.no_grad():
        expected = module(x)
        got = module.to(memory_format=memory_format)(x.to(memory_format=memory_format))
    assert_same(got, expected, rtol=1e-4, atol=1e-5)


def test_compile_follows_the_batch():
    """A second batch size compiles once more, with a symbolic size; the empty batch works too."""
    torch._dynamo.reset()
    module = cnn.ConvModule(3, 4, 3, norm_cfg=BN, conv_cfg=dict(type="Conv")).eval()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for n in (2, 3, 5, 0):
        x = torch.randn(n, 3, 8, 8)
        assert_same(compiled(x), module(x))


def test_export_with_a_dynamic_batch():
    module = cnn.ResNet(18, strides=(1, 2), **TWO_STAGES).eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(module, (torch.randn(2, 3, 32, 32),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert_same(exported(x), module(x), rtol=1e-4, atol=1e-5)


def test_spectral_norm_compiles():
    torch._dynamo.reset()
    module = cnn.ConvModule(3, 4, 3, with_spectral_norm=True).eval()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    x = torch.randn(1, 3, 5, 5)
    assert_same(compiled(x), module(x))
