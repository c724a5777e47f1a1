"""Quantise and dequantise arrays."""

from cv.arraymisc.quantization import dequantize, quantize

__all__ = ["quantize", "dequantize"]
