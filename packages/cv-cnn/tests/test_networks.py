"""AlexNet, VGG and ResNet: the published layout, and outputs against plain functions of torch.

The functions below read a state dict by the names that torchvision's networks use, so a network that agrees
with them computes with published weights what torchvision computes.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cv.cnn import VGG, AlexNet, ResNet, make_res_layer, make_vgg_layer
from cv.cnn.resnet import BasicBlock, Bottleneck
from cv.cnn.resnet import conv3x3 as res_conv3x3

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# Parameters of torchvision's networks for 1000 classes, as its documentation lists them.
PUBLISHED = {
    "alexnet": 61_100_840,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def norm_entries(name, channels):
    entries = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**entries, f"{name}.num_batches_tracked": ()}


def resnet_layout(depth):
    entries = {"conv1.weight": (64, 3, 7, 7), **norm_entries("bn1", 64)}
    channels = 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            if depth < 50:
                shapes, out = [(width, channels, 3, 3), (width, width, 3, 3)], width
            else:
                out = width * 4
                shapes = [(width, channels, 1, 1), (width, width, 3, 3), (out, width, 1, 1)]
            for index, shape in enumerate(shapes, 1):
                entries[f"{name}.conv{index}.weight"] = shape
                entries.update(norm_entries(f"{name}.bn{index}", shape[0]))
            if block == 0 and (stage > 0 or channels != out):
                entries[f"{name}.downsample.0.weight"] = (out, channels, 1, 1)
                entries.update(norm_entries(f"{name}.downsample.1", out))
            channels = out
    return entries


def vgg_layout(depth, with_bn):
    entries, index, channels = {}, 0, 3
    for stage, blocks in enumerate(VGG_STAGES[depth]):
        width = min(64 * 2**stage, 512)
        for _ in range(blocks):
            entries[f"features.{index}.weight"] = (width, channels, 3, 3)
            entries[f"features.{index}.bias"] = (width,)
            if with_bn:
                entries.update(norm_entries(f"features.{index + 1}", width))
            index += 3 if with_bn else 2
            channels = width
        index += 1
    for index, shape in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        entries[f"classifier.{index}.weight"] = shape
        entries[f"classifier.{index}.bias"] = shape[:1]
    return entries


def layout(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def norm(state, name, x):
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, eps=1e-5)


def resnet(state, depth, x, style="pytorch", strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)):
    """The outputs of the four stages."""
    x = F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage, blocks in enumerate(BLOCKS[depth]):
        d = dilations[stage]
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", strides[stage] if block == 0 else 1
            if depth < 50:
                convs = [(stride, d, d), (1, 1, 1)]
            else:
                convs = [(1, 0, 1), (stride, d, d), (1, 0, 1)]
                if style == "caffe":
                    convs[:2] = [(stride, 0, 1), (1, d, d)]
            y = x
            for index, (s, padding, dilation) in enumerate(convs, 1):
                weight = state[f"{name}.conv{index}.weight"]
                y = F.conv2d(y, weight, stride=s, padding=padding, dilation=dilation)
                y = norm(state, f"{name}.bn{index}", y)
                if index < len(convs):
                    y = F.relu(y)
            if f"{name}.downsample.0.weight" in state:
                x = norm(
                    state,
                    f"{name}.downsample.1",
                    F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride),
                )
            x = F.relu(x + y)
        outputs.append(x)
    return outputs


def vgg(state, depth, with_bn, x):
    """The outputs of the five stages."""
    index, outputs = 0, []
    for blocks in VGG_STAGES[depth]:
        for _ in range(blocks):
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            if with_bn:
                x = norm(state, f"features.{index + 1}", x)
            x = F.relu(x)
            index += 3 if with_bn else 2
        x = F.max_pool2d(x, 2)
        index += 1
        outputs.append(x)
    return outputs


def classify(state, x, positions):
    for index in positions:
        x = F.linear(x, state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"])
        if index != positions[-1]:
            x = F.relu(x)
    return x


def build(cls, *args, **kwargs):
    """A network with weights and statistics as after training, so that a mix-up shows."""
    with torch.device("meta"):  # without torch's own initialisation, which takes longer than the test
        model = cls(*args, **kwargs)
    model.to_empty(device="cpu")
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


class TestAgainstTorchvision:
    @pytest.mark.parametrize("depth", BLOCKS)
    def test_resnet_layout(self, depth):
        with torch.device("meta"):
            model = ResNet(depth)
        assert list(layout(model).items()) == list(resnet_layout(depth).items())
        features = 512 if depth < 50 else 2048
        assert model.feat_dim == features
        without_classifier = PUBLISHED[f"resnet{depth}"] - features * 1000 - 1000
        assert sum(p.numel() for p in model.parameters()) == without_classifier

    @pytest.mark.parametrize("with_bn", [True, False])
    @pytest.mark.parametrize("depth", VGG_STAGES)
    def test_vgg_layout(self, depth, with_bn):
        with torch.device("meta"):
            model = VGG(depth, with_bn, num_classes=1000)
        assert list(layout(model).items()) == list(vgg_layout(depth, with_bn).items())
        name = f"vgg{depth}{'_bn' if with_bn else ''}"
        assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]

    def test_alexnet_layout(self):
        with torch.device("meta"):
            model = AlexNet(1000)
        shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3)}
        shapes[10] = (256, 256, 3, 3)
        expected = {f"features.{i}.weight": shape for i, shape in shapes.items()}
        for i, shape in {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}.items():
            expected[f"classifier.{i}.weight"] = shape
        weights = {name: shape for name, shape in layout(model).items() if name.endswith("weight")}
        assert weights == expected
        assert sum(p.numel() for p in model.parameters()) == PUBLISHED["alexnet"]

    @pytest.mark.parametrize(
        ("depth", "options"),
        [
            (18, {}),
            (34, {}),
            (50, {}),
            (50, dict(style="caffe")),
            (18, dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))),
            (50, dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), style="caffe")),
            (101, {}),
        ],
    )
    def test_resnet_outputs(self, depth, options):
        model = build(ResNet, depth, **options)
        x = torch.randn(1, 3, 33, 40)
        with torch.no_grad():
            got, expected = model(x), resnet(model.state_dict(), depth, x, **options)
        assert len(got) == 4
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize(("depth", "with_bn"), [(11, True), (13, False), (16, True), (19, False)])
    def test_vgg_outputs(self, depth, with_bn):
        model = build(VGG, depth, with_bn)
        x = torch.randn(1, 3, 64, 32)
        with torch.no_grad():
            got, expected = model(x), vgg(model.state_dict(), depth, with_bn, x)
        assert len(got) == 5
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)

    def test_classifiers(self):
        for cls, args, options, positions, side, size in (
            (AlexNet, (4,), {}, (1, 4, 6), 6, (224, 224)),
            (VGG, (11,), dict(num_classes=4, out_indices=()), (0, 3, 6), 7, (70, 50)),
        ):
            model = build(cls, *args, **options)
            x = torch.randn(1, 3, *size)
            with torch.no_grad():
                pooled = F.adaptive_avg_pool2d(model.features(x), side).flatten(1)
                expected = classify(model.state_dict(), pooled, positions)
                torch.testing.assert_close(model(x), expected)


class TestAlexNet:
    def test_backbone(self):
        model = AlexNet()
        assert not hasattr(model, "classifier")
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 256, 6, 6)
        with pytest.raises(TypeError, match="pretrained must be a str or None"):
            model.init_weights(pretrained=3)


class TestVGG:
    def test_options(self):
        model = VGG(
            11, num_stages=3, dilations=(1, 1, 2), out_indices=(0, 2), with_last_pool=False, ceil_mode=True
        )
        x = torch.randn(1, 3, 33, 32)
        first, last = model(x)
        assert first.shape == (1, 64, 17, 16)
        assert last.shape == (1, 256, 9, 8)
        assert model.range_sub_modules == [[0, 3], [3, 6], [6, 10]]
        assert model.features[6].dilation == (2, 2)
        single = VGG(11, out_indices=(3,))
        assert single(torch.randn(1, 3, 32, 32)).shape == (1, 512, 2, 2)
        assert len(make_vgg_layer(3, 4, 2, with_bn=True)) == 7

    def test_training_mode(self):
        model = VGG(11, with_bn=True, frozen_stages=2, bn_frozen=True)
        model.train()
        for name, module in model.features.named_children():
            frozen = int(name) < model.range_sub_modules[1][1]
            is_norm = isinstance(module, nn.BatchNorm2d)
            assert module.training != (frozen or is_norm)
            for p in module.parameters():
                assert p.requires_grad != (frozen or is_norm)
        free = VGG(11, with_bn=True, bn_eval=False).train()
        assert all(m.training for m in free.modules())
        assert free.eval() is free
        assert not any(m.training for m in free.modules())

    def test_initialisation(self):
        torch.manual_seed(0)
        model = VGG(11, with_bn=True, num_classes=-1)
        model.init_weights()
        assert model.features[4].weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
        with pytest.raises(TypeError, match="pretrained must be a str or None"):
            model.init_weights(pretrained=3)

    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            (dict(depth=18), KeyError, "invalid depth 18 for vgg"),
            (dict(depth=11, num_stages=0, dilations=()), AssertionError, "num_stages must be in 1..5, got 0"),
            (dict(depth=11, dilations=(1, 1)), AssertionError, "dilations must have one entry per stage"),
            (dict(depth=11, out_indices=(5,)), AssertionError, "out_indices must be stages below 5"),
            (dict(depth="11"), KeyError, "invalid depth '11' for vgg"),
            (dict(depth=11, frozen_stages=6), AssertionError, "frozen_stages must be at most num_stages=5"),
            (
                dict(depth=11, num_stages=4, dilations=(1,) * 4, out_indices=(0,), num_classes=3),
                AssertionError,
                "a classifier needs all 5 stages",
            ),
        ],
    )
    def test_errors(self, arguments, error, match):
        with pytest.raises(error, match=match):
            VGG(**arguments)


class TestResNet:
    def test_options(self):
        model = ResNet(18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 128, 4, 4)
        assert not hasattr(model, "layer3")
        assert model.res_layers == ["layer1", "layer2"]

    @pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
    def test_checkpointing_changes_nothing(self, block):
        torch.manual_seed(0)
        plain = make_res_layer(block, 8, 4, 2, stride=2)
        saving = make_res_layer(block, 8, 4, 2, stride=2, with_cp=True)
        saving.load_state_dict(plain.state_dict())
        x = torch.randn(2, 8, 6, 6)
        results = []
        for layer in (plain, saving):
            inputs = x.clone().requires_grad_()
            out = layer(inputs)
            out.square().mean().backward()
            results.append([out, inputs.grad, *(p.grad for p in layer.parameters())])
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(saving(x), plain(x))  # nothing to save where the input needs no gradient
        assert all(layer.with_cp for layer in ResNet(18, with_cp=True).layer1)

    @pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
    def test_frozen_stages(self, frozen):
        model = ResNet(18, frozen_stages=frozen, bn_eval=False).train()
        for name, p in model.named_parameters():
            stage = int(name[5]) if name.startswith("layer") else 0
            assert p.requires_grad == (stage > frozen), name
        for name, m in model.named_modules():
            if isinstance(m, nn.BatchNorm2d):
                stage = int(name[5]) if name.startswith("layer") else 0
                assert m.training == (stage > frozen), name

    def test_norms(self):
        model = ResNet(18).train()
        assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert model.layer1.training
        frozen = ResNet(18, bn_frozen=True).train()
        assert not any(p.requires_grad for n, p in frozen.named_parameters() if ".bn" in n)
        assert frozen.conv1.weight.requires_grad

    def test_initialisation(self, tmp_path):
        torch.manual_seed(0)
        model = ResNet(18)
        model.init_weights()
        weight = model.layer3[1].conv1.weight
        assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
        torch.save({**model.state_dict(), "fc.weight": torch.zeros(1000, 512)}, tmp_path / "r18.pth")
        other = ResNet(18)
        other.init_weights(pretrained=str(tmp_path / "r18.pth"))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        with pytest.raises(TypeError, match="pretrained must be a str or None"):
            model.init_weights(pretrained=0)

    def test_parts(self):
        layer = make_res_layer(Bottleneck, 64, 64, 2, stride=2, style="caffe")
        assert layer[0].conv1.stride == (2, 2)
        assert layer[0].conv2.stride == (1, 1)
        assert layer[1].downsample is None
        assert (BasicBlock.expansion, Bottleneck.expansion) == (1, 4)
        assert res_conv3x3(2, 3, 2, 2).padding == (2, 2)

    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            (dict(depth=20), KeyError, "invalid depth 20 for resnet"),
            (dict(depth=18, num_stages=5), AssertionError, "num_stages must be in 1..4, got 5"),
            (dict(depth=18, strides=(1, 2)), AssertionError, "strides and dilations must have one entry"),
            (dict(depth=18, out_indices=(4,)), AssertionError, "out_indices must be stages below 4"),
            (dict(depth=18, frozen_stages=5), AssertionError, "frozen_stages must be at most num_stages=4"),
            (dict(depth=18, style="tf"), AssertionError, "style must be 'pytorch' or 'caffe', got 'tf'"),
        ],
    )
    def test_errors(self, arguments, error, match):
        with pytest.raises(error, match=match):
            ResNet(**arguments)
