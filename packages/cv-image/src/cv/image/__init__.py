"""Read, write and transform images held in NumPy arrays."""

from cv.image.errors import ImageDecodeError, ImageTooLargeError
from cv.image.io import imfrombytes, imread, imwrite, supported_backends, use_backend

__all__ = [
    "imread",
    "imfrombytes",
    "imwrite",
    "use_backend",
    "supported_backends",
    "ImageDecodeError",
    "ImageTooLargeError",
]
