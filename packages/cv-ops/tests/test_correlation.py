"""correlation against its definition: windows cut out of padded maps, multiplied and added up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cv.ops import Correlation, correlation
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
    check_second_derivative_is_refused,
)

OP = torch.ops.cv.correlation.default
OP_BACKWARD = torch.ops.cv.correlation_backward.default


def oracle(
    first: Tensor,
    second: Tensor,
    kernel_size: int = 1,
    max_displacement: int = 1,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    dilation_patch: int = 1,
) -> Tensor:
    """Displacement by displacement: the product of the maps, then windows of ones over it."""
    height, width = first.shape[2:]
    reach = max_displacement * dilation_patch
    around = F.pad(second, [reach] * 4)
    ones = first.new_ones(1, 1, kernel_size, kernel_size)
    results = []
    for dy in range(-reach, reach + 1, dilation_patch):
        for dx in range(-reach, reach + 1, dilation_patch):
            moved = around[:, :, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            product = (first * moved).sum(1, keepdim=True)
            results.append(F.conv2d(product, ones, stride=stride, padding=padding, dilation=dilation)[:, 0])
    patch = 2 * max_displacement + 1
    return torch.stack(results, 1).unflatten(1, (patch, patch))


def random_case(*shape: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(sum(shape))
    maps = [torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2)]
    return maps[0], maps[1]


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        ("shape", "options"),
        [
            ((2, 5, 6, 7), (1, 4)),  # PWC-Net
            ((1, 6, 9, 20), (1, 3, 1, 0, 1, 2)),  # FlowNetC
            ((2, 3, 9, 8), (3, 2, 2, 1, 2, 1)),
            ((1, 4, 5, 37), (2, 1, 3, 4, 1, 3)),
            ((1, 2, 3, 3), (1, 6, 1, 2)),  # displacements beyond the map
        ],
        ids=str,
    )
    def test_matches_the_definition(
        self, device: str, dtype: torch.dtype, shape: tuple[int, ...], options: tuple[int, ...]
    ) -> None:
        assert_matches_oracle(
            lambda a, b: correlation(a, b, *options),
            lambda a, b: oracle(a, b, *options),
            random_case(*shape),
            dtype=dtype,
            device=device,
            backward=True,
            scale=10.0,  # sums of up to some hundred terms
        )

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_any_parameters(self, data: st.DataObject) -> None:
        shape = [data.draw(st.integers(low, high)) for low, high in ((0, 2), (0, 6), (1, 8), (1, 20))]
        bounds = {"kernel_size": 3, "max_displacement": 3, "stride": 3, "padding": 3, "dilation": 3}
        options = {
            name: data.draw(st.integers(name not in ("max_displacement", "padding"), high))
            for name, high in {**bounds, "dilation_patch": 3}.items()
        }
        first, second = random_case(*shape)
        window = (options["kernel_size"] - 1) * options["dilation"] + 1
        if min(shape[2:]) + 2 * options["padding"] < window:
            with pytest.raises(ValueError, match="kernel_size must not be larger than the padded maps"):
                correlation(first, second, **options)
            return
        actual, expected = correlation(first, second, **options), oracle(first, second, **options)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
        grad = torch.rand_like(expected) - 0.5
        ours, theirs = (torch.autograd.grad(y, (first, second), grad) for y in (actual, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

    def test_finds_a_shift(self) -> None:
        """The best match of a map and the same map moved by (1, -2) is at that displacement."""
        first = random_case(1, 16, 12, 12)[0]
        best = correlation(first, first.roll((1, -2), (2, 3)), 1, 2)[0, :, :, 4:8, 4:8]
        assert best.flatten(0, 1).argmax(0).unique().tolist() == [3 * 5 + 0]

    @pytest.mark.parametrize("device", DEVICES)
    def test_infinity_does_not_meet_the_zeros_outside(self, device: str) -> None:
        first = torch.full((1, 1, 3, 3), math.inf, device=device, requires_grad=True)
        second = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
        y = correlation(first, second, 1, 1)
        assert y[0, 1, 1].eq(math.inf).all()
        assert y[0, 0, 0].isinf().sum() == 4
        assert not y.isnan().any()
        (grad,) = torch.autograd.grad(y, first, torch.full_like(y, math.inf))
        assert grad.eq(math.inf).all()

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
    def test_empty(self, device: str, shape: tuple[int, ...]) -> None:
        first, second = (torch.zeros(shape, device=device, requires_grad=True) for _ in range(2))
        y = correlation(first, second, 1, 2)
        assert y.shape == (shape[0], 5, 5, 4, 5)
        assert not y.any()
        assert [g.shape for g in torch.autograd.grad(y.sum(), (first, second))] == [shape, shape]


class TestLayer:
    def test_is_the_function(self) -> None:
        first, second = random_case(2, 3, 6, 7)
        layer = Correlation(3, 2, 2, 1, 1, 2)
        assert torch.equal(layer(first, second), correlation(first, second, 3, 2, 2, 1, 1, 2))
        assert repr(layer) == (
            "Correlation(kernel_size=3, max_displacement=2, stride=2, padding=1, "
            "dilation=1, dilation_patch=2)"
        )
        assert Correlation()(first, second).shape == (2, 3, 3, 6, 7)


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        case = random_case(2, 2, 4, 5)
        dynamic = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
        check_operator(
            lambda a, b: correlation(a, b, 2, 1, 2, 1),
            case,
            op=OP,
            op_args=(*case, 2, 1, 2, 1, 1, 1),
            device=device,
            dynamic_shapes=[dynamic, dynamic],
        )

    def test_backward_operator(self) -> None:
        first, second = (t.detach() for t in random_case(1, 2, 4, 5))
        grad = torch.rand(1, 3, 3, 4, 5, dtype=torch.float64)
        torch.library.opcheck(OP_BACKWARD, (grad, first, second, 1, 1, 1, 0, 1, 1))

    def test_second_derivative_is_refused(self) -> None:
        check_second_derivative_is_refused(correlation, random_case(1, 2, 3, 4))

    def test_backends_agree(self) -> None:
        case = random_case(2, 9, 11, 37)
        for options in ((1, 4), (3, 2, 2, 1, 1, 2)):
            check_every_cpu_isa(lambda a, b, o=options: correlation(a, b, *o), case)
            if torch.cuda.is_available():
                check_cpu_equals_cuda(lambda a, b, o=options: correlation(a, b, *o), case, scale=10.0)

    def test_stream(self) -> None:
        check_cuda_stream(lambda a, b: correlation(a, b, 1, 4), random_case(2, 16, 32, 32))


class TestErrors:
    def test_messages(self) -> None:
        first, second = random_case(2, 3, 4, 5)
        with pytest.raises(TypeError, match="input2 must be a tensor, got int"):
            correlation(first, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"input1 must have a floating dtype, got torch\.int64"):
            correlation(first.long(), second)
        with pytest.raises(ValueError, match=r"input1 must have shape \(N, C, H, W\), got \(3, 4, 5\)"):
            correlation(first[0], second)
        with pytest.raises(ValueError, match=r"input2 must have shape \(2, 3, 4, 5\), got \(1, 3, 4, 5\)"):
            correlation(first, second[:1])
        with pytest.raises(TypeError, match=r"input2 must be of torch\.float64 as .*, got torch\.float32"):
            correlation(first, second.float())
        with pytest.raises(ValueError, match="input2 must be on cpu as input1 is, got meta"):
            correlation(first, second.to("meta"))
        with pytest.raises(ValueError, match="max_displacement must be at least 0, got -1"):
            Correlation(max_displacement=-1)
        with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
            correlation(first, second, stride=0)
        with pytest.raises(TypeError, match=r"kernel_size must be an integer, got 1\.5"):
            correlation(first, second, 1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"it covers 5 pixels, the maps have .* and a padding of 0"):
            correlation(first, second, 3, dilation=2)
