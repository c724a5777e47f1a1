"""chamfer_distance against all pairwise distances, whose gradient is autograd's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cv.ops import chamfer_distance
from cv_testing.emulator import emulated
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

OP, OP_BACKWARD = torch.ops.cv.chamfer_distance.default, torch.ops.cv.chamfer_distance_backward.default


def oracle(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    squared = (a[:, :, None] - b[:, None]).square().sum(3)
    return squared.amin(2), squared.amin(1)


def distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return chamfer_distance(a, b)[:2]


def sets(batch: int, n: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, k, 2, generator=g, dtype=torch.float64) for k in (n, m))
    return a.requires_grad_(), b.requires_grad_()


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(("n", "m"), [(40, 40), (1, 7), (33, 5)])
    def test_random(self, device: str, dtype: torch.dtype, n: int, m: int) -> None:
        """Half types: the same points may lie at equal distances; one of them gets the gradient."""
        backward = dtype in (torch.float64, torch.float32)
        args = sets(3, n, m)
        assert_matches_oracle(distances, oracle, args, dtype=dtype, device=device, backward=backward)

    def test_gradients_in_half_types(self) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            a, b = (t.detach().to(dtype).requires_grad_() for t in sets(2, 9, 11))
            wide = [t.detach().double().requires_grad_() for t in (a, b)]
            for args in ((a, b), wide):
                sum(d.double().sum() for d in distances(*args)).backward()
            for narrow, exact in zip((a, b), wide, strict=True):
                torch.testing.assert_close(narrow.grad, exact.grad.to(dtype), atol=2e-2, rtol=2e-2)

    @pytest.mark.parametrize("device", DEVICES)
    def test_indices_name_the_first_of_the_nearest(self, device: str) -> None:
        g = torch.Generator().manual_seed(1)
        a, b = (torch.randint(0, 5, (4, k, 2), generator=g).float() for k in (70, 50))  # ties all the time
        d1, d2, i1, i2 = (t.cpu() for t in chamfer_distance(a.to(device), b.to(device)))
        squared = (a[:, :, None] - b[:, None]).square().sum(3)
        assert torch.equal(d1, squared.amin(2))
        assert torch.equal(d2, squared.amin(1))
        assert i1.dtype == i2.dtype == torch.int32
        for nearest, indices in ((squared == d1[..., None], i1), (squared.mT == d2[..., None], i2)):
            assert torch.equal(nearest.int().argmax(2), indices.long())

    def test_one_output_alone_has_a_gradient(self) -> None:
        for k in range(2):
            ours, theirs = sets(2, 6, 8), sets(2, 6, 8)
            chamfer_distance(*ours)[k].sum().backward()
            oracle(*theirs)[k].sum().backward()
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a.grad, b.grad, atol=1e-14, rtol=1e-12)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("batch", "n", "m"), [(0, 3, 4), (0, 0, 3), (2, 0, 0), (1, 1, 1), (1, 300, 65)])
    def test_sizes(self, device: str, batch: int, n: int, m: int) -> None:
        a, b = (t.detach().to(device).requires_grad_() for t in sets(batch, n, m))
        d1, d2, i1, i2 = chamfer_distance(a, b)
        assert d1.shape == i1.shape == (batch, n)
        assert d2.shape == i2.shape == (batch, m)
        (d1.sum() + d2.sum()).backward()
        assert a.grad.shape == a.shape
        assert b.grad.shape == b.shape

    @pytest.mark.parametrize("device", DEVICES)
    def test_nan_and_infinity(self, device: str) -> None:
        a = torch.tensor([[[math.nan, 0], [0, 0], [math.inf, 0]]], device=device)
        b = torch.tensor([[[0.0, math.nan], [3, 4], [1, 0]]], device=device)
        d1, d2, i1, i2 = chamfer_distance(a, b)
        torch.testing.assert_close(d1.cpu(), torch.tensor([[math.nan, 1, math.inf]]), equal_nan=True)
        torch.testing.assert_close(d2.cpu(), torch.tensor([[math.nan, 25, 1]]), equal_nan=True)
        assert i1.tolist() == [[0, 2, 1]]
        assert i2.tolist() == [[0, 1, 1]]


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        check_operator(chamfer_distance, sets(2, 4, 5), op=OP, device=device)

    def test_no_second_derivative(self) -> None:
        check_second_derivative_is_refused(distances, sets(1, 3, 4))

    def test_every_instruction_set(self) -> None:
        check_every_cpu_isa(distances, sets(3, 70, 90))
        check_every_cpu_isa(distances, sets(3, 70, 90), dtype=torch.float64)

    def test_autocast_computes_in_float32(self) -> None:
        a, b = (t.detach().half() for t in sets(1, 3, 4))
        with torch.autocast("cpu", torch.bfloat16):
            assert chamfer_distance(a, b)[0].dtype == torch.float32

    def test_cpu_equals_cuda(self) -> None:
        check_cpu_equals_cuda(chamfer_distance, sets(4, 90, 70))
        check_cuda_stream(distances, sets(4, 90, 70))


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        a, b = sets(2, 3, 4)
        with pytest.raises(TypeError, match="xyz2 must be a tensor, got list"):
            chamfer_distance(a, [1.0])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"xyz1 must have a floating dtype, got torch\.int32"):
            chamfer_distance(a.int(), b)
        with pytest.raises(TypeError, match=r"the same dtype, got torch\.float64 and torch\.float32"):
            chamfer_distance(a, b.float())
        with pytest.raises(ValueError, match=r"xyz1 must have shape \(B, N, 2\), got \(3, 2\)"):
            chamfer_distance(a[0], b)
        with pytest.raises(ValueError, match=r"xyz2 must have shape \(B, N, 2\), got \(2, 4, 3\)"):
            chamfer_distance(a, torch.zeros(2, 4, 3))
        with pytest.raises(ValueError, match="same batch size, got 2 and 1"):
            chamfer_distance(a, b[:1])
        with pytest.raises(
            ValueError, match=r"no nearest point in an empty set, got \(2, 3, 2\) and \(2, 0, 2\)"
        ):
            chamfer_distance(a, b[:, :0])
        with pytest.raises(ValueError, match="xyz2 must be on cpu as xyz1 is, got meta"):
            chamfer_distance(a, b.to("meta"))

    def test_the_operators_below_check_again(self) -> None:
        a, b = (t.detach() for t in sets(2, 3, 4))
        for bad in (
            (a[0], b),
            (a, b[..., :1]),
            (a, b[:1]),
            (a, b[:, :0]),
            (a, b.float()),
            (a.int(), b.int()),
        ):
            with pytest.raises(RuntimeError, match="chamfer_distance"):
                OP(*bad)
        d1, d2, i1, i2 = chamfer_distance(a, b)
        for k, bad in enumerate((d1[:, 1:], d2.float(), a[:1], b[0], i1.long(), i2[:1])):
            args = [d1, d2, a, b, i1, i2]
            args[k] = bad
            with pytest.raises(RuntimeError, match="chamfer_distance"):
                OP_BACKWARD(*args)
        for value in (-1, 4, 2**31 - 1):
            broken = i1.clone()
            broken[1, 2] = value
            if emulated():  # CUDA leaves such a distance out
                OP_BACKWARD(d1, d2, a, b, broken, i2)
                continue
            with pytest.raises(RuntimeError, match="indices must name points of the other set"):
                OP_BACKWARD(d1, d2, a, b, broken, i2)
