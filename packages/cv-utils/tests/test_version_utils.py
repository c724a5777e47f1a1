"""Versions and git hashes."""

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from cv.utils import UsageError, digit_version, get_git_hash, parse_version_info, version_utils


@pytest.mark.parametrize(
    ("version", "digits"),
    [
        ("0.2.16", (0, 2, 16, 0, 0, 0)),
        ("1.2.3", (1, 2, 3, 0, 0, 0)),
        ("1.2.3rc0", (1, 2, 3, 0, -1, 0)),
        ("1.2.3rc1", (1, 2, 3, 0, -1, 1)),
        ("1.0rc0", (1, 0, 0, 0, -1, 0)),
        ("1.0", (1, 0, 0, 0, 0, 0)),
        ("v1", (1, 0, 0, 0, 0, 0)),
        ("1.0.post1", (1, 0, 0, 0, 1, 1)),
        ("1.0.dev3", (1, 0, 0, 0, -4, 3)),
        ("1.0b2", (1, 0, 0, 0, -2, 2)),
        ("1.0.alpha", (1, 0, 0, 0, -3, 0)),
        ("1.13.0a0+git9f8e", (1, 13, 0, 0, -3, 0)),
        ("2.13.0.dev20260101+cu128", (2, 13, 0, 0, -4, 20260101)),
        ("1.0.0-1", (1, 0, 0, 0, 1, 1)),
        ("1.2.3.4.5", (1, 2, 3, 4, 0, 0)),
        (" V1.0-RC.1 ", (1, 0, 0, 0, -1, 1)),
    ],
)
def test_digit_version(version: str, digits: tuple[int, ...]) -> None:
    assert digit_version(version) == digits


def test_length() -> None:
    assert digit_version("1.2.3", length=2) == (1, 2, 0, 0)
    assert digit_version("1.2", length=5) == (1, 2, 0, 0, 0, 0, 0)


versions = st.builds(
    lambda release, suffix, n, local: (
        ".".join(map(str, release)) + (suffix + str(n) if suffix else "") + local
    ),
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.sampled_from(["", "a", "b", "rc", ".post", ".dev", "-alpha", "_BETA.", "-c", ".preview", "-r", "-"]),
    st.integers(0, 20),
    st.sampled_from(["", "+cpu", "+cu118.x"]),
)


@given(versions, versions)
def test_order_is_that_of_packaging(a: str, b: str) -> None:
    """Against the reference implementation of PEP 440, local parts aside."""
    x, y = Version(Version(a).public), Version(Version(b).public)
    assert (digit_version(a) < digit_version(b)) == (x < y)
    assert (digit_version(a) == digit_version(b)) == (x == y)


def test_stages_are_ordered() -> None:
    ordered = ["1.0.dev9", "1.0a1", "1.0b0", "1.0rc0", "1.0rc1", "1.0", "1.0.post0", "1.0.1"]
    for low, high in itertools.pairwise(ordered):
        assert digit_version(low) < digit_version(high)


@pytest.mark.parametrize(
    "version", ["", "parrots", "1.x", "1..2", "a1", "1!2.0", "1.0+", "1.0rc1rc2", None, 1.0]
)
def test_garbage(version: Any) -> None:
    for function in (digit_version, parse_version_info):
        with pytest.raises(AssertionError, match="version_str must be"):
            function(version)
        with pytest.raises(UsageError):
            function(version)


@pytest.mark.parametrize(
    ("version", "info"),
    [
        ("1.3.15", (1, 3, 15, 0, 0, 0)),
        ("1.3.0rc1", (1, 3, 0, 0, "rc", 1)),
        ("1.3.post2", (1, 3, 0, 0, "post", 2)),
        ("1.3.dev0", (1, 3, 0, 0, "dev", 0)),
    ],
)
def test_parse_version_info(version: str, info: tuple[int | str, ...]) -> None:
    assert parse_version_info(version) == info


def test_git_hash_of_a_real_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert get_git_hash() == "unknown"  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "log", "-1", "--format=%H"], check=True, capture_output=True, text=True)
    assert get_git_hash() == head.stdout.strip()
    assert get_git_hash(digits=6) == head.stdout[:6]
    assert get_git_hash(digits=100) == head.stdout.strip()


def test_git_hash_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert get_git_hash() == "unknown"
    assert get_git_hash(fallback="n/a", digits=2) == "n/a"


def test_git_hash_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert get_git_hash(fallback="none") == "none"
    monkeypatch.setattr(
        version_utils, "_minimal_ext_cmd", lambda cmd: b"3b46d33e90c397869ad5103075838fdfc9812aa0"
    )
    assert get_git_hash(digits=6) == "3b46d3"


def test_git_hash_checks_digits() -> None:
    with pytest.raises(TypeError, match="digits must be None or an integer, got <class 'str'>"):
        get_git_hash(digits="6")  # type: ignore[arg-type]
