"""Quantise and dequantise arrays."""
