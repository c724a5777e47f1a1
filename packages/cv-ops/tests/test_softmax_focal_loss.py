"""softmax_focal_loss against the paper's formula in float64 and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import SoftmaxFocalLoss, softmax_focal_loss
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

OP = torch.ops.cv.softmax_focal_loss.default
OP_BACKWARD = torch.ops.cv.softmax_focal_loss_backward.default


def oracle(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "none",
) -> Tensor:
    """Row by row, with p = exp(log p) and 1 - p = -expm1(log p)."""
    losses = []
    for row, label in zip(logits, target.tolist(), strict=True):
        if 0 <= label < len(row):
            log_p = row[label] - torch.logsumexp(row, 0)
            factor = alpha if weight is None else alpha * weight[label].to(row.dtype)
            losses.append(-factor * (-torch.expm1(log_p)) ** gamma * log_p)
        else:
            losses.append(row.sum() * 0)
    stacked = torch.stack(losses)
    if reduction == "none":
        return stacked
    return stacked.sum() / (len(losses) if reduction == "mean" else 1)


def random_case(rows: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale
    return logits.requires_grad_(), torch.randint(-1, classes + 2, (rows,), generator=g)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("gamma", [2.0, 0.0, 1.5])
    @pytest.mark.parametrize("classes", [2, 11, 16, 17, 50])
    def test_each_loss_and_gradient(
        self, device: str, dtype: torch.dtype, gamma: float, classes: int
    ) -> None:
        logits, target = random_case(37, classes)
        weight = torch.linspace(0.5, 2, classes, dtype=dtype) if classes != 16 else None
        on_device = None if weight is None else weight.to(device)
        assert_matches_oracle(
            lambda x, t: softmax_focal_loss(x, t, gamma, 0.25, on_device, "none"),
            lambda x, t: oracle(x, t, weight, gamma=gamma),
            (logits, target),
            dtype=dtype,
            device=device,
            backward=True,
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize(("rows", "classes"), [(3, 1), (1, 5), (300, 3), (70, 80), (7, 5000)])
    def test_reduced(self, device: str, dtype: torch.dtype, reduction: str, rows: int, classes: int) -> None:
        logits, target = random_case(rows, classes, scale=1.0)
        assert_matches_oracle(
            lambda x, t: softmax_focal_loss(x, t, reduction=reduction),
            lambda x, t: oracle(x, t, reduction=reduction),
            (logits, target),
            dtype=dtype,
            device=device,
            backward=True,
        )

    def test_a_known_value(self) -> None:
        """p = e / (e + 1)."""
        logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        p = 1 / (1 + math.exp(-1))
        expected = [-0.25 * (1 - p) ** 2 * math.log(p), -0.25 * p**2 * math.log(1 - p)]
        actual = softmax_focal_loss(logits, torch.tensor([0, 0]), reduction="none")
        torch.testing.assert_close(actual.tolist(), expected, rtol=1e-6, atol=0)

    def test_gamma_0_is_cross_entropy(self) -> None:
        logits, target = random_case(20, 7)
        target = target.clamp(0, 6)
        torch.testing.assert_close(
            softmax_focal_loss(logits, target, 0.0, 1.0), torch.nn.functional.cross_entropy(logits, target)
        )

    def test_mean_divides_by_all_rows(self) -> None:
        logits, _ = random_case(10, 4)
        target = torch.tensor([0, 1, 2, 3, -1, 4, -100, 0, 0, 0])
        total = softmax_focal_loss(logits, target, reduction="sum")
        torch.testing.assert_close(softmax_focal_loss(logits, target), total / 10)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("classes", [2, 40])
    def test_extreme_logits_are_exact(self, device: str, dtype: torch.dtype, classes: int) -> None:
        """Nothing is clamped: linear with slope -alpha on the wrong side, tiny on the right one."""
        logits = torch.full((4, classes), -1e4, dtype=dtype, device=device)
        logits[:, 1] = 0
        logits[:, 0] = torch.tensor([-200, 200, -1000, 10])
        logits.requires_grad_()
        target = torch.zeros(4, dtype=torch.int64, device=device)
        loss = softmax_focal_loss(logits, target, 2.0, 0.25, None, "none")
        q = 1 / (1 + math.exp(10))
        expected = [0.25 * 200, 0.0, 0.25 * 1000, -0.25 * q**2 * math.log1p(-q)]
        torch.testing.assert_close(loss.tolist(), expected, rtol=1e-5, atol=1e-30)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        torch.testing.assert_close(grad[:3, 0].tolist(), [-0.25, 0.0, -0.25], rtol=1e-6, atol=1e-30)
        torch.testing.assert_close(grad[:3, 1].tolist(), [0.25, 0.0, 0.25], rtol=1e-6, atol=1e-30)
        expected_slope = -0.25 * q**2 * (1 + 2 * (1 - q) * -math.log1p(-q) / q) * q
        torch.testing.assert_close(grad[3, 0].item(), expected_slope, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize("classes", [3, 30])
    def test_infinite_and_nan_logits(
        self, device: str, dtype: torch.dtype, gamma: float, classes: int
    ) -> None:
        logits = torch.zeros(5, classes, dtype=dtype, device=device)
        logits[0, 1] = logits[1, 0] = -math.inf
        logits[2, 1] = math.inf
        logits[3, 1] = logits[4, 0] = math.nan
        logits.requires_grad_()
        target = torch.tensor([0, 0, 0, 0, -1], device=device)
        loss = softmax_focal_loss(logits, target, gamma, 0.25, None, "none")
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        without = torch.zeros(1, classes - 1, dtype=dtype, device=device)
        expected = softmax_focal_loss(without, target[:1], gamma, 0.25, None, "none")
        torch.testing.assert_close(loss[:1], expected)
        assert grad[0].isfinite().all()
        assert abs(grad[0, 1].item()) < 1e-30
        assert loss[1] == math.inf
        torch.testing.assert_close(grad[1, 0].item(), -0.25)
        assert loss[2:4].isnan().all()
        assert loss[4] == 0
        assert (grad[4] == 0).all()

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 5), st.floats(0, 1), st.integers(0, 1000))
    def test_any_shape_and_parameter(
        self, rows: int, classes: int, gamma: float, alpha: float, seed: int
    ) -> None:
        logits, target = random_case(rows, classes, seed)
        actual = softmax_focal_loss(logits, target, gamma, alpha, None, "none")
        expected = oracle(logits, target, gamma=gamma, alpha=alpha)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("rows", "classes"), [(0, 3), (4, 0), (0, 0)])
    def test_empty(self, device: str, rows: int, classes: int) -> None:
        logits = torch.zeros(rows, classes, device=device, requires_grad=True)
        target = torch.zeros(rows, dtype=torch.int64, device=device)
        for reduction in ("mean", "sum"):
            loss = softmax_focal_loss(logits, target, reduction=reduction)
            assert loss.item() == 0
            (grad,) = torch.autograd.grad(loss, logits)
            assert grad.shape == logits.shape
        losses = softmax_focal_loss(logits, target, reduction="none")
        assert losses.tolist() == [0.0] * rows


class TestLayer:
    def test_is_the_function(self) -> None:
        logits, target = random_case(6, 3)
        weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        layer = SoftmaxFocalLoss(gamma=1.5, alpha=0.4, weight=weight, reduction="sum")
        assert torch.equal(layer(logits, target), softmax_focal_loss(logits, target, 1.5, 0.4, weight, "sum"))
        assert "weight" in dict(layer.named_buffers())
        assert repr(layer) == "SoftmaxFocalLoss(gamma=1.5, alpha=0.4, reduction=sum)"


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("reduction", ["none", "mean"])
    def test_operator(self, device: str, reduction: str) -> None:
        logits, target = random_case(5, 4)
        check_operator(
            lambda x, t: softmax_focal_loss(x, t, 1.5, reduction=reduction),
            (logits, target),
            op=OP,
            op_args=(logits, target, None, 2.0, 0.25, 0 if reduction == "none" else 1),
            device=device,
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}],
        )

    def test_backward_operator(self) -> None:
        logits, target = random_case(5, 4)
        logits = logits.detach()
        weight = torch.rand(4, dtype=torch.float64)
        stats = OP(logits, target, weight, 2.0, 0.25, 0)[1]
        torch.library.opcheck(
            OP_BACKWARD, (torch.rand(5).double(), logits, target, weight, stats, 2.0, 0.25, 0)
        )
        torch.library.opcheck(OP_BACKWARD, (logits.new_ones(()), logits, target, None, stats, 1.0, 0.25, 1))

    def test_second_derivative_is_refused(self) -> None:
        check_second_derivative_is_refused(lambda x, t: softmax_focal_loss(x, t), random_case(5, 4))

    @pytest.mark.parametrize("classes", [5, 33])
    def test_backends_agree(self, classes: int) -> None:
        for gamma in (2.0, 1.3):
            check_every_cpu_isa(
                lambda x, t, g=gamma: softmax_focal_loss(x, t, g, reduction="none"), random_case(50, classes)
            )

    @pytest.mark.parametrize("classes", [3, 20, 80])
    def test_cuda(self, classes: int) -> None:
        case = random_case(3001, classes)
        check_cpu_equals_cuda(lambda x, t: softmax_focal_loss(x, t, reduction="none"), case)
        check_cuda_stream(lambda x, t: softmax_focal_loss(x, t), case)

    @pytest.mark.parametrize("classes", [3, 30])
    def test_the_number_of_threads_does_not_matter(self, classes: int) -> None:
        logits, target = random_case(5000, classes)
        before = torch.get_num_threads()
        try:
            losses = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                losses.append(softmax_focal_loss(logits.float(), target))
        finally:
            torch.set_num_threads(before)
        assert losses[0] == losses[1] == losses[2]

    def test_autocast_computes_in_float32(self) -> None:
        logits, target = random_case(3, 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert softmax_focal_loss(logits.bfloat16(), target).dtype == torch.float32


class TestErrors:
    def test_messages(self) -> None:
        logits, target = random_case(3, 2)
        with pytest.raises(ValueError, match=r"input must have shape \(N, C\), got \(3,\)"):
            softmax_focal_loss(logits[:, 0], target)
        with pytest.raises(ValueError, match=r"target must have shape \(3,\), got \(2,\)"):
            softmax_focal_loss(logits, target[:2])
        with pytest.raises(TypeError, match=r"target must hold integer labels, got torch\.float32"):
            softmax_focal_loss(logits, target.float())
        with pytest.raises(ValueError, match=r"weight must have shape \(2,\), got \(5,\)"):
            softmax_focal_loss(logits, target, weight=torch.ones(5))
        with pytest.raises(ValueError, match=r"reduction must be one of .*, got 'avg'"):
            softmax_focal_loss(logits, target, reduction="avg")  # type: ignore[arg-type]
