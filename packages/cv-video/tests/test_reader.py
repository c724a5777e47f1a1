"""VideoReader beside frame exactness: the list, the cache, properties, files that are broken."""

import importlib.util
import os
import resource
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cv.video import Cache, VideoError, VideoReader
from cv.video.decoders.interlaced import may_be_interlaced
from cv_testing.numbered_videos import HEIGHT, WIDTH, number_of, numbered, run_ffmpeg

HAS_AV = importlib.util.find_spec("av") is not None
BACKENDS = [
    "opencv",
    pytest.param("av", marks=pytest.mark.skipif(not HAS_AV, reason="PyAV is not installed (cv-video[av])")),
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def reader(video, backend):
    with VideoReader(video("h264-bframes.mp4"), backend=backend) as reader:
        yield reader


def test_properties(reader):
    assert (reader.width, reader.height, reader.resolution) == (WIDTH, HEIGHT, (WIDTH, HEIGHT))
    assert reader.fps == 25
    assert reader.frame_cnt == len(reader) == 60
    assert reader.fourcc == "h264"
    assert reader.opened is True
    assert reader.position == 0
    assert isinstance(reader.vcap, cv2.VideoCapture)
    assert reader.vcap.isOpened()
    assert "h264-bframes.mp4" in repr(reader)


def test_the_raw_capture_is_independent(reader):
    reader.vcap.read()
    assert number_of(reader.read()) == 0


def test_list_behaviour(reader):
    assert [number_of(frame) for frame in reader[5:20:4]] == [5, 9, 13, 17]
    assert [number_of(frame) for frame in reader[-3:]] == [57, 58, 59]
    assert [number_of(frame) for frame in reader[4::-2]] == [4, 2, 0]
    assert reader[40:30] == []
    assert len(reader[:]) == 60
    assert number_of(reader[np.int64(7)]) == 7
    assert number_of(reader[-60]) == 0
    for index in (60, -61, 10**9):
        with pytest.raises(IndexError, match=f"index {index} is out of range for a video of 60 frames"):
            reader[index]
    for index in ("1", 1.5, None, (1, 2)):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            reader[index]
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            reader.get_frame(index)


def test_position_and_current_frame(reader):
    assert reader.current_frame() is None
    assert number_of(reader.read()) == 0
    assert number_of(reader.current_frame()) == 0
    assert reader.position == 1
    assert number_of(reader.get_frame(49)) == 49
    assert reader.position == 50
    assert number_of(reader.current_frame()) == 49
    assert reader.position == 50, "looking at it moves nothing"
    assert number_of(reader.read()) == 50
    assert number_of(next(reader)) == 51
    for index in (60, -1):
        with pytest.raises(IndexError, match=f"frame_id must be between 0 and 59, got {index}"):
            reader.get_frame(index)
    reader.get_frame(59)
    assert reader.read() is None
    assert number_of(reader.current_frame()) == 59
    with pytest.raises(StopIteration):
        next(reader)


def test_loops(reader):
    for _ in range(2):
        for number, frame in enumerate(reader):
            assert number_of(frame) == number
            assert reader.position == number + 1
            if number == 10:
                break
    pairs = [(number_of(a), number_of(b)) for a, b in zip(reader, reader, strict=True)]
    assert pairs == [(number, number) for number in range(60)], "two loops at once"


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_frames_belong_to_the_caller(video, backend, capacity):
    with VideoReader(video("h264-bframes.mp4"), cache_capacity=capacity, backend=backend) as reader:
        for _ in range(3):
            for number in (3, 4, 3):
                frame = reader[number]
                assert number_of(frame) == number
                assert frame.flags.writeable
                assert frame.flags.c_contiguous
                frame[:] = 0
        kept = [reader[number] for number in range(20)]
        assert [number_of(frame) for frame in kept] == list(range(20)), "no buffer is used for two frames"


def test_the_cache_saves_decoding(video, backend, monkeypatch):
    with VideoReader(video("h264-bframes.mp4"), cache_capacity=2, backend=backend) as reader:
        reader[5], reader[6]
        with monkeypatch.context() as patch:
            for name in ("read_next", "read_at"):
                patch.setattr(type(reader._decoder), name, None)
            assert number_of(reader[6]) == 6
            assert number_of(reader[5]) == 5
        assert number_of(reader[7]) == 7
        assert sorted(number for number in range(60) if number in reader._cache) == [5, 7]


def test_close(video, backend):
    reader = VideoReader(video("h264-bframes.mp4"), backend=backend)
    reader.read()
    assert reader.vcap.isOpened()
    reader.close()
    reader.close()
    assert reader.opened is False
    assert reader.current_frame() is None
    for use in (
        reader.read,
        lambda: reader[0],
        lambda: len(reader),
        lambda: reader.fps,
        lambda: list(reader),
        lambda: reader.vcap,
        lambda: reader.fourcc,
    ):
        with pytest.raises(VideoError, match="has been closed"):
            use()


def test_rotation(video, tmp_path):
    path = tmp_path / "turned.mp4"
    run_ffmpeg(["-i", str(video("h264-gop1.mp4")), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(path)])
    frames = {}
    for backend in ["opencv"] + ["av"] * HAS_AV:
        with VideoReader(path, backend=backend) as reader:
            frames[backend] = reader[7]
            assert reader.resolution == (HEIGHT, WIDTH)
            assert frames[backend].shape == (WIDTH, HEIGHT, 3)
    with VideoReader(video("h264-gop1.mp4")) as reader:
        upright = reader[7]
    for frame in frames.values():
        np.testing.assert_array_equal(frame, np.rot90(upright))  # as ffmpeg itself turns it


def test_files_that_are_no_video(tmp_path, backend):
    with pytest.raises(FileNotFoundError, match="Video file not found: absent"):
        VideoReader("absent.mp4", backend=backend)
    with pytest.raises(FileNotFoundError):
        VideoReader("", backend=backend)
    with pytest.raises(IsADirectoryError):
        VideoReader(tmp_path, backend=backend)
    with pytest.raises(TypeError, match="filename must be a str or a Path, got bytes"):
        VideoReader(b"a.mp4", backend=backend)
    for content in (b"", b"no video" * 1000):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(VideoError, match=r"a\.mp4 is not a video that can be read"):
            VideoReader(tmp_path / "a.mp4", backend=backend)
    with pytest.raises(VideoError, match=r"http://127\.0\.0\.1:9/a\.mp4 is not a video that can be read"):
        VideoReader("http://127.0.0.1:9/a.mp4", backend=backend)
    assert issubclass(VideoError, OSError)
    assert issubclass(VideoError, ValueError)


def test_a_file_with_sound_only(tmp_path, backend):
    run_ffmpeg(["-f", "lavfi", "-i", "sine=duration=1", str(tmp_path / "a.mp4")])
    with pytest.raises(VideoError, match=r"a\.mp4"):
        VideoReader(tmp_path / "a.mp4", backend=backend)


def test_a_video_without_frames(tmp_path):
    path = tmp_path / "zero.mkv"
    run_ffmpeg(["-f", "lavfi", "-i", "color=size=64x64", "-t", "0", "-c:v", "libx264", str(path)])
    with pytest.raises(VideoError, match=r"zero\.mkv"):
        VideoReader(path, backend="opencv")
    if HAS_AV:
        with pytest.raises(VideoError, match=r"zero\.mkv"):
            VideoReader(path, backend="av")


def test_truncated_in_the_middle(video, tmp_path, backend):
    content = video("h264-gop250.mp4").with_suffix(".mkv")
    run_ffmpeg(["-i", str(video("h264-gop250.mp4")), "-c", "copy", str(content)])
    path = tmp_path / "cut.mkv"
    path.write_bytes(content.read_bytes()[: content.stat().st_size // 2])
    with VideoReader(path, backend=backend) as reader:
        numbers = [number_of(frame) for frame in reader]
        assert numbers[:100] == list(range(100))
        assert len(numbers) < 300
        assert len(reader) == len(numbers)
        assert number_of(reader[-1]) == numbers[-1]
        assert number_of(reader[50]) == 50


def test_damaged_in_the_middle(video, tmp_path, backend):
    """No hang and no crash; what comes before the damage is right, and indexing agrees with reading."""
    content = bytearray(video("h264-bframes.ts").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path = tmp_path / "damaged.ts"
    path.write_bytes(bytes(content))
    with VideoReader(path, backend=backend) as reader:
        frames = [frame.copy() for frame in reader]
        assert len(frames) > 30
        assert [number_of(frame) for frame in frames[:20]] == list(range(20))
        for number in (19, 5, 12):
            np.testing.assert_array_equal(reader[number], frames[number])
        assert len(reader) > 30


def test_no_permission(video, backend):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("changes the user for the time of the test, which only root may")
    folder = video("h264-gop1.mp4").parent
    path = folder / "locked.mp4"
    shutil.copy(video("h264-gop1.mp4"), path)
    code = (
        "import os, sys; import cv.video\n"
        "os.setuid(65534)\n"
        "try: cv.video.VideoReader(sys.argv[1], backend=sys.argv[2])\n"
        "except OSError as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), backend], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() in ("PermissionError", "VideoError"), done.stderr


def test_odd_file_names(video, tmp_path, backend, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [
        "-i.mp4",
        "with space.mp4",
        "new\nline.mp4",
        "ünï.mp4",
        "concat:a|b.mp4",
        "%03d.mp4",
        "'q\".mp4",
    ]:
        shutil.copy(video("h264-gop1.mp4"), name)
        with VideoReader(name, backend=backend) as reader:
            assert number_of(reader[7]) == 7


def test_memory_is_bounded(video, backend):
    with VideoReader(video("h264-gop1.mp4"), backend=backend) as reader:
        rng = np.random.default_rng(0)

        def read(count):
            for number in rng.integers(0, 60, count):
                reader[int(number)]
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        first = read(500)
        assert read(1500) - first < 40_000, "kilobytes"
        assert reader._cache.size == 10


def test_bad_arguments(video):
    with pytest.raises(ValueError, match="cache_capacity must not be negative, got -1"):
        VideoReader(video("one.mp4"), cache_capacity=-1)
    with pytest.raises(ValueError, match="backend must be 'auto', 'av' or 'opencv', got 'x'"):
        VideoReader(video("one.mp4"), backend="x")


def test_without_pyav(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with VideoReader(video("h264-bframes.mp4")) as reader:
        assert number_of(reader[30]) == 30
        assert type(reader._decoder).__name__ == "OpenCVDecoder"
    with pytest.raises(ImportError, match=r"pip install cv-video\[av\]"):
        VideoReader(video("h264-bframes.mp4"), backend="av")


def test_cache():
    cache = Cache(2)
    assert (cache.capacity, cache.size) == (2, 0)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("b"), cache.get("b", "none"), cache.size) == (None, "none", 2)
    cache.put("a", 4)
    assert (cache.get("a"), cache.get("c"), len(cache)) == (4, 3, 2)
    assert "a" in cache
    assert "b" not in cache
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="capacity must be a positive integer"):
            Cache(capacity)


def test_import_is_light_and_silent():
    names = ["torch", "av", "imageio_ffmpeg", "yaml"]
    code = f"import sys, cv.video; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_damage_in_a_packet_that_decoders_name_otherwise(tmp_path, backend):
    """Here a library that the decoder uses fails: "Generic error in an external library"."""
    path = tmp_path / "a.mov"
    run_ffmpeg(["-c:v", "png", str(path)], [numbered(number) for number in range(8)])
    content = bytearray(path.read_bytes())
    starts = [place for place in range(len(content) - 4) if content[place : place + 4] == b"\x89PNG"]
    for place in range(starts[4] + 200, starts[5] - 100, 7):
        content[place] ^= 255
    path.write_bytes(content)
    with VideoReader(path, backend=backend) as reader:
        numbers = [number_of(frame) for frame in reader]
        assert numbers[:4] == [0, 1, 2, 3]
        assert numbers[-3:] == [5, 6, 7] or backend == "opencv", "those after it, if the decoder goes on"


@pytest.mark.parametrize("damaged", [5, 30])
def test_len_counts_what_can_be_read(video, tmp_path, backend, damaged):
    """The packets promise 60 frames, but the decoder finds damage in some of them."""
    content = bytearray(video("mjpeg.avi").read_bytes())
    starts = [place for place in range(len(content) - 4) if content[place : place + 4] == b"00dc"]
    begin = starts[damaged] + 8
    content[begin : begin + 200] = bytes(200)
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    with VideoReader(path, backend=backend) as reader:
        count = sum(1 for _ in reader)
        assert damaged - 1 <= count < 60
        assert len(reader) == count == len(list(reader)) == len(list(reader))
        assert number_of(reader[3]) == 3
        assert number_of(reader[damaged - 2]) == damaged - 2
    with VideoReader(path, backend=backend) as reader:
        assert len(reader) in (count, 60)
        assert len(list(reader)) == len(reader) == count, "corrected when the end is reached"


X264 = ["-c:v", "libx264", "-preset", "veryfast"]
INTERLACED = {
    "h264.mp4": [*X264, "-pix_fmt", "yuv420p", "-flags", "+ilme+ildct", "-bf", "2"],
    "h264.ts": [*X264, "-pix_fmt", "yuv420p", "-flags", "+ilme+ildct", "-bf", "2"],
    "lists.mkv": [*X264, "-pix_fmt", "yuv444p", "-x264-params", "tff=1:cqm=jvt"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-q:v", "2"],
}


@pytest.mark.parametrize("name", list(INTERLACED))
def test_interlaced_pictures_are_right_or_refused(tmp_path, backend, name):
    """OpenCV from 4.13 on gives memory that was never written, and says that all is well."""
    path = tmp_path / name
    run_ffmpeg([*INTERLACED[name], str(path)], [numbered(number) for number in range(12)])
    try:
        reader = VideoReader(path, backend=backend)
    except VideoError as error:
        assert backend == "opencv"
        assert "may be interlaced" in str(error)  # noqa: PT017 (not every OpenCV refuses)
        assert "pip install cv-video[av]" in str(error)  # noqa: PT017
    else:
        with reader:
            assert [number_of(frame) for frame in reader] == list(range(12))
            assert number_of(reader[3]) == 3


def test_progressive_pictures_in_a_stream_that_may_be_interlaced(tmp_path, backend):
    path = tmp_path / "a.mkv"
    arguments = [*X264, "-pix_fmt", "yuv420p", "-x264-params", "fake-interlaced=1"]
    run_ffmpeg([*arguments, str(path)], [numbered(number) for number in range(12)])
    with VideoReader(path, backend=backend) as reader:
        assert [number_of(frame) for frame in reader] == list(range(12))


def test_a_header_that_is_cut_off_tells_nothing():
    whole = bytes.fromhex("0000000167640015acd9474d0800000300080000030190f8a14cb0")
    assert may_be_interlaced("h264", whole)
    assert not may_be_interlaced("hevc", whole)
    for length in range(10):
        assert not may_be_interlaced("h264", whole[:length])
    for length in range(6):
        assert not may_be_interlaced("mpg2", bytes.fromhex("000001b514820001")[:length])
    assert may_be_interlaced("mpg2", bytes.fromhex("000001b514820001"))
