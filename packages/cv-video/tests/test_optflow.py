"""Flow files, quantisation and warping against slow oracles and the formats' own definitions."""

import math
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.video import (
    dequantize_flow,
    flow_from_bytes,
    flow_warp,
    flowread,
    flowwrite,
    quantize_flow,
    sparse_flow_from_bytes,
    warp,
)


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 3, (7, 10, 2)).astype(np.float32)


def middlebury(flow):
    """A .flo file after the format's description, number by number."""
    height, width = flow.shape[:2]
    content = struct.pack("<f", 202021.25) + struct.pack("<ii", width, height)
    for y in range(height):
        for x in range(width):
            content += struct.pack("<ff", *flow[y, x])
    return content


def test_flo_is_bit_compatible_both_ways(tmp_path, flow):
    path = tmp_path / "new" / "a.flo"
    flowwrite(flow, path)
    assert path.read_bytes() == middlebury(flow)
    got = flowread(str(path))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, flow)
    np.testing.assert_array_equal(flow_from_bytes(middlebury(flow)), flow)
    got[:] = 0  # the caller's own
    flowwrite(flow[::2, ::-1].astype(np.float64), path)
    np.testing.assert_array_equal(flowread(path), flow[::2, ::-1])


def test_flowread_refuses_other_things(tmp_path, flow):
    assert flowread(flow) is flow
    with pytest.raises(TypeError, match="must be an ndarray or a path, got int"):
        flowread(1)
    with pytest.raises(ValueError, match=r"must have shape \(H, W, 2\), got \(7, 10\)"):
        flowread(flow[..., 0])
    with pytest.raises(FileNotFoundError):
        flowread(tmp_path / "absent.flo")
    content = middlebury(flow)
    for broken in (b"", b"x" * 40, content[:-1], content[:11], content + b"x"):
        (tmp_path / "a.flo").write_bytes(broken)
        with pytest.raises(OSError, match=r"a\.flo"):
            flowread(tmp_path / "a.flo")
    with pytest.raises(ValueError, match=r"flow must have shape \(H, W, 2\)"):
        flowwrite(flow[..., :1], tmp_path / "b.flo")
    assert not (tmp_path / "b.flo").exists()


def test_kitti(tmp_path, flow):
    flow = np.rint(flow * 64) / 64
    flow[2, 3] = np.nan
    flow[0, 0] = 1e10
    path = tmp_path / "a.png"
    flowwrite(flow, path)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored[1, 1].tolist() == [1, flow[1, 1, 1] * 64 + 32768, flow[1, 1, 0] * 64 + 32768]
    got, valid = sparse_flow_from_bytes(path.read_bytes())
    assert (got.dtype, valid.dtype, valid.shape) == (np.float32, np.float32, (7, 10))
    assert (valid[2, 3], valid[0, 0], valid.sum()) == (0, 0, 68)
    np.testing.assert_array_equal(got[valid == 1], flow[valid == 1])
    read = flowread(path)
    assert np.isnan(read[2, 3]).all()
    np.testing.assert_array_equal(read[valid == 1], flow[valid == 1])
    for beyond in (512.0, -512.1):
        with pytest.raises(ValueError, match="must lie in"):
            flowwrite(np.full((2, 2, 2), beyond), path)
    flowwrite(np.full((2, 2, 2), -512.0), path)
    assert (flowread(path) == -512).all()


@pytest.mark.parametrize(
    "content", [b"", b"x", cv2.imencode(".png", np.zeros((3, 3), np.uint8))[1].tobytes()]
)
def test_kitti_refuses_other_things(content):
    with pytest.raises(OSError, match="16-bit PNG of three channels"):
        sparse_flow_from_bytes(content)


def quantum(value, greatest):
    value = min(max(value, -greatest), greatest) + greatest
    return min(math.floor(255 * value / (2 * greatest)), 254)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("max_val", [0.02, 0.5, 4.0])
def test_quantize_agrees_with_the_definition(flow, max_val, norm):
    flow = flow.astype(np.float64)
    dx, dy = quantize_flow(flow, max_val, norm)
    assert dx.dtype == dy.dtype == np.uint8
    for axis, got, scale in ((0, dx, 10), (1, dy, 7)):
        for place in np.ndindex(7, 10):
            value = flow[place][axis] / (scale if norm else 1)
            assert got[place] == quantum(value, max_val)


def test_dequantize_gives_the_middle_of_the_step():
    steps = np.arange(255, dtype=np.uint8).reshape(5, 51)
    got = dequantize_flow(steps, steps[::-1].copy(), max_val=2.0, denorm=False)
    want = [(step + 0.5) * 4 / 255 - 2 for step in range(255)]
    np.testing.assert_allclose(got[..., 0].ravel(), want, rtol=0, atol=1e-12)
    scaled = dequantize_flow(steps, steps, max_val=2.0)
    np.testing.assert_allclose(scaled[..., 0].ravel(), np.array(want) * 51, atol=1e-9)
    np.testing.assert_allclose(scaled[..., 1].ravel(), np.array(want) * 5, atol=1e-9)


