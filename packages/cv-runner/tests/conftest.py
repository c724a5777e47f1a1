"""Lets tests import ``runner_toy``, which also runs as a script of its own."""

import multiprocessing
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _quiet_live_line(monkeypatch):
    monkeypatch.setenv("CV_LIVE_LINE", "0")


@pytest.fixture(scope="session")
def server():
    """Starts processes from one that has torch imported already: a tenth of a second each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "cv.runner", "cv.engine"])
    return context
