"""What the installed distributions hold and declare."""

import importlib.metadata
import re

import pytest

DISTRIBUTIONS = ("cv-fileio", "cv-utils", "cv-image", "cv-video", "cv-cnn", "cv-runner", "cv-ops")
GROUPS = sorted(group for group in importlib.metadata.entry_points().groups if group.startswith("cv."))
ENTRY_POINTS = [entry for group in GROUPS for entry in importlib.metadata.entry_points(group=group)]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_distribution_owns_the_namespace(name: str) -> None:
    files = importlib.metadata.files(name) or []
    assert files
    assert "cv/__init__.py" not in {str(path) for path in files}
    assert "cv.py" not in {str(path) for path in files}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_nothing_depends_on_cv_ops_and_pins_are_loose(name: str) -> None:
    required = importlib.metadata.requires(name) or []
    assert not any(re.match(r"cv[-_]ops\b", line) for line in required)
    assert not any("==" in line.split(";")[0] for line in required), "a library does not pin"


def test_image_needs_three_libraries_and_nothing_of_ours() -> None:
    required = importlib.metadata.requires("cv-image") or []
    hard = {re.split(r"[<>=!~ ;\[]", line)[0].lower() for line in required if "extra ==" not in line}
    assert hard == {"numpy", "opencv-python-headless", "pillow"}


@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=str)
def test_every_entry_point_loads(entry: importlib.metadata.EntryPoint) -> None:
    assert callable(entry.load())
