"""The layers of :mod:`cv.cnn` under their old place: each warns when one is constructed."""

from __future__ import annotations

import warnings
from typing import Any

from cv.cnn.bricks.wrappers import Conv2d, ConvTranspose2d, Linear, MaxPool2d


class Conv2d_deprecated(Conv2d):  # noqa: N801 - the documented name
    """:class:`cv.cnn.Conv2d`, deprecated here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn("Conv2d")


class ConvTranspose2d_deprecated(ConvTranspose2d):  # noqa: N801 - the documented name
    """:class:`cv.cnn.ConvTranspose2d`, deprecated here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn("ConvTranspose2d")


class Linear_deprecated(Linear):  # noqa: N801 - the documented name
    """:class:`cv.cnn.Linear`, deprecated here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn("Linear")


class MaxPool2d_deprecated(MaxPool2d):  # noqa: N801 - the documented name
    """:class:`cv.cnn.MaxPool2d`, deprecated here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn("MaxPool2d")


def _warn(name: str) -> None:
    warnings.warn(
        f"cv.ops.{name} is deprecated: import it from cv.cnn instead", DeprecationWarning, stacklevel=3
    )
