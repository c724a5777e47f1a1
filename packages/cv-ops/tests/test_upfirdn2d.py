"""upfirdn2d against its definition: put zeros in, pad or crop, convolve, drop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import upfirdn2d
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_every_cpu_isa,
    check_operator,
)

OP = torch.ops.cv.upfirdn2d.default
BINOMIAL = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8


def oracle(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Tensor:
    """Step by step; pairs are (x, y)."""
    n, c, h, w = x.shape
    sparse = x.new_zeros(n, c, h * up[1], w * up[0])
    sparse[:, :, :: up[1], :: up[0]] = x
    x0, x1, y0, y1 = pad
    big = x.new_zeros(n, c, h * up[1] + max(y0, 0) + max(y1, 0), w * up[0] + max(x0, 0) + max(x1, 0))
    big[:, :, max(y0, 0) : max(y0, 0) + h * up[1], max(x0, 0) : max(x0, 0) + w * up[0]] = sparse
    bottom, right = big.shape[2] + min(y1, 0), big.shape[3] + min(x1, 0)
    padded = big[:, :, max(-y0, 0) : bottom, max(-x0, 0) : right]
    rows = []
    for top in range(0, padded.shape[2] - kernel.shape[0] + 1, down[1]):
        row = []
        for left in range(0, padded.shape[3] - kernel.shape[1] + 1, down[0]):
            window = padded[:, :, top : top + kernel.shape[0], left : left + kernel.shape[1]]
            row.append((window * kernel.flip(0, 1)).sum((2, 3)))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, 2)


def random_case(
    size: tuple[int, int] = (7, 9), taps: tuple[int, int] = (4, 4), *, separable: bool = False
) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(sum(size) + 10 * sum(taps))
    x = torch.randn(2, 3, *size, generator=g, dtype=torch.float64)
    if separable:
        parts = [torch.rand(t, generator=g, dtype=torch.float64) for t in taps]
        kernel = torch.outer(*parts)
    else:
        kernel = torch.rand(taps, generator=g, dtype=torch.float64) - 0.3
    return x.requires_grad_(), (kernel / kernel.abs().sum()).requires_grad_()


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("separable", [False, True])
    @pytest.mark.parametrize(
        ("up", "down", "pad", "taps"),
        [
            ((1, 1), (1, 1), (2, 1, 2, 1), (4, 4)),  # the blur of StyleGAN2
            ((2, 2), (1, 1), (2, 1, 2, 1), (4, 4)),  # twice as large
            ((2, 2), (1, 1), (1, 2, 3, -1), (4, 4)),
            ((1, 1), (2, 2), (1, 1, 1, 1), (4, 4)),  # half as large
            ((1, 1), (2, 2), (-1, 2, 3, -2), (4, 4)),
            ((3, 2), (2, 3), (4, -3, 0, 5), (5, 3)),
            ((4, 2), (2, 4), (-2, -3, 7, 1), (1, 6)),
        ],
        ids=str,
    )
    def test_matches_the_definition(
        self, device: str, dtype: torch.dtype, separable: bool, up: tuple[int, int], down: tuple[int, int],
        pad: tuple[int, int, int, int], taps: tuple[int, int],
    ) -> None:  # fmt: skip
        assert_matches_oracle(
            lambda x, k: upfirdn2d(x, k, up, down, pad),
            lambda x, k: oracle(x, k, up, down, pad),
            random_case(taps=taps, separable=separable),
            dtype=dtype,
            device=device,
            backward=True,
            scale=50.0,  # the kernel's gradient is a sum over all results
        )

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_any_parameters(self, data: st.DataObject) -> None:
        number = st.integers(1, 5)
        pair = st.tuples(number, number)
        up, down, taps = data.draw(pair), data.draw(pair), data.draw(pair)
        size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
        pad = data.draw(st.tuples(*[st.integers(-6, 9)] * 4))
        x, kernel = random_case(size, taps, separable=data.draw(st.booleans()))
        height, width = size[0] * up[1] + pad[2] + pad[3], size[1] * up[0] + pad[0] + pad[1]
        if height < taps[0] or width < taps[1]:
            with pytest.raises(ValueError, match="kernel must not be larger than the upsampled and padded"):
                upfirdn2d(x, kernel, up, down, pad)
            return
        actual, expected = upfirdn2d(x, kernel, up, down, pad), oracle(x, kernel, up, down, pad)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
        out_grad = torch.rand_like(expected) - 0.5
        ours, theirs = (torch.autograd.grad(y, (x, kernel), out_grad) for y in (actual, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("size", [(36, 70), (3, 140), (70, 1)])
    @pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
    def test_several_tiles(self, device: str, size: tuple[int, int], up: int, down: int) -> None:
        x, kernel = (t.detach().to(device) for t in random_case(size))
        for pad in ((2, 1, 2, 1), (1, 3, 3, 2), (3, 2, -1, 4)):
            actual = upfirdn2d(x, kernel, up, down, pad)
            expected = oracle(x.cpu(), kernel.cpu(), (up, up), (down, down), pad)
            torch.testing.assert_close(actual.cpu(), expected, rtol=1e-10, atol=1e-12)

    def test_two_pads_are_before_and_after_of_both_axes(self) -> None:
        x, kernel = random_case()
        assert torch.equal(upfirdn2d(x, kernel, 2, 1, (2, 1)), upfirdn2d(x, kernel, 2, 1, (2, 1, 2, 1)))
        assert upfirdn2d(x, kernel, 2, 1, (2, 1)).shape == (2, 3, 14, 18)
        assert torch.equal(upfirdn2d(x, kernel, pad=[3, 4]), upfirdn2d(x, kernel, pad=[3, 4, 3, 4]))

    def test_factors_are_x_then_y(self) -> None:
        x, kernel = random_case()
        assert upfirdn2d(x, kernel, up=(3, 1)).shape == (2, 3, 7 - 3, 27 - 3)
        assert upfirdn2d(x, kernel, down=(3, 1)).shape == (2, 3, 7 - 3, 2)

    def test_it_is_a_convolution(self) -> None:
        x = torch.zeros(1, 1, 5, 5)
        x[0, 0, 2, 2] = 1
        kernel = torch.arange(9.0).reshape(3, 3)
        torch.testing.assert_close(upfirdn2d(x, kernel, pad=(0, 0))[0, 0], kernel)

    def test_upsampling_keeps_a_constant(self) -> None:
        kernel = torch.outer(BINOMIAL, BINOMIAL) * 4
        y = upfirdn2d(torch.ones(1, 2, 6, 5, dtype=torch.float64), kernel, up=2, pad=(2, 1))
        torch.testing.assert_close(y[:, :, 2:-2, 2:-2], torch.ones(1, 2, 8, 6, dtype=torch.float64))

    @pytest.mark.parametrize("device", DEVICES)
    def test_half_input_with_float32_kernel(self, device: str) -> None:
        x, kernel = (t.detach().to(device) for t in random_case())
        y = upfirdn2d(x.half(), kernel.float(), up=2, pad=(2, 1))
        assert y.dtype == torch.float16
        expected = oracle(x.half().double().cpu(), kernel.float().double().cpu(), (2, 2), pad=(2, 1, 2, 1))
        torch.testing.assert_close(y.double().cpu(), expected, rtol=1e-3, atol=1e-6)
        assert upfirdn2d(x.float(), kernel.double()).dtype == torch.float32

    @pytest.mark.parametrize("device", DEVICES)
    def test_nan_and_infinity_stay_where_the_kernel_reaches(self, device: str) -> None:
        x = torch.ones(1, 1, 8, 8, device=device)
        x[0, 0, 3, 3], x[0, 0, 0, 7] = math.nan, math.inf
        for kernel in (torch.ones(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])):
            y = upfirdn2d(x, kernel.to(device))
            assert y.isnan().nonzero()[:, 2:].tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
            assert y[0, 0, 0, 6] == math.inf
            assert y.isfinite().sum() == 49 - 5

    @pytest.mark.parametrize("special", [0.0, math.nan, math.inf])
    def test_special_kernels(self, special: float) -> None:
        x = torch.ones(1, 1, 3, 3)
        y = upfirdn2d(x, torch.full((2, 2), special))
        torch.testing.assert_close(y, torch.full((1, 1, 2, 2), special * 4), equal_nan=True)

    @pytest.mark.parametrize("device", DEVICES)
    def test_empty(self, device: str) -> None:
        kernel = torch.ones(2, 2, device=device, requires_grad=True)
        for shape in ((0, 3, 4, 4), (2, 0, 4, 4)):
            x = torch.zeros(shape, device=device, requires_grad=True)
            y = upfirdn2d(x, kernel, 2)
            assert y.shape == (*shape[:2], 7, 7)
            grads = torch.autograd.grad(y.sum(), (x, kernel))
            assert grads[0].shape == shape
            assert not grads[1].any()
        x = torch.zeros(1, 1, 0, 4, device=device, requires_grad=True)
        y = upfirdn2d(x, kernel, 2, 1, (0, 0, 2, 2))
        assert y.shape == (1, 1, 3, 7)
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape

    def test_crop_to_nothing_but_zeros(self) -> None:
        """A crop may leave nothing but the zeros that upsampling put in, or padding."""
        x = torch.ones(1, 1, 1, 1)
        assert not upfirdn2d(x, torch.ones(1, 1), up=4, pad=(-1, 0)).any()
        assert not upfirdn2d(x, torch.ones(1, 1), pad=(-5, 8)).any()


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        x, kernel = random_case((4, 5), (3, 2))
        check_operator(
            lambda x, k: upfirdn2d(x, k, (2, 1), (1, 3), (1, 2, 3, -1)),
            (x, kernel),
            op=OP,
            op_args=(x, kernel, 2, 1, 1, 3, 1, 2, 3, -1, True),
            device=device,
            dynamic_shapes=[dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC), None],
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("separable", [False, True])
    def test_second_derivatives(self, device: str, separable: bool) -> None:
        case = random_case((3, 4), (3, 2), separable=separable)
        x, kernel = (t.detach().to(device).requires_grad_() for t in case)
        assert torch.autograd.gradgradcheck(
            lambda x, k: upfirdn2d(x, k, (2, 1), (1, 2), (1, 2, 1, 1)).square(), (x, kernel)
        )

    def test_backends_agree(self) -> None:
        for separable in (False, True):
            for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):

                def fn(x: Tensor, k: Tensor, up: int = up, down: int = down) -> Tensor:
                    return upfirdn2d(x, k, up, down, (2, 1))

                case = random_case((40, 70), separable=separable)
                case = (case[0], case[1].detach())
                check_every_cpu_isa(fn, case)
                if torch.cuda.is_available():
                    check_cpu_equals_cuda(fn, case)

    def test_stream(self) -> None:
        check_cuda_stream(lambda x, k: upfirdn2d(x, k, 2, 1, (2, 1)), random_case((40, 70)))

    def test_the_number_of_threads_does_not_matter(self) -> None:
        x, kernel = (t.detach().float() for t in random_case((200, 300)))
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(upfirdn2d(x, kernel, 2, 1, (2, 1)))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


class TestErrors:
    def test_messages(self) -> None:
        x, kernel = random_case()
        with pytest.raises(TypeError, match="input must be a tensor, got list"):
            upfirdn2d([1.0], kernel)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.uint8"):
            upfirdn2d(x.to(torch.uint8), kernel)
        with pytest.raises(ValueError, match=r"input must have shape \(N, C, H, W\), got \(3, 7, 9\)"):
            upfirdn2d(x[0], kernel)
        with pytest.raises(
            ValueError, match=r"kernel must have shape \(KH, KW\) and not be empty, got \(4,\)"
        ):
            upfirdn2d(x, kernel[0])
        with pytest.raises(ValueError, match=r"not be empty, got \(0, 4\)"):
            upfirdn2d(x, kernel[:0])
        with pytest.raises(ValueError, match="kernel must be on cpu as input is, got meta"):
            upfirdn2d(x, kernel.to("meta"))
        with pytest.raises(ValueError, match="up must be positive, got 0"):
            upfirdn2d(x, kernel, 0)
        with pytest.raises(ValueError, match=r"down must be one number or \(x, y\), got \(1, 2, 3\)"):
            upfirdn2d(x, kernel, 1, (1, 2, 3))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"up must be of integers, got 1\.5"):
            upfirdn2d(x, kernel, 1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"pad must be \(before, after\) or .*, got \(1, 2, 3\)"):
            upfirdn2d(x, kernel, pad=(1, 2, 3))
        with pytest.raises(ValueError, match=r"kernel must not be larger .*, got \(4, 4\) and \(3, 9\)"):
            upfirdn2d(x, kernel, pad=(0, 0, -2, -2))


def test_one_output_does_not_ask_how_far_the_next_would_be():
    x = torch.rand(2, 3, 10, 13, dtype=torch.float64, requires_grad=True)
    kernel = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    gradients = []
    for down in (100, 2**31):  # the latter took a quarter of a minute
        y = upfirdn2d(x, kernel, 2, down, (2, 3, 3, 2))
        assert y.shape == (2, 3, 1, 1)
        gradients.append(torch.autograd.grad(y.square().sum(), (x, kernel)))
    for near, far in zip(*gradients, strict=True):
        assert torch.equal(near, far)
    assert torch.autograd.gradcheck(lambda x, k: upfirdn2d(x, k, 2, 100, (2, 3, 3, 2)), (x, kernel))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2), ((1, 2), (3, 1))])
@pytest.mark.parametrize("separable", [True, False])
def test_narrow_maps_take_planes_side_by_side(up, down, separable, dtype):
    """Many narrow planes at once, which have a way of their own, against one plane after the other."""
    for planes, height, width in ((8, 5, 1), (37, 11, 4), (16, 1, 24)):
        x = torch.randn(1, planes, height, width).to(dtype)
        kernel = torch.rand(4, 3) if not separable else torch.outer(torch.rand(4), torch.rand(3))
        for pad in ((2, 3, 2, 2), (4, -1, 3, 1)):
            together = upfirdn2d(x, kernel.to(dtype), up, down, pad)
            alone = torch.cat([upfirdn2d(p, kernel.to(dtype), up, down, pad) for p in x.split(1, 1)], 1)
            torch.testing.assert_close(together, alone)
