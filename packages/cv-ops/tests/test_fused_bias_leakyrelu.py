"""fused_bias_leakyrelu against torch's bias addition, leaky_relu and product."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import FusedBiasLeakyReLU, fused_bias_leakyrelu
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
)

OP = torch.ops.cv.fused_bias_leakyrelu.default
OP_BACKWARD = torch.ops.cv.fused_bias_leakyrelu_backward.default


def oracle(x: Tensor, bias: Tensor, slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    z = x + bias.reshape(1, -1, *[1] * (x.dim() - 2))
    return torch.where(z > 0, z, slope * z) * scale


def random_case(*shape: int) -> tuple[Tensor, Tensor]:
    """No sum of input and bias is so near to 0 that rounding the inputs could turn its sign."""
    g = torch.Generator().manual_seed(sum(shape))
    x = torch.randint(-40, 40, shape, generator=g).double() / 8 + 1 / 16
    return x.requires_grad_(), (torch.randint(-8, 8, shape[1:2], generator=g).double() / 8).requires_grad_()


SHAPES = [(3, 5), (2, 3, 4, 4), (2, 3, 5, 7), (1, 2, 130, 131), (300, 17), (2, 3, 2, 3, 4), (4, 6, 1)]


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_matches_the_definition(self, device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        assert_matches_oracle(
            fused_bias_leakyrelu,
            oracle,
            random_case(*shape),
            dtype=dtype,
            device=device,
            backward=True,
            scale=math.sqrt(math.prod(shape)),  # the bias' gradient is a sum
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_channels_last(self, device: str, dtype: torch.dtype) -> None:
        x, bias = (t.detach().to(device, dtype) for t in random_case(2, 40, 21, 20))
        x, bias = x.requires_grad_(), bias.requires_grad_()
        last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        # Factors and gradients that make every sum exact, in whatever order.
        expected, actual = fused_bias_leakyrelu(x, bias, 0.5, 1.0), fused_bias_leakyrelu(last, bias, 0.5, 1.0)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(actual, expected)
        grad = (torch.randint(-4, 5, expected.shape) / 8).to(expected)
        (g, b), (g_last, b_last) = (
            torch.autograd.grad(y, (i, bias), grad) for y, i in ((expected, x), (actual, last))
        )
        assert g_last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(g_last, g)
        torch.testing.assert_close(b_last, b)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.integers(0, 9), min_size=2, max_size=5), st.floats(0, 3), st.floats(0.01, 10), st.data()
    )
    def test_any_shape_and_parameter(
        self, shape: list[int], slope: float, scale: float, data: st.DataObject
    ) -> None:
        x, bias = random_case(*shape)
        layout = data.draw(st.permutations(range(len(shape))))
        inverse = [layout.index(d) for d in range(len(shape))]
        strided = x.detach().permute(layout).contiguous().permute(inverse).requires_grad_()
        actual, expected = fused_bias_leakyrelu(strided, bias, slope, scale), oracle(x, bias, slope, scale)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        grad = torch.rand_like(expected) - 0.5
        ours = torch.autograd.grad(actual, (strided, bias), grad)
        theirs = torch.autograd.grad(expected, (x, bias), grad)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("device", DEVICES)
    def test_is_leaky_relu_at_zero_and_beyond_numbers(self, device: str) -> None:
        x = torch.tensor([[0.0, -0.0, math.inf, -math.inf, math.nan, 1e38, -1e38]], device=device)
        x.requires_grad_()
        y = fused_bias_leakyrelu(x, x.new_zeros(7), 0.25, 1.0)
        expected = torch.nn.functional.leaky_relu(x, 0.25)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        (ours,), (theirs,) = (torch.autograd.grad(v.sum(), x) for v in (y, expected))
        assert torch.equal(ours[0, :4], theirs[0, :4])
        assert torch.equal(ours[0, 5:], theirs[0, 5:])
        assert fused_bias_leakyrelu(x, x.new_zeros(7), 0.0)[0, :2].tolist() == [0, 0]

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 3), (2, 0, 4, 4), (2, 3, 0, 4)])
    def test_empty(self, device: str, shape: tuple[int, ...]) -> None:
        x = torch.zeros(shape, device=device, requires_grad=True)
        bias = torch.ones(shape[1], device=device, requires_grad=True)
        y = fused_bias_leakyrelu(x, bias)
        assert y.shape == shape
        g, b = torch.autograd.grad(y.sum(), (x, bias))
        assert g.shape == shape
        assert b.tolist() == [0.0] * shape[1]

    def test_bias_of_another_shape_or_dtype(self) -> None:
        x, bias = random_case(2, 3, 4, 5)
        expected = fused_bias_leakyrelu(x, bias)
        wide = bias.detach().reshape(1, 3, 1, 1).float().requires_grad_()
        assert torch.equal(fused_bias_leakyrelu(x, wide), expected)
        (g,) = torch.autograd.grad(fused_bias_leakyrelu(x, wide).sum(), wide)
        assert g.shape == (1, 3, 1, 1)
        assert g.dtype == torch.float32


class TestLayer:
    def test_is_the_function(self) -> None:
        x = random_case(2, 3, 4, 4)[0].float()
        layer = FusedBiasLeakyReLU(3, 0.1, 2.0)
        assert {name: p.shape for name, p in layer.named_parameters()} == {"bias": (3,)}
        assert not layer.bias.any()
        torch.nn.init.normal_(layer.bias)
        assert torch.equal(layer(x), fused_bias_leakyrelu(x, layer.bias, 0.1, 2.0))
        assert repr(layer) == "FusedBiasLeakyReLU(3, negative_slope=0.1, scale=2)"
        assert FusedBiasLeakyReLU(4).scale == 2**0.5


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        x, bias = random_case(2, 3, 4, 2)
        check_operator(
            fused_bias_leakyrelu,
            (x, bias),
            op=OP,
            op_args=(x, bias, None, 0.2, 1.5),
            device=device,
            dynamic_shapes=[dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC), None],
        )

    def test_other_operators(self) -> None:
        x, bias = random_case(2, 3, 4, 2)
        y = OP(x, bias, None, 0.2, 1.5).detach()
        torch.library.opcheck(OP, (x, bias, y, 0.2, 1.5))
        torch.library.opcheck(OP_BACKWARD, (x, y, 0.2, 1.5))

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 3)])
    def test_higher_derivatives(self, device: str, shape: tuple[int, ...]) -> None:
        x, bias = (t.detach().to(device).requires_grad_() for t in random_case(*shape))
        assert torch.autograd.gradgradcheck(lambda x, b: fused_bias_leakyrelu(x, b) ** 3, (x, bias))
        third = fused_bias_leakyrelu(x, bias, 0.5, 2.0) ** 3
        for _ in range(3):
            (third,) = torch.autograd.grad(third.sum(), x, create_graph=True)
        slope = torch.where(x + bias.reshape(1, -1, *[1] * (x.dim() - 2)) > 0, 2.0, 1.0)
        torch.testing.assert_close(third, (6 * slope**3).double())

    def test_backends_agree(self) -> None:
        for shape in ((2, 5, 9, 13), (50, 33), (2, 16, 20, 20)):
            check_every_cpu_isa(fused_bias_leakyrelu, random_case(*shape))
            if torch.cuda.is_available():
                check_cpu_equals_cuda(fused_bias_leakyrelu, random_case(*shape), scale=30.0)

    def test_stream(self) -> None:
        check_cuda_stream(fused_bias_leakyrelu, random_case(4, 16, 32, 32))

    def test_the_number_of_threads_does_not_matter(self) -> None:
        x, bias = (t.detach().float().requires_grad_() for t in random_case(2, 3, 200, 201))
        before = torch.get_num_threads()
        try:
            sums = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                sums += torch.autograd.grad(fused_bias_leakyrelu(x, bias).square().sum(), bias)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(sums[0], sums[1])
        assert torch.equal(sums[0], sums[2])


class TestErrors:
    def test_messages(self) -> None:
        x, bias = random_case(2, 3, 4, 4)
        with pytest.raises(TypeError, match="bias must be a tensor, got NoneType"):
            fused_bias_leakyrelu(x, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int64"):
            fused_bias_leakyrelu(x.long(), bias)
        with pytest.raises(ValueError, match=r"input must have shape \(N, C, \.\.\.\), got \(2,\)"):
            fused_bias_leakyrelu(x[:, 0, 0, 0], bias)
        with pytest.raises(ValueError, match=r"bias must have shape \(3,\), got \(4,\)"):
            fused_bias_leakyrelu(x, torch.zeros(4))
        with pytest.raises(ValueError, match=r"bias must have shape \(3,\), got \(3, 1, 1, 1\)"):
            fused_bias_leakyrelu(x, bias.reshape(3, 1, 1, 1))
        with pytest.raises(ValueError, match="bias must be on cpu as input is, got meta"):
            fused_bias_leakyrelu(x, bias.to("meta"))
        with pytest.raises(ValueError, match=r"negative_slope must not be negative, got -0\.1"):
            fused_bias_leakyrelu(x, bias, -0.1)
        with pytest.raises(ValueError, match="scale must be positive, got 0"):
            FusedBiasLeakyReLU(3, scale=0)
