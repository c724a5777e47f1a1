"""Merge cells: what is merged, resized and convolved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cv.ops.merge_cells import BaseMergeCell, ConcatCell, GlobalPoolingCell, SumCell


def maps(size1: tuple[int, int], size2: tuple[int, int], channels: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(  # type: ignore[return-value]
        torch.randn(2, channels, *size, generator=generator, dtype=torch.float64) for size in (size1, size2)
    )


class TestMerging:
    def test_sum(self) -> None:
        x1, x2 = maps((6, 5), (6, 5))
        assert torch.equal(SumCell(4, 4, with_out_conv=False)(x1, x2), x1 + x2)

    def test_concatenation(self) -> None:
        x1, x2 = maps((6, 5), (6, 5))
        assert torch.equal(ConcatCell(4, 4, with_out_conv=False)(x1, x2), torch.cat([x1, x2], 1))

    def test_global_pooling(self) -> None:
        x1, x2 = maps((6, 5), (6, 5))
        expected = x2 + torch.sigmoid(x2.mean((2, 3), keepdim=True)) * x1
        torch.testing.assert_close(GlobalPoolingCell(with_out_conv=False)(x1, x2), expected)

    @pytest.mark.parametrize("kind", [SumCell, ConcatCell, GlobalPoolingCell])
    def test_output_convolution(self, kind: Any) -> None:
        x1, x2 = maps((6, 5), (6, 5))
        cell = kind(4, 3, out_norm_cfg={"type": "GN", "num_groups": 1}).double().eval()
        conv = cell.out_conv
        assert (conv.conv.kernel_size, conv.conv.padding, conv.conv.groups) == ((3, 3), (1, 1), 1)
        assert conv.order == ("act", "conv", "norm")
        merged = cell._binary_op(x1, x2)
        expected = conv.norm(F.conv2d(F.relu(merged), conv.conv.weight, conv.conv.bias, padding=1))
        torch.testing.assert_close(cell(x1, x2), expected)
        assert cell(x1, x2).shape == (2, 3, 6, 5)

    def test_configured_output_convolution(self) -> None:
        cell = SumCell(
            4, 4, out_conv_cfg={"groups": 2, "kernel_size": 1}, out_conv_order=["conv", "norm", "act"]
        )
        assert (cell.out_conv.conv.kernel_size, cell.out_conv.conv.groups) == ((1, 1), 2)
        assert cell.out_conv.order == ("conv", "norm", "act")

    def test_input_convolutions(self) -> None:
        x1, x2 = maps((6, 5), (6, 5))
        cell = SumCell(
            4, 4, with_out_conv=False, with_input1_conv=True, input_norm_cfg={"type": "GN", "num_groups": 1}
        )
        cell = cell.double().eval()
        assert {name.split(".")[0] for name, _ in cell.named_parameters()} == {"input1_conv"}
        torch.testing.assert_close(cell(x1, x2), cell.input1_conv(x1) + x2)
        assert cell.input1_conv.with_norm
        second = SumCell(4, 4, with_out_conv=False, with_input2_conv=True).double()
        torch.testing.assert_close(second(x1, x2), x1 + second.input2_conv(x2))

    def test_gradients_reach_both_inputs(self) -> None:
        x1, x2 = maps((3, 4), (6, 8))
        cell = GlobalPoolingCell(4, 2).double()
        (cell(x1.requires_grad_(), x2.requires_grad_()) ** 2).sum().backward()
        assert x1.grad is not None
        assert x2.grad is not None


class TestResizing:
    def test_the_larger_input_gives_the_size(self) -> None:
        x1, x2 = maps((3, 4), (6, 8))
        cell = SumCell(4, 4, with_out_conv=False)
        expected = F.interpolate(x1, size=(6, 8), mode="nearest") + x2
        torch.testing.assert_close(cell(x1, x2), expected)
        torch.testing.assert_close(cell(x2, x1), expected)

    def test_a_larger_input_is_pooled(self) -> None:
        x1, x2 = maps((3, 4), (6, 8))
        out = SumCell(4, 4, with_out_conv=False)(x1, x2, out_size=(3, 4))
        torch.testing.assert_close(out, x1 + F.max_pool2d(x2, 2))

    def test_pooling_of_sizes_that_do_not_divide_adds_zeros_around(self) -> None:
        x1, x2 = maps((4, 4), (10, 7))
        out = SumCell(4, 4, with_out_conv=False)(x1, x2, out_size=(4, 4))
        padded = F.pad(x2, (0, 1, 1, 1))  # 7 + 1 = 2 * 4, 10 + 2 = 3 * 4
        torch.testing.assert_close(out, x1 + F.max_pool2d(padded, (3, 2)))

    def test_one_axis_grows_while_the_other_shrinks(self) -> None:
        x1, x2 = maps((4, 4), (8, 2))
        out = SumCell(4, 4, with_out_conv=False)(x1, x2, out_size=(4, 4))
        torch.testing.assert_close(out, x1 + F.interpolate(F.max_pool2d(x2, (2, 1)), size=(4, 4)))

    def test_bilinear(self) -> None:
        x1, x2 = maps((3, 4), (6, 8))
        out = SumCell(4, 4, with_out_conv=False, upsample_mode="bilinear")(x1, x2)
        torch.testing.assert_close(out, F.interpolate(x1, size=(6, 8), mode="bilinear") + x2)


class TestErrors:
    def test_messages(self) -> None:
        x1, x2 = maps((3, 4), (3, 4))
        cell = SumCell(4, 4, with_out_conv=False)
        with pytest.raises(ValueError, match=r"x1 and x2 must have shapes .*, got .* and \(2, 3, 3, 4\)"):
            cell(x1, x2[:, :3])
        with pytest.raises(ValueError, match=r"out_size must be \(H, W\), got \(3,\)"):
            cell(x1, x2, out_size=(3,))
        with pytest.raises(ValueError, match="upsample_mode must be 'nearest' or 'bilinear', got 'cubic'"):
            SumCell(4, 4, upsample_mode="cubic")
        with pytest.raises(ValueError, match="fused_channels must be given for a cell with a convolution"):
            GlobalPoolingCell()
        with pytest.raises(TypeError, match="BaseMergeCell must define _binary_op"):
            BaseMergeCell(with_out_conv=False)(x1, x2)