@given(st.floats(0.01, 10), st.integers(0, 2**31))
def test_a_round_trip_is_off_by_half_a_step_at_most(max_val, seed):
    flow = np.random.default_rng(seed).uniform(-max_val, max_val, (4, 6, 2))
    got = dequantize_flow(*quantize_flow(flow, max_val, norm=False), max_val, denorm=False)
    assert np.abs(got - flow).max() <= max_val / 255 * (1 + 1e-9)


@pytest.mark.parametrize("axis", [0, 1])
def test_quantized_files(tmp_path, axis):
    y, x = np.mgrid[:32, :48]
    flow = np.stack([np.sin(x / 9) * 0.4, np.cos(y / 7) * 0.3], -1)
    path = tmp_path / "a.jpg"
    flowwrite(flow, path, True, axis, 0.5, norm=False)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == ((64, 48) if axis == 0 else (32, 96))
    got = flowread(path, True, axis, max_val=0.5, denorm=False)
    assert got.shape == flow.shape
    assert np.abs(got - flow).max() < 0.05  # JPEG
    lossless = tmp_path / "a.png"
    flowwrite(flow, lossless, quantize=True, concat_axis=axis)
    want = dequantize_flow(*quantize_flow(flow)).astype(np.float32)
    np.testing.assert_array_equal(flowread(lossless, quantize=True, concat_axis=axis), want)


def test_quantized_refusals(tmp_path, flow):
    with pytest.raises(AssertionError, match="concat_axis must be 0 or 1, got 2"):
        flowwrite(flow, tmp_path / "a.jpg", quantize=True, concat_axis=2)
    with pytest.raises(AssertionError):
        flowread(tmp_path / "a.jpg", quantize=True, concat_axis=2)
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OSError, match="must be grey"):
        flowread(tmp_path / "colour.png", quantize=True)
    cv2.imwrite(str(tmp_path / "odd.png"), np.zeros((5, 4), np.uint8))
    with pytest.raises(OSError, match="cannot be halved along axis 0"):
        flowread(tmp_path / "odd.png", quantize=True)
    with pytest.raises(ValueError, match="max_val must be positive"):
        quantize_flow(flow, 0)
    for kind in (AssertionError, ValueError):
        with pytest.raises(kind, match="one shape"):
            dequantize_flow(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def warp_slowly(img, flow, fill, mode):
    """One pixel at a time, in Python's floats."""
    height, width = img.shape[:2]
    out = np.full(img.shape, fill, img.dtype)
    for row in range(height):
        for column in range(width):
            x, y = column + float(flow[row, column, 0]), row + float(flow[row, column, 1])
            if not (0 <= x < width - 1 and 0 <= y < height - 1):
                continue
            if mode == "nearest":
                out[row, column] = img[round(y), round(x)]
                continue
            left, above = math.floor(x), math.floor(y)
            value = 0.0
            for dy, wy in ((0, 1 - (y - above)), (1, y - above)):
                for dx, wx in ((0, 1 - (x - left)), (1, x - left)):
                    value = value + wy * wx * img[above + dy, left + dx].astype(np.float64)
            out[row, column] = np.rint(value) if img.dtype.kind in "iu" else value
    return out


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("flow_type", [np.float16, np.float32, np.float64])
def test_warp_agrees_with_the_slow_oracle(mode, channels, dtype, flow_type, monkeypatch):
    monkeypatch.setattr(warp, "_STRIP", 400)  # several strips, the last one shorter
    rng = np.random.default_rng(1)
    shape = (75, 40) if channels is None else (75, 40, channels)
    img = (rng.random(shape) * 200).astype(dtype)
    flow = rng.normal(0, 4, (75, 40, 2))
    flow[3:6] = np.rint(flow[3:6])  # whole numbers
    flow[8:10] = np.rint(flow[8:10]) + 0.5  # halves
    flow[14:16] *= 1000  # mostly far outside
    flow = flow.astype(flow_type)
    flow[12, :5] = np.nan
    flow[12, 5:9] = [[np.inf, 0], [-np.inf, 0], [0, np.inf], [0, -np.inf]]
    flow[0] = flow[:, 0] = -1e-30  # just outside; and in the middle, no different from none
    flow[20] = [-1e-7, 1e-7]
    flow[-2] = flow[:, -2] = np.spacing(flow_type(-1))  # just inside, on the right and below
    if flow_type == np.float64:
        flow[30:32] = [1e12, -1e300]
    got = flow_warp(img, flow, 9, mode)
    want = warp_slowly(img, flow, 9, mode)
    assert (got.shape, got.dtype) == (img.shape, img.dtype)
    if mode == "nearest":
        np.testing.assert_array_equal(got, want)
    elif img.dtype.kind == "f":
        # A weight near 0 or 1 is off by an eps: what counts beside the value are its neighbours, below 200.
        eps = np.finfo(dtype).eps
        rtol = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, want, rtol=rtol, atol=200 * eps)
    else:  # the last bit, where a half is met in another precision
        assert np.abs(got.astype(np.int64) - want.astype(np.int64)).max() <= 1
        assert (got != want).mean() < 1e-3


