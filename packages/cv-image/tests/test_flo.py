from __future__ import annotations

import struct

import numpy as np
import pytest

from cv.image import ImageDecodeError
from cv.image.codecs.flo import read_flo, write_flo


def test_layout_is_that_of_middlebury():
    flow = np.array([[[1.5, -2.0], [3.0, 4.0], [0.0, 1e10]]])
    expected = struct.pack("<fii6f", 202021.25, 3, 1, 1.5, -2.0, 3.0, 4.0, 0.0, 1e10)
    assert write_flo(flow) == expected
    np.testing.assert_array_equal(read_flo(expected), flow.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, ">f4"])
def test_round_trip(dtype):
    flow = np.random.default_rng(0).integers(-100, 100, (5, 8, 2)).astype(dtype)
    for given in (flow, flow[::-1], flow[:, ::2], np.asfortranarray(flow)):
        back = read_flo(write_flo(given))
        assert back.dtype == np.float32
        assert back.flags.writeable
        np.testing.assert_array_equal(back, given)


def test_nan_and_infinity_survive():
    flow = np.array([[[np.nan, np.inf], [-np.inf, -0.0]]], np.float32)
    assert read_flo(write_flo(flow)).tobytes() == flow.tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"PIEH\x01\0\0\0", "8 bytes"),
        (struct.pack("<fii2f", 1.0, 1, 1, 0, 0), "begin with b'PIEH'"),
        (struct.pack("<4sii", b"PIEH", 0, 1), "0 x 1"),
        (struct.pack("<4sii", b"PIEH", -1, 1), "-1 x 1"),
        (struct.pack("<4sii", b"PIEH", 100000, 100000), "100000 x 100000"),
        (struct.pack("<4sii", b"PIEH", 99999, 99999), "truncated"),
        (struct.pack("<4siif", b"PIEH", 1, 1, 0), "truncated"),
        (struct.pack("<4sii3f", b"PIEH", 1, 1, 0, 0, 0), "corrupt"),
    ],
)
def test_what_is_not_a_flow_file_is_refused(data, reason):
    with pytest.raises(ImageDecodeError, match=reason) as raised:
        read_flo(data)
    assert isinstance(raised.value, OSError)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 4, 5), (0, 5, 2)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match="flow must have"):
        write_flo(np.zeros(shape))


def test_wrong_type():
    with pytest.raises(TypeError, match="list"):
        write_flo([[1, 2]])
    with pytest.raises(TypeError, match="complex"):
        write_flo(np.zeros((1, 1, 2), complex))
