"""fuse_conv_bn and revert_sync_batchnorm."""

import copy

import pytest
import torch
from torch import nn

from cv.cnn import ConvAWS2d, ConvModule, ConvWS2d, ResNet, fuse_conv_bn, revert_sync_batchnorm
from cv.cnn.utils.sync_bn import _BatchNormXd

BN = dict(type="BN")


def liven(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval().double()


def norms(model):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


class TestFuse:
    @pytest.mark.parametrize(
        ("model", "shape", "left"),
        [
            (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 6, 6), 0),
            (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4)), (4, 6, 6), 0),
            (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False)), (3, 6), 0),
            (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4, eps=0.1)), (3, 4, 4, 4), 0),
            (nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4)), (3, 5, 5), 0),
            (ConvModule(3, 4, 3, norm_cfg=BN), (3, 6, 6), 0),
            (ConvModule(3, 4, 3, norm_cfg=BN, act_cfg=None, order=("act", "conv", "norm")), (3, 6, 6), 0),
            (ConvModule(3, 4, 3, norm_cfg=BN, act_cfg=None, order=("conv", "act", "norm")), (3, 6, 6), 0),
            # What must stay as it is:
            (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), (3, 6, 6), 1),
            (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), (3, 6, 6), 1),
            (ConvModule(3, 4, 3, norm_cfg=BN, order=("conv", "act", "norm")), (3, 6, 6), 1),
            (ConvModule(4, 4, 3, norm_cfg=BN, order=("norm", "conv", "act")), (4, 6, 6), 1),
            (ConvModule(3, 4, 3, norm_cfg=BN, with_spectral_norm=True), (3, 6, 6), 1),
            (nn.Sequential(ConvWS2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 6, 6), 1),
            (nn.Sequential(ConvAWS2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 6, 6), 1),
            (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), (3, 6, 6), 1),
            (nn.Sequential(nn.ConvTranspose2d(3, 3, 3), nn.BatchNorm2d(3)), (3, 6, 6), 1),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
    )
    def test_same_output(self, model, shape, left):
        model = copy.deepcopy(model)
        # torch runs SyncBatchNorm on GPUs only, except in evaluation mode
        model = liven(model)
        x = torch.randn(2, *shape, dtype=torch.double)
        with torch.no_grad():
            expected = model(x)
            assert fuse_conv_bn(model) is model
            torch.testing.assert_close(model(x), expected)
        assert norms(model) == left

    def test_resnet(self):
        model = liven(ResNet(18))
        x = torch.randn(1, 3, 32, 32, dtype=torch.double)
        with torch.no_grad():
            expected = model(x)
            fused = fuse_conv_bn(model)
            for a, b in zip(fused(x), expected, strict=True):
                torch.testing.assert_close(a, b)
        assert norms(fused) == 0
        assert fused.layer2[0].conv1.bias.requires_grad

    def test_shared_convolution(self):
        """Heads that share a convolution over levels but not the norms."""
        conv = nn.Conv2d(3, 3, 1)
        model = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(3)) for _ in range(2))
        model = liven(model)
        x = torch.randn(1, 3, 4, 4, dtype=torch.double)
        with torch.no_grad():
            expected = [level(x) for level in model]
            fuse_conv_bn(model)
            for level, out in zip(model, expected, strict=True):
                torch.testing.assert_close(level(x), out)


class TestRevertSyncBatchNorm:
    def test_replaces_all(self):
        model = nn.Sequential(
            ConvModule(3, 4, 3, norm_cfg=dict(type="SyncBN", eps=1e-3, momentum=0.3)),
            nn.SyncBatchNorm(4, affine=False),
        )
        liven(model).float()
        model[1].train()
        expected = [p.clone() for p in model[0].norm.parameters()]
        state = model.state_dict()
        reverted = revert_sync_batchnorm(model)
        assert reverted is model
        norm = model[0].norm
        assert not any(type(m).__name__ == "SyncBatchNorm" for m in model.modules())
        assert (norm.eps, norm.momentum, norm.training) == (1e-3, 0.3, False)
        assert model[1].training
        assert all(torch.equal(a, b) for a, b in zip(norm.parameters(), expected, strict=True))
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), state.values(), strict=True)
        )
        reference = nn.BatchNorm2d(4, affine=False)
        reference.load_state_dict(model[1].state_dict())
        x = torch.randn(2, 3, 6, 6)
        with torch.no_grad():
            torch.testing.assert_close(model(x), reference(model[0](x)))

    def test_the_module_itself(self):
        plain = revert_sync_batchnorm(nn.SyncBatchNorm(3))
        assert isinstance(plain, _BatchNormXd)
        for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 4), (2, 3, 2, 4, 4)):  # any number of axes
            assert plain(torch.randn(shape)).shape == shape
        model = nn.Linear(1, 1)
        assert revert_sync_batchnorm(model) is model


def test_fusing_takes_the_epsilon_of_the_norm():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=0.5)).eval()
    nn.init.constant_(net[1].running_var, 0.25)
    x = torch.randn(1, 2, 5, 5)
    expected = net(x)
    torch.testing.assert_close(fuse_conv_bn(net)(x), expected)
