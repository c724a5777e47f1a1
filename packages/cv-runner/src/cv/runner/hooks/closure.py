"""Hooks that are one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cv.runner.hooks.hook import HOOKS, Hook


@HOOKS.register_module()
class ClosureHook(Hook):
    """Calls a function at one stage.

    Args:
        fn_name: the stage, such as ``'after_train_epoch'``.
        fn: called with the runner.

    Raises:
        AssertionError: no such stage, or ``fn`` is not callable.
    """

    def __init__(self, fn_name: str, fn: Callable[..., Any]) -> None:
        if not hasattr(self, fn_name):
            raise AssertionError(f"fn_name must be the name of a stage of Hook, got {fn_name!r}")
        if not callable(fn):
            raise AssertionError(f"fn must be callable, got {type(fn).__name__}")
        setattr(self, fn_name, fn)
