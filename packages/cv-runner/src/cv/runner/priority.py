"""Hook priorities: a lower number is called earlier."""

from __future__ import annotations

from enum import Enum


class Priority(Enum):
    """Hook priority levels; any int from 0 to 100 may be used as well.

    ============ =====
    Level        Value
    ============ =====
    HIGHEST      0
    VERY_HIGH    10
    HIGH         30
    ABOVE_NORMAL 40
    NORMAL       50
    BELOW_NORMAL 60
    LOW          70
    VERY_LOW     90
    LOWEST       100
    ============ =====
    """

    HIGHEST = 0
    VERY_HIGH = 10
    HIGH = 30
    ABOVE_NORMAL = 40
    NORMAL = 50
    BELOW_NORMAL = 60
    LOW = 70
    VERY_LOW = 90
    LOWEST = 100


def get_priority(priority: int | str | Priority) -> int:
    """The number of a priority.

    Args:
        priority: a number from 0 to 100, the name of a level in any case, or a :class:`Priority`.

    Raises:
        ValueError: a number outside 0 to 100.
        KeyError: an unknown name.
        TypeError: anything else.
    """
    if isinstance(priority, int) and not isinstance(priority, bool):
        if not 0 <= priority <= 100:
            raise ValueError(f"priority must be between 0 and 100, got {priority}")
        return priority
    if isinstance(priority, Priority):
        return priority.value
    if isinstance(priority, str):
        try:
            return Priority[priority.upper()].value
        except KeyError:
            names = ", ".join(level.name for level in Priority)
            raise KeyError(f"priority must be one of {names}, got {priority!r}") from None
    raise TypeError(f"priority must be an int, a str or a Priority, got {type(priority).__name__}")


def priority_name(value: int) -> str:
    """The name of the level with this number, or the number itself where it is between levels."""
    try:
        return Priority(value).name
    except ValueError:
        return str(value)
