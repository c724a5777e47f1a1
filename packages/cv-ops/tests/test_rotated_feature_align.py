"""rotated_feature_align against bilinear interpolation in plain PyTorch, and against maps that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cv.ops import rotated_feature_align
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

OP = torch.ops.cv.rotated_feature_align.default
OP_BACKWARD = torch.ops.cv.rotated_feature_align_backward.default


def sample(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x (C, H, W) at positions (H, W): the border up to one pixel outside, 0 beyond."""
    _, height, width = x.shape
    inside = (row >= -1) & (row <= height) & (column >= -1) & (column <= width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    top, left = row.floor().long(), column.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    fy, fx = row - top, column - left
    upper = x[:, top, left] * (1 - fx) + x[:, top, right] * fx
    lower = x[:, bottom, left] * (1 - fx) + x[:, bottom, right] * fx
    return torch.where(inside, upper * (1 - fy) + lower * fy, 0.0)


def oracle(x: Tensor, boxes: Tensor, scale: float = 0.125, points: int = 1) -> Tensor:
    y, xs, w, h, angle = boxes.reshape(len(x), *x.shape[2:], 5).unbind(-1)
    images = []
    for n in range(len(x)):
        total = x[n] + sample(x[n], y[n] * scale, xs[n] * scale)
        for along, across in ((1, 1), (1, -1), (-1, 1), (-1, -1)) if points == 5 else ():
            dx, dy = along * w[n] * scale / 2, across * h[n] * scale / 2
            c, s = angle[n].cos(), angle[n].sin()
            total = total + sample(x[n], y[n] * scale + dx * s + dy * c, xs[n] * scale + dx * c - dy * s)
        images.append(total)
    return torch.stack(images)


def inputs(
    n: int = 2, channels: int = 5, height: int = 6, width: int = 7, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Boxes in units of an eighth of a pixel; some lie outside. Sixteenths, which half types hold."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, height, width, generator=g, dtype=torch.float64)
    boxes = torch.rand(n, height, width, 5, generator=g, dtype=torch.float64)
    size = torch.tensor([height + 3.0, width + 3.0, 4.0, 4.0, 6.0], dtype=torch.float64)
    boxes = boxes * size - torch.tensor([1.5, 1.5, 0, 0, 3])
    return x.requires_grad_(), (boxes * 16).round() / 2


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("points", [1, 5])
    def test_random(self, device: str, dtype: torch.dtype, points: int) -> None:
        assert_matches_oracle(
            lambda x, b: rotated_feature_align(x, b, 0.125, points),
            lambda x, b: oracle(x, b, 0.125, points),
            inputs(),
            dtype=dtype,
            device=device,
            backward=True,
            scale=10,
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("channels", [1, 16, 33, 70])
    def test_any_number_of_channels_and_both_layouts(self, device: str, channels: int) -> None:
        x, boxes = inputs(channels=channels)
        expected = oracle(x, boxes, 0.125, 5)
        for layout in (torch.contiguous_format, torch.channels_last):
            own = x.detach().to(device).contiguous(memory_format=layout).requires_grad_()
            out = rotated_feature_align(own, boxes.to(device), points=5)
            assert out.is_contiguous(memory_format=layout)
            torch.testing.assert_close(out.cpu(), expected.detach(), atol=1e-11, rtol=1e-11)
            weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            (grad,) = torch.autograd.grad(out, own, weight.to(device))
            (expected_grad,) = torch.autograd.grad(expected, x, weight, retain_graph=True)
            torch.testing.assert_close(grad.cpu(), expected_grad, atol=1e-11, rtol=1e-11)

    def test_the_row_comes_first(self) -> None:
        rows = torch.arange(9.0).view(9, 1).expand(9, 9)
        for k, (x, value) in enumerate(((rows, 2.5), (rows.T, 6.25))):
            box = torch.tensor([20.0, 50.0, 0, 0, 0]).expand(1, 9, 9, 5)
            out = rotated_feature_align(x[None, None].contiguous(), box, 1 / 8)
            assert torch.equal(out[0, 0] - x, torch.full((9, 9), value)), k

    def test_corners_of_a_turned_box(self) -> None:
        """On maps that are linear in x or y the corners cancel, on x y they do not."""
        steps = torch.arange(40, dtype=torch.float64)
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        box = torch.tensor([20.0, 22, 8, 4, 0.0], dtype=torch.float64).expand(1, 40, 40, 5)
        for x in (rows, columns):
            out = rotated_feature_align(x[None, None].contiguous(), box, 1.0, 5) - x
            torch.testing.assert_close(out[0, 0], 5 * x[20, 22].expand(40, 40))
        spot = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
        spot[0, 0, 24, 24] = 1  # 4 below and 2 right of the centre: a corner only after a quarter turn
        assert (rotated_feature_align(spot, box, 1.0, 5) - spot).abs().max() == 0
        turned = box.clone()
        turned[..., 4] = math.pi / 2
        torch.testing.assert_close(
            rotated_feature_align(spot, turned, 1.0, 5) - spot, torch.ones_like(spot), atol=1e-12, rtol=0
        )

    def test_boxes_as_one_list(self) -> None:
        x, boxes = inputs()
        expected = rotated_feature_align(x, boxes)
        assert torch.equal(rotated_feature_align(x, boxes.reshape(-1, 5)), expected)
        assert torch.equal(rotated_feature_align(x, boxes.reshape(2, -1, 5)), expected)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (1, 1, 1, 1)])
    def test_sizes(self, device: str, shape: tuple[int, ...]) -> None:
        x = torch.ones(shape, device=device, requires_grad=True)
        boxes = torch.zeros(shape[0], *shape[2:], 5, device=device)
        out = rotated_feature_align(x, boxes)
        assert torch.equal(out, torch.full_like(x, 2))
        out.sum().backward()
        assert x.grad.shape == x.shape

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
    @pytest.mark.parametrize("points", [1, 5])
    def test_a_box_that_is_not_finite_gives_nan(self, device: str, value: float, points: int) -> None:
        x = torch.ones(1, 2, 3, 3, device=device, requires_grad=True)
        for k in range(5):
            boxes = torch.ones(1, 3, 3, 5, device=device)
            boxes[0, 1, 2, k] = value
            out = rotated_feature_align(x, boxes, 1.0, points)
            assert out[0, :, 1, 2].isnan().all()
            assert out.isnan().sum() == 2
            (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
            assert grad.isfinite().all()


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    def test_operator(self, device: str) -> None:
        x, boxes = inputs(1, 3, 4, 3)
        check_operator(
            lambda x, b: rotated_feature_align(x, b, 0.125, 5),
            (x, boxes),
            op=OP,
            op_args=(x, boxes.reshape(-1, 5), 0.125, 5),
            device=device,
        )

    def test_no_second_derivative(self) -> None:
        check_second_derivative_is_refused(rotated_feature_align, inputs(1, 2, 3, 3))

    def test_every_instruction_set(self) -> None:
        check_every_cpu_isa(lambda x, b: rotated_feature_align(x, b, 0.125, 5), inputs(channels=40))

    def test_the_number_of_threads_does_not_matter(self) -> None:
        x, boxes = (t.detach() for t in inputs(channels=70))
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                leaf = x.clone().requires_grad_()
                out = rotated_feature_align(leaf, boxes, points=5)
                results.append((out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1], atol=1e-12, rtol=1e-12)

    def test_cpu_equals_cuda(self) -> None:
        args = inputs(2, 20, 9, 11)
        check_cpu_equals_cuda(lambda x, b: rotated_feature_align(x, b, 0.125, 5), args, scale=10)
        check_cuda_stream(rotated_feature_align, args)


class TestErrors:
    def test_messages_name_parameter_rule_and_value(self) -> None:
        x, boxes = inputs()
        with pytest.raises(TypeError, match="features must be a tensor, got list"):
            rotated_feature_align([1.0], boxes)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"best_rbboxes must have a floating dtype, got torch\.int32"):
            rotated_feature_align(x, boxes.int())
        with pytest.raises(ValueError, match=r"features must have shape \(N, C, H, W\), got \(5, 6, 7\)"):
            rotated_feature_align(x[0], boxes)
        with pytest.raises(ValueError, match=r"\(2, 6, 7, 5\), or that as \(84, 5\), got \(83, 5\)"):
            rotated_feature_align(x, boxes.reshape(-1, 5)[1:])
        with pytest.raises(ValueError, match=r"or that as \(84, 5\), got \(2, 6, 7, 4\)"):
            rotated_feature_align(x, boxes[..., :4])
        with pytest.raises(ValueError, match="best_rbboxes must be on cpu as features is, got meta"):
            rotated_feature_align(x, boxes.to("meta"))
        for bad in (torch.tensor(1.0), torch.zeros(5)):
            with pytest.raises(ValueError, match=r"best_rbboxes must have shape"):
                rotated_feature_align(x, bad)
        with pytest.raises(ValueError, match="points must be 1 or 5, got 4"):
            rotated_feature_align(x, boxes, 1.0, 4)
        for scale in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"spatial_scale must be positive and finite, got {scale}"):
                rotated_feature_align(x, boxes, scale)

    def test_the_operators_below_check_again(self) -> None:
        x, boxes = (t.detach() for t in inputs())
        flat = boxes.reshape(-1, 5)
        bad = [
            (x[0], flat, 1.0, 1),
            (x, boxes, 1.0, 1),
            (x, flat[1:], 1.0, 1),
            (x, flat, 0.0, 1),
            (x, flat, 1.0, 2),
        ]
        for args in bad:
            with pytest.raises(RuntimeError, match="rotated_feature_align"):
                OP(*args)
            with pytest.raises(RuntimeError, match="rotated_feature_align"):
                OP_BACKWARD(*args, False)
