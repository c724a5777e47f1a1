"""active_rotated_filter against a loop over values, and against rotations of an image by quarter turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cv.ops import active_rotated_filter
from cv_testing.emulator import emulated
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_cuda_stream,
    check_operator,
)

OP, OP_BACKWARD = (
    torch.ops.cv.active_rotated_filter.default,
    torch.ops.cv.active_rotated_filter_backward.default,
)
RING = [0, 1, 2, 5, 8, 7, 6, 3]  # the border of a 3 x 3 kernel, clockwise


def orn_indices(orientations: int, rotations: int, size: int = 3) -> Tensor:
    """As ORConv2d has them: the border turns by an eighth for each 45 degrees, orientations move along."""
    places = torch.zeros(orientations, size * size, rotations, dtype=torch.int32)
    for r in range(rotations):
        eighths = 8 * r // rotations
        turned = list(range(size * size))
        if size == 3:
            for k, place in enumerate(RING):
                turned[place] = RING[(k - eighths) % 8]
        for i in range(orientations):
            layer = (i + r * orientations // rotations) % orientations
            places[i, :, r] = torch.tensor(turned) + layer * size * size + 1
    return places.view(orientations, size, size, rotations)


def oracle(x: Tensor, indices: Tensor) -> Tensor:
    outputs, inputs, orientations, height, width = x.shape
    rotations, entries = indices.shape[3], orientations * height * width
    flat, places = x.reshape(outputs, inputs, entries), indices.reshape(entries, rotations)
    out = x.new_zeros(outputs, rotations, inputs, entries)
    for r in range(rotations):
        taken = {int(places[e, r]): e for e in range(entries)}  # the later of two counts
        for place, e in taken.items():
            out[:, r, :, place - 1] = flat[:, :, e]
    return out.reshape(outputs * rotations, inputs * orientations, height, width)


def filters(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        ("orientations", "rotations", "size"), [(1, 8, 3), (8, 8, 3), (4, 4, 3), (8, 4, 1)]
    )
    def test_random(
        self, device: str, dtype: torch.dtype, orientations: int, rotations: int, size: int
    ) -> None:
        x, indices = filters(3, 5, orientations, size, size), orn_indices(orientations, rotations, size)
        assert_matches_oracle(
            active_rotated_filter, oracle, (x, indices), dtype=dtype, device=device, backward=True
        )

    def test_a_quarter_turn_turns_the_kernel(self) -> None:
        x = filters(2, 3, 1, 3, 3).detach()
        out = active_rotated_filter(x, orn_indices(1, 4)).reshape(2, 4, 3, 3, 3)
        for quarter in range(4):
            assert torch.equal(out[:, quarter], x[:, :, 0].rot90(quarter, (2, 3)))

    def test_any_indices(self) -> None:
        """Places that nothing names are 0, of two values the later counts, and so says the gradient."""
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            indices = torch.randint(1, 19, (2, 3, 3, 5), generator=generator, dtype=torch.int32)
            x = filters(2, 4, 2, 3, 3)
            assert_matches_oracle(
                active_rotated_filter, oracle, (x, indices), dtype=torch.float64, backward=True
            )

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64], ids=str)
    def test_indices_of_any_integer_dtype(self, dtype: torch.dtype) -> None:
        x, indices = filters(2, 2, 8, 3, 3), orn_indices(8, 8)
        assert torch.equal(active_rotated_filter(x, indices.to(dtype)), active_rotated_filter(x, indices))

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 3, 8, 3, 3), (3, 0, 8, 3, 3), (1, 1, 8, 3, 3)])
    def test_sizes(self, device: str, shape: tuple[int, ...]) -> None:
        x = torch.ones(shape, device=device, requires_grad=True)
        out = active_rotated_filter(x, orn_indices(8, 8).to(device))
        assert out.shape == (shape[0] * 8, shape[1] * 8, 3, 3)
        out.sum().backward()
        assert torch.equal(x.grad, torch.full_like(x, 8))

    def test_nan_and_infinity_are_moved_alone(self) -> None:
        x = torch.zeros(1, 1, 1, 3, 3)
        x[0, 0, 0, 0, 0], x[0, 0, 0, 1, 1] = torch.inf, torch.nan
        out = active_rotated_filter(x, orn_indices(1, 8))
        assert out.isinf().sum() == 8
        assert out.isnan().sum() == 8
        assert (out == 0).sum() == 56


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        args: tuple[Any, ...] = (filters(2, 3, 4, 3, 3), orn_indices(4, 4))
        check_operator(active_rotated_filter, args, op=OP, device=device)

    @pytest.mark.parametrize("device", DEVICES)
    def test_derivatives_of_every_order(self, device: str) -> None:
        x, indices = filters(1, 2, 2, 1, 2), torch.tensor([1, 2, 2, 4, 3, 3, 4, 1]).view(2, 1, 2, 2)

        def cubed(x: Tensor) -> Tensor:
            return active_rotated_filter(x, indices.to(device)) ** 3

        leaf = x.detach().to(device).requires_grad_()
        assert torch.autograd.gradgradcheck(cubed, (leaf,))

    def test_autocast_leaves_the_dtype(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert (
                active_rotated_filter(filters(1, 1, 1, 3, 3).float(), orn_indices(1, 8)).dtype
                == torch.float32
            )

    def test_cpu_equals_cuda(self) -> None:
        args = (filters(8, 4, 8, 3, 3), orn_indices(8, 8))
        check_cpu_equals_cuda(active_rotated_filter, args)
        check_cuda_stream(active_rotated_filter, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        x, indices = filters(2, 3, 8, 3, 3), orn_indices(8, 8)
        with pytest.raises(TypeError, match="input must be a tensor, got list"):
            active_rotated_filter([1.0], indices)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int32"):
            active_rotated_filter(indices, indices)
        with pytest.raises(TypeError, match=r"indices must have an integer dtype, got torch\.float32"):
            active_rotated_filter(x, indices.float())
        with pytest.raises(
            ValueError, match=r"input must have shape \(O, I, orientations, H, W\), got \(2, 3\)"
        ):
            active_rotated_filter(x[..., 0, 0, 0], indices)
        with pytest.raises(
            ValueError, match=r"indices must have shape \(8, 3, 3, rotations\), got \(4, 3, 3, 4\)"
        ):
            active_rotated_filter(x, orn_indices(4, 4))
        with pytest.raises(ValueError, match="indices must be on cpu as input is, got meta"):
            active_rotated_filter(x, indices.to("meta"))

    @pytest.mark.parametrize("value", [0, -1, 73, 2**31 - 1])
    def test_indices_out_of_range(self, value: int) -> None:
        indices = orn_indices(8, 8)
        indices[1, 2, 0, 3] = value
        if emulated():  # CUDA leaves it out
            x = torch.ones(1, 1, 8, 3, 3)
            assert (active_rotated_filter(x, indices) == 0).sum() == 1
            return
        with pytest.raises(ValueError, match=rf"indices must be within \[1, 72\], got {value}"):
            active_rotated_filter(filters(2, 3, 8, 3, 3), indices)

    def test_the_operators_below_check_again(self) -> None:
        x, indices, grad = filters(2, 3, 8, 3, 3).detach(), orn_indices(8, 8), torch.zeros(16, 24, 3, 3)
        bad = [
            (x, indices.long()),
            (x, indices[..., 0]),
            (x[0], indices),
            (x.int(), indices),
            (x[:, :, :4], indices),
        ]
        for args in bad:
            with pytest.raises(RuntimeError, match="active_rotated_filter"):
                OP(*args)
        bad = [(grad[:15], indices), (grad[:, :23], indices), (grad[:, :, 1:], indices), (grad, indices[:0])]
        for args in bad:
            with pytest.raises(RuntimeError, match="active_rotated_filter_backward"):
                OP_BACKWARD(*args)
