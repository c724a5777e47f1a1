"""What all operators share: instruction sets, registration, refusal of CUDA tensors, arrays, no tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cv import ops
from cv.ops import _load, _registration, has_cuda, roi_align
from cv_testing.ops import assert_matches_oracle


class TestCpuIsa:
    def test_the_best_is_used_unless_forced(self) -> None:
        assert _load.available_cpu_isas()[0] == "baseline"
        before = _load.cpu_isa()
        with _load.forced_cpu_isa("baseline"):
            assert _load.cpu_isa() == "baseline"
        assert _load.cpu_isa() == before

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(ValueError, match="isa must be one of"), _load.forced_cpu_isa("sse9"):  # type: ignore[arg-type]
            pass

    @pytest.mark.parametrize(("wanted", "index"), [("baseline", 0), ("nonsense", -1)])
    def test_environment_variable_can_only_lower_it(self, wanted: str, index: int) -> None:
        code = "from cv.ops import _load; print(_load.cpu_isa())"
        env = {**os.environ, "CV_OPS_CPU_ISA": wanted}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == _load.available_cpu_isas()[index]


class TestRegistration:
    def test_schemas_with_defaults_are_refused(self) -> None:
        with pytest.raises(ValueError, match="neither defaults nor keyword-only"):
            _registration.register(torch.ops.aten.add.Tensor, fake=lambda *a: None)

    def test_schemas_with_a_number_before_a_tensor_are_refused(self) -> None:
        with torch.library._scoped_library("cv_test", "FRAGMENT") as library:
            library.define("scale(float factor, Tensor x) -> Tensor")
            with pytest.raises(ValueError, match="tensors before numbers"):
                _registration.register(torch.ops.cv_test.scale.default, fake=lambda *a: None)

    @pytest.mark.parametrize("through_dispatcher", [False, True])
    def test_what_only_the_backward_needs_has_no_gradient(self, through_dispatcher: bool) -> None:
        x, rois = torch.rand(1, 1, 4, 4, requires_grad=True), torch.tensor([[0.0, 0, 0, 3, 3]])
        module = sys.modules["cv.ops.roi_pool"]
        call = module._op if through_dispatcher else module._call
        out, argmax = call(x, rois, 1.0, 1, 1)
        assert out.requires_grad
        assert not argmax.requires_grad if through_dispatcher else argmax is None
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.flatten().argmax() == x.detach().flatten().argmax()
        assert x.grad.sum() == 1

    def test_a_library_without_the_operator_is_named_as_the_cause(self) -> None:
        with pytest.raises(ImportError, match=r"has no operator 'later': .*build cv-ops again"):
            _load.operator("later")

    @pytest.mark.parametrize(
        ("gradients", "got"),
        [(lambda g: (g,), "got 1$"), (lambda g: (g, None, None), "got 3$"), (lambda g: g, "got a Tensor$")],
    )
    def test_a_backward_returns_one_gradient_per_argument(
        self, gradients: Callable[[torch.Tensor], Any], got: str
    ) -> None:
        with torch.library._scoped_library("cv_test", "FRAGMENT") as library:
            library.define("scale(Tensor x, float factor) -> Tensor")
            library.impl("scale", lambda x, factor: x * factor, "CPU")
            op = torch.ops.cv_test.scale.default
            formula, eager_formula = _registration._autograd_formulas(
                op, "scale", _registration._save_nothing, lambda ctx, g: gradients(g), False
            )
            library.impl("scale", _registration._autograd_kernel(op, formula), "Autograd", with_keyset=True)
            for call, numbers in ((op, 3.0), (_registration._apply_of(eager_formula), (3.0,))):
                out = call(torch.ones(2, requires_grad=True), numbers)
                with pytest.raises(TypeError, match="backward of scale must return a tuple of 2.*" + got):
                    out.sum().backward()

    def test_every_operator_has_a_fake_and_no_defaults(self) -> None:
        names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("cv::")]
        assert len(names) > 5
        for name in names:
            overload = getattr(torch.ops.cv, name.removeprefix("cv::")).default
            assert not any(a.has_default_value() or a.kwarg_only for a in overload._schema.arguments), name
            assert torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None, name

    def test_bad_arguments_are_named_where_no_kernel_runs(self) -> None:
        pixels, rois = torch.zeros(1, 2, 8, 8), torch.zeros(3, 4)
        with pytest.raises(ValueError, match=r"rois must have shape \(K, 5\), got \(3, 4\)"):
            roi_align(pixels.to("meta"), rois.to("meta"), 2)
        with FakeTensorMode() as mode, pytest.raises(ValueError, match=r"rois must have shape"):
            roi_align(mode.from_tensor(pixels), mode.from_tensor(rois), 2)

    def test_an_error_that_is_not_the_arguments_fault_stays(self) -> None:
        with pytest.raises(RuntimeError, match="but input has 1 images"):
            roi_align(torch.zeros(1, 2, 8, 8), torch.full((1, 5), 7.0), 2)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
    def test_a_trace_shows_the_operator(self) -> None:
        rois = torch.tensor([[0.0, 1, 1, 5, 5]])
        for needs_grad in (False, True):
            pixels = torch.rand(1, 2, 8, 8, requires_grad=needs_grad)
            traced = torch.jit.trace(lambda x: roi_align(x, rois, 2), (pixels,), check_trace=False)
            assert "cv::roi_align" in str(traced.graph)

    def test_a_dispatch_mode_sees_the_operator(self) -> None:
        class Seen(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                names.append(str(func))
                return func(*args, **(kwargs or {}))

        rois = torch.tensor([[0.0, 1, 1, 5, 5]])
        for needs_grad, inference in ((False, False), (True, False), (False, True)):
            names: list[str] = []
            with Seen(), torch.inference_mode(inference):
                roi_align(torch.rand(1, 2, 8, 8, requires_grad=needs_grad), rois, 2)
            assert "cv.roi_align.default" in names

    def test_a_function_mode_sees_the_operator(self) -> None:
        class Seen(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                names.append(str(func))
                return func(*args, **(kwargs or {}))

        pixels, rois = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]])
        for needs_grad, inference in ((False, False), (True, False), (False, True)):
            names: list[str] = []
            with Seen(), torch.inference_mode(inference):
                roi_align(pixels.clone().requires_grad_(needs_grad), rois, 2)
            assert "cv.roi_align.default" in names

    def test_every_way_to_call_gives_the_same_gradients(self) -> None:
        rois = torch.tensor([[0.0, 1, 1, 5, 5]])
        pixels = torch.nn.Parameter(torch.rand(1, 2, 8, 8))

        class Marked(torch.Tensor):
            pass

        below = torch.ops.cv.roi_align.default
        calls = [
            lambda: below(pixels, rois, 1.0, 2, 2, 0, True),
            lambda: roi_align(pixels, rois, 2),
            lambda: roi_align(pixels.as_subclass(Marked), rois, 2),
            lambda: torch.utils.checkpoint.checkpoint(roi_align, pixels, rois, 2, use_reentrant=False),
        ]
        gradients = [torch.autograd.grad(call().square().sum(), pixels)[0] for call in calls]
        for gradient in gradients[1:]:
            assert torch.equal(gradient, gradients[0])
        with torch.no_grad():
            assert not roi_align(pixels, rois, 2).requires_grad

    @pytest.mark.skipif(has_cuda, reason="the CUDA half is loaded")
    def test_cuda_tensors_are_refused_with_the_reason(self) -> None:
        with pytest.raises(
            RuntimeError, match="nms: got a CUDA tensor, but the CUDA half of cv-ops is not loaded"
        ):
            _registration._refuse_cuda("nms")(torch.zeros(0, 4))
        assert torch._C._dispatch_has_kernel_for_dispatch_key("cv::nms", "CUDA")


def test_import_is_quiet_and_starts_no_cuda() -> None:
    code = "import cv.ops, torch; assert not torch.cuda.is_initialized()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == ""
    assert done.stderr == ""


def test_an_oracle_test_without_gradients_is_refused() -> None:
    with pytest.raises(AssertionError, match="no argument requires grad"):
        assert_matches_oracle(torch.abs, torch.abs, (torch.ones(2),), dtype=torch.float32, backward=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: np.flip(np.flip(a, 0).copy(), 0),
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.broadcast_to(a, a.shape),
        np.asfortranarray,
    ],
    ids=["backward strides", "other byte order", "read-only", "by columns"],
)
def test_arrays_of_any_layout_are_taken(spoil):
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]], np.float32)
    scores = np.array([0.7, 0.9, 0.8], np.float32)
    dets = np.concatenate([boxes, scores[:, None]], 1)
    assert ops.nms(spoil(boxes), spoil(scores), 0.5)[1].tolist() == [1, 2]
    assert ops.soft_nms(spoil(boxes), spoil(scores), 0.5)[1].tolist() == [1, 2, 0]
    assert [g.tolist() for g in ops.nms_match(spoil(dets), 0.5)] == [[1, 0], [2]]
    assert ops.nms_rotated(spoil(dets), spoil(scores), 0.5, spoil(np.array([0, 0, 1])))[0].shape[1] == 6
    label = np.array([[1, 0, 0], [0, 0, 2]], np.int32)
    masks = np.ones((2, 2, 3), np.uint8)
    expected = ops.contour_expand(masks, label, 1, 3)
    np.testing.assert_array_equal(ops.contour_expand(spoil(masks), spoil(label), 1, 3), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.active_rotated_filter(torch.zeros(1, 1, 1, 1, 1), x),
        lambda x: ops.batched_nms(x, x, x, {"iou_threshold": 0.5}),
        lambda x: ops.bbox_overlaps(x, x),
        lambda x: ops.box_iou_quadri(x, x),
        lambda x: ops.box_iou_rotated(x, x),
        lambda x: ops.chamfer_distance(torch.zeros(1, 1, 2), x),
        lambda x: ops.convex_giou(x, x),
        lambda x: ops.convex_iou(torch.zeros(1, 18), x),
        lambda x: ops.corner_pool(x, "top"),
        lambda x: ops.CrissCrossAttention(2)(x),
        lambda x: ops.DeformConv2d(2, 2, 3)(x, x),
        lambda x: ops.min_area_polygons(x),
        lambda x: ops.points_in_polygons(torch.zeros(1, 2), x),
        lambda x: ops.psa_mask(x, "collect"),
        lambda x: ops.SAConv2d(2, 2, 3, use_deform=True)(x),
        lambda x: ops.point_sample(x, x),
        lambda x: ops.riroi_align_rotated(torch.zeros(1, 8, 2, 2), x, 2, 1.0),
        lambda x: ops.rotated_feature_align(torch.zeros(1, 1, 1, 1), x),
        lambda x: ops.sigmoid_focal_loss(x, x),
        lambda x: ops.softmax_focal_loss(torch.zeros(1, 2), x),
        lambda x: ops.SumCell(2, 2)(x, x),
        lambda x: ops.SyncBatchNorm(2)(x),
        lambda x: ops.tin_shift(torch.zeros(1, 1, 1, 1), x),
    ],
)
def test_what_is_no_tensor_is_named(call):
    for value in ([1.0], None, np.zeros(2)):
        with pytest.raises(TypeError, match=r"(must be|of \w+ must be) a tensor, got"):
            call(value)
