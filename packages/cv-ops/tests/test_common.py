"""What all operators share: instruction-set choice, registration, refusal of CUDA tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cv.ops import _load, _registration, has_cuda
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
            kernel = _registration._autograd_kernel(
                torch.ops.cv_test.scale.default,
                "scale",
                _registration._save_nothing,
                lambda ctx, g: gradients(g),
            )
            library.impl("scale", kernel, "Autograd", with_keyset=True)
            out = torch.ops.cv_test.scale(torch.ones(2, requires_grad=True), 3.0)
            with pytest.raises(TypeError, match="backward of scale must return a tuple of 2.*" + got):
                out.sum().backward()

    def test_every_operator_has_a_fake_and_no_defaults(self) -> None:
        names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("cv::")]
        assert len(names) > 5
        for name in names:
            overload = getattr(torch.ops.cv, name.removeprefix("cv::")).default
            assert not any(a.has_default_value() or a.kwarg_only for a in overload._schema.arguments), name
            assert torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None, name

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
