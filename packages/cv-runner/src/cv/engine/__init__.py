"""Run models over data loaders and collect the results."""

from cv.engine.test import collect_results_cpu, collect_results_gpu, multi_gpu_test, single_gpu_test

__all__ = ["single_gpu_test", "multi_gpu_test", "collect_results_cpu", "collect_results_gpu"]
