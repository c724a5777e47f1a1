"""Frame i is the same picture however it is reached, in every codec and container."""

import importlib.util
import random
import shutil

import cv2
import numpy as np
import pytest

from cv.video import VideoReader
from cv_testing.numbered_videos import MATRIX, NEEDS_AV, number_of

BACKENDS = ["opencv", "av"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "av" and importlib.util.find_spec("av") is None:
        pytest.skip("PyAV is not installed (pip install cv-video[av])")
    return request.param


@pytest.fixture(params=list(MATRIX))
def name(request, backend):
    if request.param in NEEDS_AV and backend == "opencv":
        pytest.skip("OpenCV's wheel brings no AV1 decoder")
    return request.param


def test_in_order(video, name, backend):
    with VideoReader(video(name), backend=backend) as reader:
        assert [number_of(frame) for frame in reader] == MATRIX[name][1]
        assert reader.read() is None
        assert [number_of(frame) for frame in reader] == MATRIX[name][1], "and again"
        assert len(reader) == reader.frame_cnt == len(MATRIX[name][1])


def test_len_first(video, name, backend):
    with VideoReader(video(name), backend=backend) as reader:
        assert len(reader) == len(MATRIX[name][1])
        assert reader.position == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_in_any_order(video, name, backend, seed):
    want = MATRIX[name][1]
    rng = random.Random(seed)
    with VideoReader(video(name), cache_capacity=rng.choice([0, 3]), backend=backend) as reader:
        for _ in range(40):
            number = rng.choice([rng.randrange(len(want)), min(reader.position + 1, len(want) - 1)])
            kind = rng.randrange(4)
            if kind == 0:
                assert number_of(reader[number]) == want[number]
            elif kind == 1:
                assert number_of(reader.get_frame(number)) == want[number]
            elif kind == 2:
                assert number_of(reader[number - len(want)]) == want[number]
            else:
                position = reader.position
                frame = reader.read()
                if position == len(want):
                    assert frame is None
                else:
                    assert number_of(frame) == want[position]


def test_each_frame_alone_and_backwards(video, name, backend):
    """Every frame once as the first one asked for after another jump, and its pixels, not its number only."""
    want = MATRIX[name][1]
    with VideoReader(video(name), cache_capacity=0, backend=backend) as reader:
        in_order = [frame.copy() for frame in reader]
        for number in range(len(want) - 1, -1, -7 if len(want) > 100 else -1):
            np.testing.assert_array_equal(reader[number], in_order[number])
        for number in range(0, len(want), 11):
            np.testing.assert_array_equal(reader[len(want) - 1 - number], in_order[len(want) - 1 - number])
            np.testing.assert_array_equal(reader[number], in_order[number])


def test_both_decoders_give_the_same_pixels(video, name, backend):
    if backend == "opencv" or name in NEEDS_AV:
        pytest.skip("compared once, where both can decode")
    with VideoReader(video(name), backend="av") as one, VideoReader(video(name), backend="opencv") as other:
        assert one.resolution == other.resolution
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("h264-bframes.mp4", 12),
        ("h264-open.mkv", 12),
        ("hevc-open.mkv", 12),
        ("vp9.webm", 20),
        ("vfr.mp4", 12),
    ],
)
def test_a_jump_decodes_no_more_than_a_group_of_pictures(video, monkeypatch, name, group):
    """Through PyAV: packets that reach the decoder are counted; and the file is not opened again."""
    av = pytest.importorskip("av", reason="PyAV is not installed (pip install cv-video[av])")
    decoded = spy_on_decoding(monkeypatch)
    with VideoReader(video(name), cache_capacity=0, backend="av") as reader:
        count = len(reader)
        opened = []
        monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args))
        for number in random.Random(0).sample(range(count), 30):
            decoded.clear()
            assert number_of(reader[number]) == MATRIX[name][1][number]
            # The decoder's own delay: reordering, and one frame for each of its threads.
            delay = 6 + reader._decoder._cursor.stream.codec_context.thread_count
            assert len(decoded) <= group + delay
    assert opened == []


