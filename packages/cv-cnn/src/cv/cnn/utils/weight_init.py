"""The documented sub-path of the initialisers; they live in :mod:`cv.cnn.init`."""

from cv.cnn.init import *  # noqa: F403
from cv.cnn.init import __all__ as __all__
