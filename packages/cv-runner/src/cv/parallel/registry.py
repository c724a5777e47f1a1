"""Modules that wrap another one for parallel training.

The registry itself is in cv-cnn: loading a checkpoint must see through the wrappers that users register.
"""

from __future__ import annotations

from cv.cnn.module_wrapper import MODULE_WRAPPERS, is_module_wrapper, unwrap

__all__ = ["MODULE_WRAPPERS", "is_module_wrapper", "unwrap"]