def test_no_flow_is_the_identity_but_for_the_last_row_and_column():
    img = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    for mode in ("nearest", "bilinear"):
        got = flow_warp(img, np.zeros((5, 4, 2)), interpolate_mode=mode)
        np.testing.assert_array_equal(got[:-1, :-1], img[:-1, :-1])
        assert not got[-1].any()
        assert not got[:, -1].any()


def test_warp_leaves_its_input_alone_and_takes_views():
    rng = np.random.default_rng(2)
    img, flow = rng.random((20, 30, 3)), rng.normal(0, 2, (20, 30, 2)).astype(np.float32)
    before = img.copy(), flow.copy()
    got = flow_warp(img[::-1, ::2], flow[::-1, ::2], interpolate_mode="bilinear")
    np.testing.assert_array_equal(
        got, flow_warp(img[::-1, ::2].copy(), flow[::-1, ::2].copy(), interpolate_mode="bilinear")
    )
    np.testing.assert_array_equal(img, before[0])
    np.testing.assert_array_equal(flow, before[1])


def test_warp_takes_a_half_that_float32_would_make_up_for_what_it_is():
    """1001 + 0.49999997 is below the half, 1000 + 0.5 on it; added in float32, both are on one."""
    img = np.arange(4 * 3000, dtype=np.float32).reshape(4, 3000)
    flow = np.zeros((4, 3000, 2), np.float32)
    flow[1, 1000] = flow[1, 1001] = [0.5, 0]
    flow[1, 1003] = [np.nextafter(np.float32(0.5), np.float32(0)), 0]
    flow[1, 1006] = [np.nextafter(np.float32(0.5), np.float32(1)), 0]
    got = flow_warp(img, flow)[1]
    assert [got[x] - 3000 for x in (1000, 1001, 1003, 1006)] == [1000, 1002, 1003, 1007]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_warp_is_the_same_on_any_number_of_threads(mode, monkeypatch):
    rng = np.random.default_rng(3)
    img, flow = rng.integers(0, 256, (300, 400, 3), np.uint8), rng.normal(0, 9, (300, 400, 2))
    before = cv2.getNumThreads()
    results = []
    try:
        for threads, strip in ((1, 10**6), (1, 1), (2, 5000), (4, 999)):
            cv2.setNumThreads(threads)
            monkeypatch.setattr(warp, "_STRIP", strip)
            results.append(flow_warp(img, flow, 3, mode))
    finally:
        cv2.setNumThreads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_warp_keeps_nan_and_infinity_of_the_image_where_they_are():
    img = np.zeros((5, 6), np.float32)
    img[2, 3], img[1, 1] = np.nan, np.inf
    got = flow_warp(img, np.zeros((5, 6, 2)))
    assert np.argwhere(np.isnan(got)).tolist() == [[2, 3]]
    assert np.argwhere(np.isinf(got)).tolist() == [[1, 1]]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (1, 1, 1), (1, 9, 2), (9, 1)])
def test_warp_of_tiny_images(shape):
    img = np.ones(shape, np.float32)
    got = flow_warp(img, np.zeros((*shape[:2], 2)), 5)
    assert got.shape == shape
    assert (got == 5).all(), "there is no pixel with a right and a lower neighbour"


def test_warp_of_an_image_too_wide_for_opencv():
    img = np.arange(2 * 40_000, dtype=np.float32).reshape(2, 40_000)
    got = flow_warp(img, np.full((2, 40_000, 2), [1.0, 0.0]))
    np.testing.assert_array_equal(got[0, : 40_000 - 2], img[0, 1 : 40_000 - 1])


def test_warp_refusals():
    with pytest.raises(NotImplementedError, match="got 'cubic'"):
        flow_warp(np.zeros((2, 2)), np.zeros((2, 2, 2)), interpolate_mode="cubic")
    with pytest.raises(ValueError, match=r"flow must have shape \(2, 3, 2\) to fit img, got \(3, 2, 2\)"):
        flow_warp(np.zeros((2, 3)), np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match="img must have shape"):
        flow_warp(np.zeros(3), np.zeros((2, 2, 2)))
