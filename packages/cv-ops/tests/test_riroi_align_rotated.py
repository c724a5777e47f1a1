"""riroi_align_rotated and RiRoIAlignRotated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import RiRoIAlignRotated, riroi_align_rotated, roi_align_rotated
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
from cv_testing.roi_oracle import sample

MIX = torch.ops.cv.mix_orientations.default


def oracle(
    x: Tensor,
    rois: Tensor,
    out_size: tuple[int, int],
    spatial_scale: float,
    num_samples: int = 0,
    num_orientations: int = 8,
    clockwise: bool = False,
) -> Tensor:
    """By definition, one sample at a time: complex numbers turn the frame (y up: i is counterclockwise)."""
    n, out = num_orientations, []
    for index, cx, cy, width, height, angle in rois.tolist():
        angle = -angle if clockwise else angle
        size = [max(width * spatial_scale, 1.0), max(height * spatial_scale, 1.0)]
        steps = [s / b for s, b in zip(size, reversed(out_size), strict=True)]
        grid = [num_samples or math.ceil(s) for s in steps]
        for ph in range(out_size[0]):
            for pw in range(out_size[1]):
                total = x[0].sum((1, 2)) * 0
                for i in range(grid[1]):
                    for j in range(grid[0]):
                        right = (pw + (j + 0.5) / grid[0]) * steps[0] - size[0] / 2
                        down = (ph + (i + 0.5) / grid[1]) * steps[1] - size[1] / 2
                        at = complex(right, -down) * complex(math.cos(angle), math.sin(angle))
                        y, x_ = cy * spatial_scale - at.imag, cx * spatial_scale + at.real
                        total = total + sample(x[int(index)], y, x_)
                pooled = (total / (grid[0] * grid[1])).reshape(-1, n)
                whole, part = divmod(angle * n / (2 * math.pi), 1)
                for_all = [
                    (1 - part) * pooled[:, (o - int(whole)) % n] + part * pooled[:, (o - int(whole) + 1) % n]
                    for o in range(n)
                ]
                out.append(torch.stack(for_all, 1).reshape(-1))
    return torch.stack(out).reshape(len(rois), *out_size, -1).permute(0, 3, 1, 2)


ROIS = {
    "inside": [[0, 6.3, 5.1, 7.4, 4.2, 0.4], [1, 4.2, 4.4, 3.9, 6.2, -1.1]],
    "straight": [[0, 6.3, 5.1, 7.4, 4.2, 0.0]],
    "across the border": [[0, 1.2, 2.3, 9.1, 4.4, 0.8], [1, 11.3, 8.1, 6.2, 8.4, 12.9]],
    "tiny": [[0, 4.13, 3.21, 0.33, 0.4, 0.2], [1, 2.3, 2.4, 0.9, 5.1, -5.5]],
    "none": [],
    "many": [[i % 2, 4 + 0.3 * i, 3 + 0.2 * i, 2.2 + 0.2 * i, 5.1 - 0.2 * i, 0.7 * i - 5] for i in range(20)],
}


def make_inputs(
    rois: str = "inside", channels: int = 16, size: tuple[int, int] = (10, 13)
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=rng, dtype=torch.float64).requires_grad_()
    return x, torch.tensor(ROIS[rois], dtype=torch.float64).reshape(-1, 6)


def bind(fn, rois: Tensor, *options):
    """A function of the map alone: the boxes are not rounded with it."""
    return lambda x: fn(x, rois.to(device=x.device), *options)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        "options", [((2, 3), 0.9, 0, 8, False), ((2, 1), 1.0, 2, 4, True)], ids=["8", "4, clockwise"]
    )
    @pytest.mark.parametrize("rois", ["inside", "straight", "across the border", "tiny"])
    def test_definition(self, rois, options, dtype, device) -> None:
        x, boxes = make_inputs(rois)
        ours, by_definition = bind(riroi_align_rotated, boxes, *options), bind(oracle, boxes, *options)
        assert_matches_oracle(ours, by_definition, (x,), device=device, dtype=dtype, backward=True)

    @pytest.mark.parametrize("device", DEVICES)
    def test_known_answer(self, device) -> None:
        """What the published operator gives, to the four digits that are known (ReDet's own test)."""
        x = [[[1, 2], [3, 4]], [[1, 2], [4, 3]], [[4, 3], [2, 1]], [[1, 2], [5, 6]],
             [[3, 4], [7, 8]], [[9, 10], [13, 14]], [[11, 12], [15, 16]], [[1, 1], [2, 2]]]  # fmt: skip
        rois = [[0, 0.5, 0.5, 1, 1, math.pi / 3], [0, 1, 1, 3, 3, math.pi / 2]]
        expected = [[[1.8425, 1.3516], [2.3151, 1.8241]], [[2.4779, 1.7416], [3.2173, 2.5632]],
                    [[2.7149, 2.2638], [2.6540, 2.3673]], [[2.9461, 2.8638], [2.8028, 2.7205]],
                    [[4.1943, 2.7214], [5.6119, 4.1391]], [[7.5276, 6.0547], [8.9453, 7.4724]],
                    [[12.1943, 10.7214], [13.6119, 12.1391]],
                    [[9.5489, 8.4237], [10.5763, 9.4511]]]  # fmt: skip
        x, rois = torch.tensor([x]).float().to(device), torch.tensor(rois).to(device)
        out = riroi_align_rotated(x, rois, 2, 1.0, 2, 8, False)
        torch.testing.assert_close(out[0].cpu(), torch.tensor(expected), rtol=0, atol=1e-4)

    @settings(max_examples=30, deadline=None)
    @given(
        angle=st.floats(-20, 20),
        orientations=st.integers(1, 9),
        features=st.integers(1, 40),
        bins=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        clockwise=st.booleans(),
        last=st.booleans(),
    )
    def test_any_orientations(self, angle, orientations, features, bins, clockwise, last) -> None:
        x, _ = make_inputs(channels=features * orientations, size=(4, 5))
        x = x.detach().contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        x.requires_grad_()
        rois = torch.tensor([[1, 2.3, 1.9, 3.1, 2.7, angle + 1e-7]], dtype=torch.float64)
        options = (bins, 1.0, 1, orientations, clockwise)
        out, expected = riroi_align_rotated(x, rois, *options), oracle(x, rois, *options)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
        weight = torch.randn_like(out)
        got, wanted = (torch.autograd.grad(o, x, weight)[0] for o in (out, expected))
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("last", [False, True])
    @pytest.mark.parametrize("steps", range(-9, 10))
    def test_a_turn_of_whole_steps_moves_channels(self, steps, last) -> None:
        """The neighbour has no part in it, so that its place does not matter."""
        x, rois = make_inputs("inside", 72)
        x = x.detach().contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        rois[:, 5] = steps * math.pi / 4
        pooled = roi_align_rotated(x, rois, 2, 1.0, 2, False).reshape(2, 9, 8, 2, 2)
        expected = pooled.roll(steps, 2).reshape(2, 72, 2, 2)
        torch.testing.assert_close(riroi_align_rotated(x, rois, 2, 1.0, 2), expected)

    def test_one_orientation_is_roi_align_rotated(self) -> None:
        x, rois = make_inputs("many")
        out = riroi_align_rotated(x, rois, (3, 2), 0.5, 0, 1, True)
        torch.testing.assert_close(out, roi_align_rotated(x, rois, (3, 2), 0.5, 0, False, True))


class TestEdges:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(2, 0, 10, 13), (2, 16, 10, 13)])
    def test_no_boxes_or_no_channels(self, shape, device) -> None:
        x = torch.ones(shape, device=device, requires_grad=True)
        rois = torch.zeros(0 if shape[1] else 3, 6, device=device)
        out = riroi_align_rotated(x, rois, (3, 2), 1.0)
        assert out.shape == (len(rois), shape[1], 3, 2)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert (grad == 0).all()

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("last", [False, True])
    @pytest.mark.parametrize(
        ("column", "value"), [(1, math.nan), (4, math.inf), (5, math.nan), (5, -math.inf), (5, 1e30)]
    )
    def test_a_box_that_is_not_finite_gives_nan_and_no_gradient(self, column, value, last, device):
        x, rois = (t.detach().float().to(device) for t in make_inputs("inside"))
        x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        x.requires_grad_()
        good = riroi_align_rotated(x, rois, 2, 1.0)
        rois[0, column] = value
        out = riroi_align_rotated(x, rois, 2, 1.0)
        assert torch.isnan(out[0]).all()
        assert torch.equal(out[1], good[1])
        (grad,) = torch.autograd.grad(out[0].sum(), x)
        assert (grad == 0).all()

    def test_infinity_in_the_map_stays_in_its_feature(self) -> None:
        x, rois = make_inputs("many")
        x = x.detach()
        x[:, 3] = torch.inf
        out = riroi_align_rotated(x, rois, 2, 1.0)
        assert torch.isfinite(out[:, 8:]).all()

    @pytest.mark.parametrize("last", [False, True])
    def test_other_layouts_of_the_gradient(self, last) -> None:
        x, rois = make_inputs("many", 24)
        weight = torch.randn(20, 24, 2, 3, dtype=torch.float64)
        out = riroi_align_rotated(x, rois, (2, 3), 1.0)
        expected = torch.autograd.grad(out, x, weight, retain_graph=True)[0]
        spread = weight.transpose(0, 2).contiguous().transpose(0, 2)
        if last:
            spread = weight.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(torch.autograd.grad(out, x, spread)[0], expected)


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device) -> None:
        x, rois = make_inputs("across the border", 8, (5, 6))
        pooled = roi_align_rotated(x, rois, (3, 2)).detach().requires_grad_()
        check_operator(
            lambda a, r: riroi_align_rotated(a, r, (3, 2), 0.9),
            (x, rois),
            op=MIX,
            op_args=(pooled, rois, 8, False, False),
            device=device,
            dynamic_shapes=({2: torch.export.Dim("h")}, {0: torch.export.Dim("k")}),
        )

    def test_second_derivative_is_refused(self) -> None:
        x, rois = make_inputs()
        check_second_derivative_is_refused(bind(riroi_align_rotated, rois, 2, 1.0), (x,))

    def test_every_instruction_set_agrees(self) -> None:
        x, rois = make_inputs("many", 136)
        last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        for each in (x, last):
            check_every_cpu_isa(bind(riroi_align_rotated, rois, 3, 1.0), (each,))

    @pytest.mark.parametrize("device", DEVICES)
    def test_channels_last_in_channels_last_out(self, device) -> None:
        x, rois = (t.detach().to(device) for t in make_inputs("many", 24))
        last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        out = riroi_align_rotated(last, rois, (3, 2), 1.0)
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, riroi_align_rotated(x, rois, (3, 2), 1.0))
        (grad,) = torch.autograd.grad(out.sum(), last)
        assert grad.is_contiguous(memory_format=torch.channels_last)

    def test_results_do_not_depend_on_the_number_of_threads(self) -> None:
        x, rois = make_inputs("many", 24)
        results, before = [], torch.get_num_threads()
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                out = riroi_align_rotated(x, rois, 3, 1.0)
                results.append((out, torch.autograd.grad(out.sum(), x)[0]))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            assert all(map(torch.equal, other, results[0]))

    @pytest.mark.cuda
    @pytest.mark.parametrize("last", [False, True])
    def test_cuda_is_cpu(self, last) -> None:
        for name in ROIS:
            x, rois = make_inputs(name, 40)
            if last:
                x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            check_cpu_equals_cuda(bind(riroi_align_rotated, rois, (3, 2), 0.9), (x,))

    @pytest.mark.cuda
    def test_cuda_runs_on_the_current_stream(self) -> None:
        check_cuda_stream(lambda x, r: riroi_align_rotated(x, r, 2, 1.0), make_inputs())


BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a tensor, got list"),
    ({"input": torch.zeros(1, 3, 3)}, ValueError, r"shape \(N, C, H, W\), got \(1, 3, 3\)"),
    ({"rois": torch.zeros(2, 5)}, ValueError, r"rois must have shape \(K, 6\), got \(2, 5\)"),
    ({"rois": None}, TypeError, "rois must be a tensor, got NoneType"),
    ({"out_size": 0}, ValueError, "out_size must be positive, got 0"),
    ({"num_samples": 2**62}, ValueError, "num_samples must be at most 4096, got 4611686018427387904"),
    ({"num_orientations": 0}, ValueError, "num_orientations must be positive, got 0"),
    ({"num_orientations": 3}, ValueError, "multiple of num_orientations=3 channels, got 8"),
    ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be positive and finite, got 0.0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, error, text) -> None:
    good = {"input": torch.zeros(1, 8, 3, 3), "rois": torch.zeros(1, 6), "out_size": 2}
    good["spatial_scale"] = 1.0
    with pytest.raises(error, match=text):
        riroi_align_rotated(**(good | change))


def test_the_operator_below_checks_again() -> None:
    x, rois = torch.zeros(2, 8, 3, 3), torch.zeros(2, 6)
    for args in [(x[0], rois), (x.int(), rois), (x, rois[:1]), (x, rois[:, :5]), (x, rois.int())]:
        with pytest.raises(RuntimeError, match="mix_orientations"):
            MIX(*args, 8, False, False)
    for orientations in (0, -8, 3, 2**62):
        with pytest.raises(RuntimeError, match="mix_orientations"):
            MIX(x, rois, orientations, False, False)


def test_layer_is_the_function() -> None:
    x, rois = make_inputs()
    layer = RiRoIAlignRotated((3, 2), 0.5, 2, 4, True)
    assert torch.equal(layer(x, rois), riroi_align_rotated(x, rois, (3, 2), 0.5, 2, 4, True))
    text = "out_size=(3, 2), spatial_scale=0.5, num_samples=2, num_orientations=4, clockwise=True"
    assert repr(layer) == f"RiRoIAlignRotated({text})"
    assert layer.output_size == (3, 2)
    assert RiRoIAlignRotated(7, 0.25).num_orientations == 8
    with pytest.raises(ValueError, match="out_size must be positive, got 0"):
        RiRoIAlignRotated(0, 1.0)
    with pytest.raises(ValueError, match="num_orientations must be positive, got -1"):
        RiRoIAlignRotated(2, 1.0, 0, -1)
