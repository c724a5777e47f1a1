"""``is_module_wrapper`` under the path that existing code imports it from."""

from cv.parallel.registry import is_module_wrapper

__all__ = ["is_module_wrapper"]
