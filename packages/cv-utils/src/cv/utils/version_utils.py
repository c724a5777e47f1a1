"""Versions as tuples that compare, and the git hash of a checkout."""

from __future__ import annotations

import os
import re
from types import NoneType

from cv.utils.errors import UsageError

__all__ = ["digit_version", "get_git_hash", "parse_version_info"]

# PEP 440, appendix B, without the epoch (these tuples have no place for one).
_VERSION = r"""\s*v?
    (?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>[0-9]+)?)?
    (?:-(?P<post_n1>[0-9]+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_n2>[0-9]+)?)?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_n>[0-9]+)?)?
    (?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?\s*"""
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_STAGE_ORDER = {"dev": -4, "a": -3, "b": -2, "rc": -1, "": 0, "post": 1}


def digit_version(version_str: str, length: int = 4) -> tuple[int, ...]:
    """Turn a version into a tuple of ints that compares as versions do.

    Args:
        version_str: A version after PEP 440; a leading ``v`` is allowed, the local part (``+cu118``) is
            ignored.
        length: Number of release numbers; fewer are filled up with zeros, more are cut off.

    Returns:
        ``length`` release numbers, then the stage (dev -4, a -3, b -2, rc -1, release 0, post 1) and its
        number.

    Raises:
        UsageError: This is not a version. (It is an ``AssertionError`` and a ``ValueError``.)

    Example:
        >>> digit_version("1.13.0rc1+cu117")
        (1, 13, 0, 0, -1, 1)
        >>> digit_version("2.9") < digit_version("2.10")
        True
    """
    release, stage, number = _parse(version_str)
    release = release[:length] + [0] * (length - len(release))
    return (*release, _STAGE_ORDER[stage], number)


def parse_version_info(version_str: str, length: int = 4) -> tuple[int | str, ...]:
    """Split a version into its release numbers, its stage by name, and the stage's number.

    Args:
        version_str: A version after PEP 440.
        length: The greatest number of release numbers; more are cut off.

    Returns:
        ``(1, 3, 15, 0, 0, 0)`` for 1.3.15 and ``(1, 3, 0, 0, "rc", 1)`` for 1.3.0rc1: ``length`` release
        numbers, then ``"dev"``, ``"a"``, ``"b"``, ``"rc"``, ``"post"`` or 0, and the number.

    Raises:
        UsageError: This is not a version.
    """
    release, stage, number = _parse(version_str)
    release = release[:length] + [0] * (length - len(release))
    return (*release, stage or 0, number)


def get_git_hash(fallback: str = "unknown", digits: int | None = None) -> str:
    """Get the hash of the commit that is checked out in the current folder.

    Args:
        fallback: What to return where there is no git or no repository.
        digits: How many digits of the hash to return. Default: all.

    Returns:
        The hash.

    Raises:
        TypeError: ``digits`` is neither None nor an int.
    """
    if not isinstance(digits, (int, NoneType)):
        raise TypeError(f"digits must be None or an integer, got {type(digits)}")
    try:
        commit = _minimal_ext_cmd(["git", "rev-parse", "HEAD"]).strip().decode("ascii")
    except OSError:
        return fallback
    return commit[:digits] if commit else fallback


def _parse(version: object) -> tuple[list[int], str, int]:
    """Release numbers, stage ("" for a release) and number of the stage."""
    if not isinstance(version, str):
        raise UsageError(f"version_str must be a str, got {type(version)}")
    match = re.fullmatch(_VERSION, version, re.VERBOSE | re.IGNORECASE)
    if match is None:
        raise UsageError(f"version_str must be a version such as '1.3.0rc1', got {version!r}")
    release = [int(part) for part in match["release"].split(".")]
    if match["pre"]:
        stage = match["pre"].lower()
        return release, _PRE.get(stage, stage), int(match["pre_n"] or 0)
    if match["post"] or match["post_n1"]:
        return release, "post", int(match["post_n1"] or match["post_n2"] or 0)
    if match["dev"]:
        return release, "dev", int(match["dev_n"] or 0)
    return release, "", 0


def _minimal_ext_cmd(cmd: list[str]) -> bytes:
    """The output of a command that is run in the C locale, nothing if it fails; messages are dropped."""
    import subprocess

    env = {**os.environ, "LANGUAGE": "C", "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, check=False)
    return done.stdout if done.returncode == 0 else b""
