"""Checks of arguments that several classes share; they take anything, as callers may give anything."""

from __future__ import annotations


def positive_int(name: str, value: object) -> None:
    """Raise AssertionError (the documented type) unless the value is a positive int."""
    if not isinstance(value, int) or value <= 0:
        raise AssertionError(f"{name} must be a positive int, got {value!r}")


def fraction(name: str, value: object) -> None:
    """Raise ValueError unless the value is a number from 0 to 1."""
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}")