@pytest.mark.parametrize("name", ["h264-bframes.mp4", "h264-open.mkv", "hevc-open.mkv", "vfr.mp4", "av1.mp4"])
def test_repeated_jumps_in_short_groups_decode_nothing_after_the_frame(video, monkeypatch, name):
    """Through PyAV. And reading on from there gives the frames that follow, as ever."""
    pytest.importorskip("av", reason="PyAV is not installed (pip install cv-video[av])")
    decoded = spy_on_decoding(monkeypatch)
    want = MATRIX[name][1]
    with VideoReader(video(name), cache_capacity=0, backend="av") as reader:
        places = (len(reader), reader._decoder._index.frames.times)[1]
        for _ in range(2):
            for number in (len(want) - 1, 0):  # the first jump leaves the decoder able to go on
                assert number_of(reader[number]) == want[number]
            for number in range(len(want) - 1, -1, -5):
                decoded.clear()
                assert number_of(reader[number]) == want[number]
                assert decoded[-1] == places[number]
            assert [number_of(reader.read()) for _ in range(20)] == want[number + 1 : number + 21]


def test_jumps_in_a_long_group_go_on_from_the_nearest_of_six_places(video, monkeypatch):
    """Through PyAV. Each place is a decoder of its own, opened once; memory is bounded by their number."""
    av = pytest.importorskip("av", reason="PyAV is not installed (pip install cv-video[av])")
    decoded = spy_on_decoding(monkeypatch)
    numbers = random.Random(0).choices(range(250), k=100)
    with VideoReader(video("h264-gop250.mp4"), cache_capacity=0, backend="av") as reader:
        count = len(reader)
        threads = reader._decoder._cursor.stream.codec_context.thread_count
        if threads > 16:
            pytest.skip("the delay of so many threads hides what is measured")
        opened = []
        monkeypatch.setattr(av, "open", lambda *args, _open=av.open: opened.append(args) or _open(*args))
        decoded.clear()
        for number in numbers:
            assert number_of(reader[number]) == number
        assert 1 <= len(opened) <= 5
        assert len(reader._decoder._cursors) <= 6
        decoded_by_six, here = len(decoded), 0
        # What one decoder has to decode at least: on from where it is, or from the key frame.
        by_one = 0
        for number in numbers:
            begin = here if here <= number else number // 250 * 250
            by_one += number + 1 - begin
            here = number + 1
        assert decoded_by_six < 0.65 * by_one
        opened.clear()
        for number in range(0, count, 9):
            assert number_of(reader[number]) == number
            assert number_of(reader[count - 1 - number]) == count - 1 - number
        assert len(opened) <= 5


def test_a_file_that_is_gone_is_still_read(video, tmp_path):
    """What would be a further decoder is done without."""
    pytest.importorskip("av", reason="PyAV is not installed (pip install cv-video[av])")
    path = tmp_path / "gone.mp4"
    shutil.copy(video("h264-gop250.mp4"), path)
    with VideoReader(path, cache_capacity=0, backend="av") as reader:
        assert len(reader) == 300
        try:
            path.unlink()
        except PermissionError:
            pytest.skip("this system does not remove files that are open")
        for number in (240, 100, 200, 50, 250, 299):
            assert number_of(reader[number]) == number


def spy_on_decoding(monkeypatch):
    """The places of the packets that reach a decoder of PyAV."""
    from cv.video.decoders import pyav_cursor

    decoded = []
    decode = pyav_cursor.decode_packet
    monkeypatch.setattr(pyav_cursor, "decode_packet", lambda *args: decoded.append(args[1]) or decode(*args))
    return decoded


def test_opencv_alone_is_not_frame_exact_here(video):
    """Why this class exists: if this ever fails, OpenCV has learned it."""
    capture = cv2.VideoCapture(str(video("vfr.mp4")))
    wrong = 0
    for number in range(0, 60, 7):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        ok, frame = capture.read()
        wrong += not ok or number_of(frame) != number
    assert wrong > 0
