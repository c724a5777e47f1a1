"""What the compiled half of cv-ops was built with and what it uses here."""

from __future__ import annotations

from ._load import _cpu_library, _cuda_library, cpu_isa, cuda_error


def get_compiler_version() -> str:
    """The C++ compiler of the CPU library, e.g. ``"GCC 12.2"``."""
    text: bytes = _cpu_library.cv_ops_compiler()
    return text.decode()


def get_compiling_cuda_version() -> str:
    """The CUDA compiler of the CUDA library, e.g. ``"13.0"``, or ``"not available"``."""
    if _cuda_library is None:
        return "not available"
    text: bytes = _cuda_library.cv_ops_cuda_compiler()
    return text.decode()


def get_onnxruntime_op_path() -> str:
    """An empty string: cv-ops has no library of ONNX Runtime operators.

    Code written for mmcv 1.x takes an empty path for "not built" and does not register any.
    """
    return ""


def collect_env() -> dict[str, str]:
    """Lines for ``cv.utils.collect_env``, which finds this function through an entry point."""
    target: bytes = _cpu_library.cv_ops_torch_target()
    lines = {
        "cv-ops compiler": get_compiler_version(),
        "cv-ops CUDA compiler": get_compiling_cuda_version(),
        "cv-ops needs torch": f">= {target.decode()}",
        "cv-ops CPU instruction set": cpu_isa(),
    }
    if _cuda_library is None:
        lines["cv-ops without CUDA because"] = str(cuda_error)
    else:
        architectures: bytes = _cuda_library.cv_ops_cuda_architectures()
        lines["cv-ops CUDA architectures"] = architectures.decode()
    return lines
