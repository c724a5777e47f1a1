"""How frames get out of a video file: through OpenCV, or through PyAV where it is installed."""

from .base import Decoder, VideoError, open_decoder

__all__ = ["Decoder", "VideoError", "open_decoder"]
