"""corner_pool against a maximum over slices, and torch.cummax."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import CornerPool, corner_pool
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

OP = torch.ops.cv.corner_pool.default
OP_BACKWARD = torch.ops.cv.corner_pool_backward.default
MODES = ["bottom", "left", "right", "top"]


def oracle(x: Tensor, mode: str) -> Tensor:
    """Each position is the maximum of the part of its line that the definition names."""
    dim = 2 if mode in ("bottom", "top") else 3
    size = x.shape[dim]
    parts = [
        x.narrow(dim, 0, i + 1) if mode in ("bottom", "right") else x.narrow(dim, i, size - i)
        for i in range(size)
    ]
    return torch.cat([part.max(dim, keepdim=True).values for part in parts], dim)


def cummax(x: Tensor, mode: str) -> Tensor:
    """The composed form, whose rules for ties and NaN are ours."""
    dim = 2 if mode in ("bottom", "top") else 3
    if mode in ("bottom", "right"):
        return x.cummax(dim).values
    return x.flip(dim).cummax(dim).values.flip(dim)


def random_case(*shape: int, seed: int = 0) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(),)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 2, 37), (1, 1, 70, 1), (1, 2, 1, 70)])
    def test_against_oracle(self, device: str, dtype: torch.dtype, mode: str, shape: tuple[int, ...]) -> None:
        # Distinct in every dtype, so that the gradient has one place to go to.
        count = math.prod(shape)
        x = (
            torch.randperm(count, generator=torch.Generator().manual_seed(1)).double().reshape(shape)
            - count / 2
        )
        assert_matches_oracle(
            lambda x: corner_pool(x, mode),
            lambda x: oracle(x, mode),
            (x.requires_grad_(),),
            dtype=dtype,
            device=device,
            backward=True,
            scale=80.0,  # a gradient is the sum of up to 70
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("width", [1, 5, 66])
    def test_ties_and_nan_as_cummax(self, device: str, mode: str, width: int) -> None:
        generator = torch.Generator().manual_seed(3)
        x = torch.randint(-2, 3, (2, 9, 40, width), generator=generator).float()
        x[torch.rand(x.shape, generator=generator) < 0.01] = math.nan
        x[torch.rand(x.shape, generator=generator) < 0.05] = -math.inf
        x[torch.rand(x.shape, generator=generator) < 0.01] = math.inf
        grad = torch.randint(-9, 10, x.shape, generator=generator).float()  # sums are exact
        x, grad = x.to(device).requires_grad_(), grad.to(device)
        ours, theirs = corner_pool(x, mode), cummax(x, mode)
        assert torch.equal(ours.nan_to_num(9e9), theirs.nan_to_num(9e9))
        assert torch.equal(torch.autograd.grad(ours, x, grad)[0], torch.autograd.grad(theirs, x, grad)[0])

    def test_by_hand(self) -> None:
        x = torch.tensor([[2.0, 1, 3, 0, 4]])[None, None]
        assert corner_pool(x, "right").tolist() == [[[[2, 2, 3, 3, 4]]]]
        assert corner_pool(x, "left").tolist() == [[[[4, 4, 4, 4, 4]]]]
        x = x.transpose(2, 3)
        assert corner_pool(x, "bottom").flatten().tolist() == [2, 2, 3, 3, 4]
        assert corner_pool(x, "top").flatten().tolist() == [4, 4, 4, 4, 4]

    @settings(max_examples=40, deadline=None)
    @given(
        st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(0, 40)] * 2),
        st.sampled_from(MODES),
        st.booleans(),
        st.integers(0, 99),
    )
    def test_any_shape_and_layout(
        self, shape: tuple[int, ...], mode: str, channels_last: bool, seed: int
    ) -> None:
        (x,) = random_case(*shape, seed=seed)
        if channels_last:
            x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        ours = corner_pool(x, mode)
        theirs = cummax(x, mode)
        assert torch.equal(ours, theirs)
        if channels_last and x.numel() > 0:
            assert ours.is_contiguous(memory_format=torch.channels_last)
        grad = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(ours, x, grad)[0], torch.autograd.grad(theirs, x, grad)[0]
        )


class TestLayer:
    def test_is_the_function(self) -> None:
        (x,) = random_case(2, 3, 4, 5)
        for mode in MODES:
            assert torch.equal(CornerPool(mode)(x), corner_pool(x, mode))
        assert repr(CornerPool("top")) == "CornerPool(mode='top')"


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        case = random_case(2, 3, 4, 5)
        check_operator(
            lambda x: corner_pool(corner_pool(x, "left"), "bottom"),
            case,
            op=OP,
            op_args=(*case, 3, True),
            device=device,
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}],
        )

    def test_backward_operator(self) -> None:
        x = random_case(2, 3, 4, 5)[0].detach()
        torch.library.opcheck(OP_BACKWARD, (torch.rand_like(x), x, OP(x, 2, False), 2, False))

    def test_second_derivative_is_refused(self) -> None:
        check_second_derivative_is_refused(lambda x: corner_pool(x, "top"), random_case(1, 1, 4, 5))

    @pytest.mark.parametrize("mode", MODES)
    def test_backends_agree(self, mode: str) -> None:
        check_every_cpu_isa(lambda x: corner_pool(x, mode), random_case(2, 3, 20, 35))

    @pytest.mark.parametrize("mode", MODES)
    def test_cuda(self, mode: str) -> None:
        check_cpu_equals_cuda(lambda x: corner_pool(x, mode), random_case(2, 5, 67, 131))
        check_cuda_stream(lambda x: corner_pool(x, mode), random_case(2, 5, 67, 131))


class TestErrors:
    def test_messages(self) -> None:
        with pytest.raises(AssertionError, match=r"mode must be one of .*, got 'corner'"):
            CornerPool("corner")  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match=r"mode must be one of .*, got 'corner'"):
            corner_pool(torch.zeros(1, 1, 1, 1), "corner")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"input must have shape \(N, C, H, W\), got \(3, 4\)"):
            corner_pool(torch.zeros(3, 4), "top")
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int64"):
            corner_pool(torch.zeros(1, 1, 2, 2, dtype=torch.int64), "top")
