"""sigmoid_focal_loss against the paper's formula in float64 and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cv.ops import SigmoidFocalLoss, sigmoid_focal_loss
from cv_testing.ops import (
    DEVICES,
    DTYPES,
    assert_matches_oracle,
    check_cpu_equals_cuda,
    check_every_cpu_isa,
    check_operator,
    check_second_derivative_is_refused,
)

OP = torch.ops.cv.sigmoid_focal_loss.default
OP_BACKWARD = torch.ops.cv.sigmoid_focal_loss_backward.default


def oracle(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "none",
) -> Tensor:
    """The formula of the paper with its two cases, logarithms from logsigmoid."""
    rows, classes = logits.shape
    labels = torch.arange(classes, device=logits.device).expand(rows, classes)
    p = torch.sigmoid(logits)
    positive = -alpha * (1 - p) ** gamma * torch.nn.functional.logsigmoid(logits)
    negative = -(1 - alpha) * p**gamma * torch.nn.functional.logsigmoid(-logits)
    losses = torch.where(labels == target[:, None], positive, negative)
    if weight is not None:
        inside = (target >= 0) & (target < classes)
        factor = torch.where(
            inside, weight.to(logits.dtype)[target.clamp(0, classes - 1)], torch.ones_like(logits[:, 0])
        )
        losses = losses * factor[:, None]
    if reduction == "none":
        return losses
    return losses.sum() / (rows if reduction == "mean" else 1)


def random_case(rows: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale
    return logits.requires_grad_(), torch.randint(-1, classes + 2, (rows,), generator=g)


class TestValues:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("gamma", [2.0, 0.0, 1.5])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_each_loss_and_gradient(
        self, device: str, dtype: torch.dtype, gamma: float, weighted: bool
    ) -> None:
        logits, target = random_case(37, 11)
        weight = torch.linspace(0.5, 2, 11, dtype=dtype) if weighted else None
        on_device = None if weight is None else weight.to(device)
        assert_matches_oracle(
            lambda x, t: sigmoid_focal_loss(x, t, gamma, 0.25, on_device, "none"),
            lambda x, t: oracle(x, t, weight, gamma=gamma),
            (logits, target),
            dtype=dtype,
            device=device,
            backward=True,
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize(("rows", "classes"), [(1, 1), (5, 1), (3, 80), (4000, 3), (40, 5000)])
    def test_reduced(self, device: str, dtype: torch.dtype, reduction: str, rows: int, classes: int) -> None:
        # Few positives in the largest sums, so that they stay within float16.
        logits, target = random_case(rows, classes, scale=1.0)
        logits = (logits.detach() - (4 if rows * classes > 1000 else 0)).requires_grad_()
        assert_matches_oracle(
            lambda x, t: sigmoid_focal_loss(x, t, reduction=reduction),
            lambda x, t: oracle(x, t, reduction=reduction),
            (logits, target),
            dtype=dtype,
            device=device,
            backward=True,
        )

    def test_mean_divides_by_rows_only(self) -> None:
        logits, target = random_case(10, 4)
        total = sigmoid_focal_loss(logits, target, reduction="sum")
        torch.testing.assert_close(sigmoid_focal_loss(logits, target), total / 10)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_extreme_logits_are_exact(self, device: str, dtype: torch.dtype) -> None:
        """Nothing is clamped: far on the wrong side the loss grows linearly and its slope is -alpha."""
        logits = torch.tensor(
            [[-200.0], [200.0], [-1000.0], [0.0]], dtype=dtype, device=device, requires_grad=True
        )
        target = torch.tensor([0, 0, 0, 0], device=device)
        loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
        expected = [0.25 * 200, 0.0, 0.25 * 1000, 0.25 * 0.25 * math.log(2)]
        torch.testing.assert_close(loss[:, 0].tolist(), expected, rtol=1e-6, atol=1e-30)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        torch.testing.assert_close(grad[:3, 0].tolist(), [-0.25, 0.0, -0.25], rtol=1e-6, atol=1e-30)

    @pytest.mark.parametrize("device", DEVICES)
    def test_infinite_and_nan_logits(self, device: str) -> None:
        logits = torch.tensor([[math.inf], [-math.inf], [math.nan], [1.0]], device=device)
        for gamma in (0.0, 1.5, 2.0):
            loss = sigmoid_focal_loss(
                logits, torch.zeros(4, dtype=torch.int64, device=device), gamma, 0.25, None, "none"
            )
            assert loss[0, 0] < 1e-30
            assert loss[1, 0] == math.inf
            assert torch.isnan(loss[2, 0])
            assert torch.isfinite(loss[3, 0])

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 6), st.integers(0, 40), st.floats(0, 5), st.floats(0, 1), st.integers(0, 1000))
    def test_any_shape_and_parameter(
        self, rows: int, classes: int, gamma: float, alpha: float, seed: int
    ) -> None:
        logits, target = random_case(rows, classes, seed)
        actual = sigmoid_focal_loss(logits, target, gamma, alpha, None, "none")
        torch.testing.assert_close(
            actual, oracle(logits, target, gamma=gamma, alpha=alpha), rtol=1e-9, atol=1e-12
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize(("rows", "classes"), [(0, 3), (4, 0), (0, 0)])
    def test_empty(self, device: str, rows: int, classes: int) -> None:
        logits = torch.zeros(rows, classes, device=device, requires_grad=True)
        target = torch.zeros(rows, dtype=torch.int64, device=device)
        for reduction in ("mean", "sum"):
            loss = sigmoid_focal_loss(logits, target, reduction=reduction)
            assert loss.item() == 0
            (grad,) = torch.autograd.grad(loss, logits)
            assert grad.shape == logits.shape
        assert sigmoid_focal_loss(logits, target, reduction="none").shape == (rows, classes)

    def test_integer_labels_of_any_width(self) -> None:
        logits, target = random_case(6, 3)
        expected = sigmoid_focal_loss(logits, target)
        for dtype in (torch.int32, torch.int16, torch.int8):
            assert torch.equal(sigmoid_focal_loss(logits, target.to(dtype)), expected)


class TestLayer:
    def test_is_the_function(self) -> None:
        logits, target = random_case(6, 3)
        weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        layer = SigmoidFocalLoss(gamma=1.5, alpha=0.4, weight=weight, reduction="sum")
        assert torch.equal(layer(logits, target), sigmoid_focal_loss(logits, target, 1.5, 0.4, weight, "sum"))
        assert "weight" in dict(layer.named_buffers())
        assert repr(layer) == "SigmoidFocalLoss(gamma=1.5, alpha=0.4, reduction=sum)"
        assert SigmoidFocalLoss(2.0, 0.25).weight is None


class TestContract:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("reduction", ["none", "mean"])
    def test_operator(self, device: str, reduction: str) -> None:
        logits, target = random_case(5, 4)
        check_operator(
            lambda x, t: sigmoid_focal_loss(x, t, 1.5, reduction=reduction),
            (logits, target),
            op=OP,
            op_args=(logits, target, None, 2.0, 0.25, 0),
            device=device,
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}],
        )

    def test_backward_operator(self) -> None:
        logits, target = random_case(5, 4)
        logits = logits.detach()
        weight = torch.rand(4, dtype=torch.float64)
        torch.library.opcheck(OP_BACKWARD, (torch.rand_like(logits), logits, target, weight, 2.0, 0.25, 0))
        torch.library.opcheck(OP_BACKWARD, (logits.new_ones(()), logits, target, None, 1.0, 0.25, 1))

    def test_second_derivative_is_refused(self) -> None:
        check_second_derivative_is_refused(lambda x, t: sigmoid_focal_loss(x, t), random_case(5, 4))

    def test_backends_agree(self) -> None:
        for gamma in (2.0, 1.3):
            check_every_cpu_isa(
                lambda x, t, g=gamma: sigmoid_focal_loss(x, t, g, reduction="none"), random_case(50, 33)
            )
        check_cpu_equals_cuda(lambda x, t: sigmoid_focal_loss(x, t, reduction="none"), random_case(3000, 80))

    def test_the_number_of_threads_does_not_matter(self) -> None:
        logits, target = random_case(5000, 20)
        before = torch.get_num_threads()
        try:
            losses = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                losses.append(sigmoid_focal_loss(logits.float(), target))
        finally:
            torch.set_num_threads(before)
        assert losses[0] == losses[1] == losses[2]

    def test_autocast_computes_in_float32(self) -> None:
        logits, target = random_case(3, 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert sigmoid_focal_loss(logits.bfloat16(), target).dtype == torch.float32


class TestErrors:
    def test_messages(self) -> None:
        logits, target = random_case(3, 2)
        with pytest.raises(ValueError, match=r"input must have shape \(N, C\), got \(3,\)"):
            sigmoid_focal_loss(logits[:, 0], target)
        with pytest.raises(ValueError, match=r"target must have shape \(3,\), got \(2,\)"):
            sigmoid_focal_loss(logits, target[:2])
        with pytest.raises(ValueError, match="target must be on cpu as input is, got meta"):
            sigmoid_focal_loss(logits, target.to("meta"))
        with pytest.raises(TypeError, match=r"target must hold integer labels, got torch\.float32"):
            sigmoid_focal_loss(logits, target.float())
        with pytest.raises(TypeError, match=r"input must have a floating dtype, got torch\.int64"):
            sigmoid_focal_loss(logits.long(), target)
        with pytest.raises(ValueError, match=r"weight must have shape \(2,\), got \(5,\)"):
            sigmoid_focal_loss(logits, target, weight=torch.ones(5))
        with pytest.raises(ValueError, match="gamma must not be negative, got -1"):
            sigmoid_focal_loss(logits, target, gamma=-1)
        with pytest.raises(ValueError, match=r"reduction must be one of .*, got 'avg'"):
            sigmoid_focal_loss(logits, target, reduction="avg")  # type: ignore[arg-type]
