"""Fixtures of the cv-fileio tests."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder of an ordinary user, as whom the test runs: root may write everywhere."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX users")
    folder = Path(tempfile.mkdtemp(prefix="cv-fileio-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)
