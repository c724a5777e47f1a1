"""The errors of config files. Both are ``ValueError`` and say the file, the line and the text of the line."""

from __future__ import annotations

__all__ = ["ConfigError", "UntrustedCodeError"]

TRUST_HINT = (
    "Config files are read without running them. If you trust this file and want it run as Python, "
    "use Config.fromfile(..., trust=True) or set the environment variable CV_CONFIG_TRUST=1."
)


class ConfigError(ValueError):
    """A config file that cannot be read.

    Attributes:
        filename: The file, or a name for the text it came from.
        lineno: The line, counted from 1, where it is known.
    """

    def __init__(
        self,
        reason: str,
        *,
        filename: str | None = None,
        lineno: int | None = None,
        line: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = filename or ""
        if lineno is not None:
            place += f", line {lineno}"
        text = f"{place}: {reason}" if place else reason
        if line and line.strip():
            text += f"\n    {line.strip()[:200]}"
        if hint:
            text += f"\n{hint}"
        super().__init__(text)
        self.filename = filename
        self.lineno = lineno


class UntrustedCodeError(ConfigError):
    """A ``.py`` config that is more than data: it would have to be run, or takes too much work."""
