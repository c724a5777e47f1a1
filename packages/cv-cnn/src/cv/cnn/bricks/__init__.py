"""Layers, blocks, and the builders that make them from configs."""
