"""Importing brings numpy and OpenCV, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import sys, json, warnings
warnings.simplefilter("error")
import numpy, cv2
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("module", ["cv.image", "cv.arraymisc", "cv.visualization"])
def test_import_brings_nothing_else(module):
    run = subprocess.run(
        [sys.executable, "-I", "-c", CODE.format(module=module)], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    foreign = {name for name in loaded if name not in sys.stdlib_module_names}
    assert foreign <= {"cv", "numpy"}  # more of NumPy: its lazy parts
    assert not any(
        name.startswith("cv.") and name.split(".")[1] not in ("image", "arraymisc", "visualization")
        for name in json.loads(run.stdout)
    )
