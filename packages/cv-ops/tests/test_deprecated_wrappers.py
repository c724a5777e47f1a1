"""The layers under their old place, and the path of a library that does not exist."""

from __future__ import annotations

import pytest
import torch

import cv.cnn
import cv.ops
from cv.ops import deprecated_wrappers
from cv.ops.info import get_onnxruntime_op_path

CASES = [
    ("Conv2d", (3, 4, 3), (2, 3, 5, 5)),
    ("ConvTranspose2d", (3, 4, 3), (2, 3, 5, 5)),
    ("Linear", (3, 4), (2, 3)),
    ("MaxPool2d", (2,), (2, 3, 6, 6)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), CASES)
def test_construction_warns_and_the_layer_is_that_of_cnn(
    name: str, arguments: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    with pytest.warns(
        DeprecationWarning, match=rf"cv\.ops\.{name} is deprecated: import it from cv\.cnn"
    ) as record:
        layer = getattr(cv.ops, name)(*arguments)
    assert record[0].filename == __file__
    assert isinstance(layer, getattr(cv.cnn, name))
    assert type(layer) is getattr(deprecated_wrappers, f"{name}_deprecated")
    new = getattr(cv.cnn, name)(*arguments)
    new.load_state_dict(layer.state_dict())
    x = torch.randn(shape)
    assert torch.equal(layer(x), new(x))


def test_there_is_no_library_for_onnxruntime() -> None:
    assert get_onnxruntime_op_path() == ""
    assert cv.ops.get_onnxruntime_op_path is get_onnxruntime_op_path
