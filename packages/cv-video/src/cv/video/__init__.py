"""Read, write and edit videos; optical flow."""

from .cache import Cache
from .decoders import VideoError
from .ffmpeg import FFmpegError, concat_video, convert_video, cut_video, resize_video
from .frames import frames2video
from .optflow import (
    dequantize_flow,
    flow_from_bytes,
    flowread,
    flowwrite,
    quantize_flow,
    sparse_flow_from_bytes,
)
from .reader import VideoReader
from .warp import flow_warp

__all__ = [
    # reading
    "VideoReader",
    "VideoError",
    "Cache",
    # frames
    "frames2video",
    # editing
    "convert_video",
    "resize_video",
    "cut_video",
    "concat_video",
    "FFmpegError",
    # optical flow
    "flowread",
    "flowwrite",
    "quantize_flow",
    "dequantize_flow",
    "flow_warp",
    "flow_from_bytes",
    "sparse_flow_from_bytes",
]
