"""Configs, registries, logging, progress and small helpers."""
