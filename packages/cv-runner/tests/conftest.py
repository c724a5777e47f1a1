"""Lets tests import ``runner_toy``, which also runs as a script of its own."""

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _quiet_live_line(monkeypatch):
    monkeypatch.setenv("CV_LIVE_LINE", "0")


@pytest.fixture
def logger():
    """A logger that prints nothing; caplog sees its records."""
    return logging.getLogger("cv.runner.tests")
