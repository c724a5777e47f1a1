"""tin_shift against loops over the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import TINShift, tin_shift
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP = torch.ops.cv.tin_shift.default


def oracle(x: Tensor, shift: Tensor) -> Tensor:
    """Sample by sample, frame by frame, group by group; plain autograd gives the gradient."""
    samples = []
    for sample, shifts in zip(x, shift.tolist(), strict=True):
        frames = []
        for t in range(len(sample)):
            parts = []
            for part, s in zip(sample.chunk(len(shifts), 1), shifts, strict=True):
                parts.append(part[t - s] if 0 <= t - s < len(sample) else part[0] * 0)
            frames.append(torch.cat(parts))
        samples.append(torch.stack(frames))
    return torch.stack(samples)


def random_case(
    n: int = 2, times: int = 5, channels: int = 6, pixels: int = 3, groups: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, times, channels, pixels, generator=g, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(-times - 1, times + 2, (n, groups), generator=g)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(("channels", "pixels", "groups"), [(6, 3, 3), (8, 16, 2), (4, 1, 4), (5, 7, 1)])
    def test_against_oracle(
        self, device: str, dtype: torch.dtype, channels: int, pixels: int, groups: int
    ) -> None:
        assert_matches_oracle(
            tin_shift,
            oracle,
            random_case(3, 5, channels, pixels, groups),
            dtype=dtype,
            device=device,
            backward=True,
        )

    @settings(max_examples=40, deadline=None)
    @given(*[st.integers(1, 5)] * 5, st.integers(0, 99))
    def test_any_shape(self, n: int, times: int, size: int, pixels: int, groups: int, seed: int) -> None:
        x, shift = random_case(n, times, size * groups, pixels, groups, seed)
        ours, theirs = tin_shift(x, shift), oracle(x, shift)
        assert torch.equal(ours, theirs)
        grad = torch.randn_like(ours)
        assert torch.equal(
            torch.autograd.grad(ours, x, grad)[0],
            torch.autograd.grad(theirs, x, grad)[0],
        )

    def test_a_positive_shift_moves_to_later_times_and_its_gradient_back(self) -> None:
        x = torch.tensor([1.0, 2, 3, 4]).reshape(1, 4, 1, 1).requires_grad_()
        out = tin_shift(x, torch.tensor([[1]]))
        assert out.flatten().tolist() == [0, 1, 2, 3]
        (grad,) = torch.autograd.grad(out, x, torch.tensor([10.0, 20, 30, 40]).reshape(1, 4, 1, 1))
        assert grad.flatten().tolist() == [20, 30, 40, 0]
        assert tin_shift(x, torch.tensor([[-2]])).flatten().tolist() == [3, 4, 0, 0]

    @pytest.mark.parametrize("device", DEVICES)
    def test_shifts_out_of_range_give_zero(self, device: str) -> None:
        x = torch.ones(1, 3, 6, 2, device=device)
        far = torch.tensor([[3, -3, 100, -100, 2**63 - 1, -(2**63)]], device=device)
        assert (tin_shift(x, far) == 0).all()

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 4, 2, 3), (2, 0, 2, 3), (2, 4, 0, 3), (2, 4, 2, 0)])
    def test_empty(self, device: str, shape: tuple[int, ...]) -> None:
        x = torch.zeros(shape, device=device, requires_grad=True)
        out = tin_shift(x, torch.ones(shape[0], 2, dtype=torch.int64, device=device))
        assert out.shape == shape
        assert torch.autograd.grad(out.sum(), x)[0].shape == shape

    def test_integers_of_any_width(self) -> None:
        x, shift = random_case()
        assert torch.equal(tin_shift(x, shift.int()), tin_shift(x, shift))
        assert torch.equal(TINShift()(x, shift.to(torch.int8)), tin_shift(x, shift))


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        x, shift = random_case()
        check_operator(
            tin_shift,
            (x, shift),
            op=OP,
            op_args=(x, shift, True),
            device=device,
            dynamic_shapes=[{1: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}, {}],
        )

    def test_second_derivative(self) -> None:
        x, shift = random_case()
        assert torch.autograd.gradgradcheck(lambda x: tin_shift(x, shift) ** 2, (x,))

    def test_cuda(self) -> None:
        for case in (random_case(3, 8, 12, 49, 4), random_case(3, 8, 16, 64, 4)):
            check_cpu_equals_cuda(tin_shift, case)
            check_cuda_stream(tin_shift, case)


class TestErrors:
    def test_messages(self) -> None:
        x, shift = random_case()
        with pytest.raises(ValueError, match=r"input must have shape .*, got \(5, 6, 3\)"):
            tin_shift(x[0], shift)
        with pytest.raises(ValueError, match=r"shift must have shape \(2, groups\), got \(1, 3\)"):
            tin_shift(x, shift[:1])
        with pytest.raises(ValueError, match=r"shift must have shape \(2, groups\), got \(2,\)"):
            tin_shift(x, shift[:, 0])
        with pytest.raises(
            ValueError, match="must divide the channels of input, got 4 groups and 6 channels"
        ):
            tin_shift(x, torch.zeros(2, 4, dtype=torch.int64))
        with pytest.raises(ValueError, match="must divide the channels of input, got 0 groups"):
            tin_shift(x, shift[:, :0])
        with pytest.raises(TypeError, match=r"shift must hold integers, got torch\.float32"):
            tin_shift(x, shift.float())
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int64"):
            tin_shift(x.long(), shift)
        with pytest.raises(ValueError, match="shift must be on cpu as input is, got meta"):
            tin_shift(x, shift.to("meta"))
