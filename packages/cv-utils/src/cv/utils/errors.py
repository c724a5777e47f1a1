"""Exception and warning classes shared by the modules of cv.utils."""

from __future__ import annotations

__all__ = ["CvDeprecationWarning", "UsageError", "WorkerError"]


class UsageError(AssertionError, ValueError):
    """A bad argument, where code written for mmcv 1.x expects ``AssertionError``.

    It is also a ``ValueError``, which is what new code should catch, and it is raised explicitly, so it
    works under ``python -O``.
    """


class CvDeprecationWarning(DeprecationWarning, UserWarning):
    """A documented but outdated way of calling.

    mmcv 1.x warned with ``UserWarning`` in some releases and ``DeprecationWarning`` in others; filters and
    tests written for either catch this one.
    """


class WorkerError(RuntimeError):
    """A worker process died, or raised an exception that cannot be sent to its parent."""
