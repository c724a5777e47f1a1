"""What reading an image can raise beside the operating system's own errors."""

from __future__ import annotations


class ImageDecodeError(OSError, ValueError):
    """The bytes are not an image that can be decoded: empty, truncated, corrupt or of an unknown kind.

    It is an `OSError` and a `ValueError`, so that either `except` clause catches it.
    """


class ImageTooLargeError(ImageDecodeError):
    """The image would decode to more pixels than allowed (a "decompression bomb")."""
