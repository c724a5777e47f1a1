"""Fixtures of the cv-video tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cv_testing.numbered_videos import MATRIX


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a video of the matrix, which is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            partial = path.with_name(f"partial-{name}")
            MATRIX[name][0](partial)
            partial.rename(path)
        return path

    return make
