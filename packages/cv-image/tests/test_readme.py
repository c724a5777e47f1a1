"""The examples of the README run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cv.image import imread, imwrite
from cv.image.codecs import codec
from cv_testing.images import smooth_image

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example(number, tmp_path, monkeypatch):
    if "turbojpeg" in BLOCKS[number]:
        try:
            codec("turbojpeg").require()
        except ImportError as error:
            pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    imwrite(smooth_image(240, 320), "photo.jpg")
    names: dict[str, object] = {"np": np, "image": __import__("cv.image").image}
    exec(BLOCKS[number], names)
    made = [path for path in (tmp_path / "out/photo.png", tmp_path / "drawn.png") if path.exists()]
    assert all(imread(path).shape == (240, 320, 3) for path in made)
    assert made or isinstance(names["x"], np.ndarray)


def test_there_are_examples():
    assert len(BLOCKS) == 3
