"""The conformance page says what its data say, and the data know every operator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cv_testing import conformance

pytest.importorskip("cv.ops")
DOCS = Path(__file__).parents[1] / "docs"
DATA = json.loads((DOCS / "conformance.json").read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_data() -> None:
    assert (DOCS / "conformance.md").read_text(encoding="utf-8") == conformance.render(DATA)


def test_every_operator_ran_and_nothing_failed() -> None:
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("cv::")]
    operators = {name.removeprefix("cv::").partition(".")[0] for name in names if "_backward" not in name}
    assert len(operators) > 20
    assert operators <= DATA["cells"]["cpu"].keys()
    failed = [
        (device, name, check, dtype)
        for device, rows in DATA["cells"].items()
        for name, checks in rows.items()
        for check, dtypes in checks.items()
        for dtype, passed in dtypes.items()
        if not passed
    ]
    assert not failed
