"""Editing with ffmpeg: results, odd file names, errors, nothing left behind."""

import importlib.util
import os
import shutil
import stat

import pytest

from cv.video import FFmpegError, VideoReader, concat_video, convert_video, cut_video, ffmpeg, resize_video
from cv_testing.numbered_videos import number_of, run_ffmpeg

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None and importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="no ffmpeg (apt-get install ffmpeg, or pip install cv-video[ffmpeg])",
)
QUIET = {"log_level": "error"}


def numbers(path):
    with VideoReader(path) as video:
        return [number_of(frame) for frame in video]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def source(video):
    return video("h264-bframes.mp4")


@pytest.fixture
def long(video, tmp_path_factory):
    """100 frames at 25 a second, with B-frames."""
    path = video("h264-bframes.mp4").with_name("long.mp4")
    if not path.exists():
        first = video("h264-gop250.mp4")
        run_ffmpeg(
            ["-i", str(first), "-frames:v", "100", "-c:v", "libx264", "-bf", "3", "-g", "12", str(path)]
        )
    return path


def test_convert(source, tmp_path):
    convert_video(source, tmp_path / "new" / "a.avi", vcodec="mpeg4", an=True, sn=False, **{"q:v": 2})
    assert numbers(tmp_path / "new" / "a.avi") == list(range(60))
    assert names(tmp_path / "new") == ["a.avi"]
    convert_video(str(source), str(tmp_path / "b.mkv"), pre_options="-ss 0.4 -t 0.4", vcodec="copy")
    convert_video(
        source, tmp_path / "c.mkv", pre_options=["-t", "0.4"], vcodec="libx264", metadata=["a=1", "b=2"]
    )
    assert numbers(tmp_path / "c.mkv") == list(range(10))


def test_convert_to_images(source, tmp_path):
    convert_video(source, tmp_path / "frames" / "%03d.png", **{"frames:v": 5})
    assert names(tmp_path / "frames") == [f"00{number}.png" for number in range(1, 6)]


def test_print_cmd_and_progress(source, tmp_path, capsys):
    convert_video(source, tmp_path / "a b.mp4", print_cmd=True, show_progress=True, vcodec="libx264")
    out = capsys.readouterr().out
    assert f"-i {source} -loglevel error -vcodec libx264" in out
    assert "completed: 60" in out


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"size": (224, 32)}, (224, 32)),
        ({"size": (56, -1)}, (56, 32)),
        ({"size": (-1, 128)}, (224, 128)),
        ({"size": (224, 224), "keep_ar": True}, (224, 128)),
        ({"ratio": 2}, (224, 128)),
        ({"ratio": (2, 0.5)}, (224, 32)),
        ({"ratio": 0.3}, (32, 18)),
    ],
)
def test_resize(source, tmp_path, arguments, size):
    resize_video(source, tmp_path / "a.mp4", log_level="error", **arguments)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert video.resolution == size
        assert len(video) == 60


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"size": (1, 2), "ratio": 2},
        {"size": (0, 5)},
        {"size": (-1, -1)},
        {"ratio": 0},
        {"ratio": (1, -2)},
    ],
)
def test_resize_refusals(source, tmp_path, arguments):
    with pytest.raises(ValueError, match=r"size|ratio"):
        resize_video(source, tmp_path / "a.mp4", **arguments)


@pytest.mark.parametrize("vcodec", [None, "libx264"])
def test_cut_from_the_start_is_exact(long, tmp_path, vcodec):
    cut_video(long, tmp_path / "a.mp4", start=0, end=3, vcodec=vcodec, **QUIET)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(video) == 75
        assert [number_of(frame) for frame in video[:70]] == list(range(70))


def test_cut_with_a_codec_is_exact_anywhere(long, tmp_path):
    cut_video(long, tmp_path / "a.mp4", start=1.2, end=2.0, vcodec="libx264", **QUIET)
    assert numbers(tmp_path / "a.mp4") == list(range(30, 50))
    cut_video(long, tmp_path / "b.mp4", start=3.2, vcodec="libx264", **QUIET)
    assert numbers(tmp_path / "b.mp4") == list(range(80, 100))


def test_cut_by_copy_begins_where_asked_in_mp4(long, tmp_path):
    cut_video(long, tmp_path / "a.mp4", start=1.2, **QUIET)
    assert numbers(tmp_path / "a.mp4") == list(range(30, 100))
    cut_video(long, tmp_path / "all.mp4", **QUIET)
    assert numbers(tmp_path / "all.mp4") == list(range(100))


def test_cut_refusals(long, tmp_path):
    with pytest.raises(ValueError, match="start must not be negative"):
        cut_video(long, tmp_path / "a.mp4", start=-1)
    with pytest.raises(ValueError, match=r"end must be after start \(2\), got 1"):
        cut_video(long, tmp_path / "a.mp4", start=2, end=1)


def test_concat(source, video, tmp_path):
    concat_video([source, str(source)], tmp_path / "a.mp4", **QUIET)
    assert numbers(tmp_path / "a.mp4") == list(range(60)) * 2
    concat_video([source, source], tmp_path / "b.mkv", vcodec="mpeg4", **QUIET)
    assert len(numbers(tmp_path / "b.mkv")) == 120
    for other in ("h264-bframes.mkv", "vp9.webm"):
        with pytest.raises(FFmpegError, match="only 60 of 120 frames could be joined"):
            concat_video([source, video(other)], tmp_path / "c.mp4", vcodec="libx264", **QUIET)
    assert names(tmp_path) == ["a.mp4", "b.mkv"]
    with pytest.raises(ValueError, match="at least one video"):
        concat_video([], tmp_path / "c.mp4")
    with pytest.raises(TypeError, match="video_list must be a list of paths, got str"):
        concat_video(str(source), tmp_path / "c.mp4")
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4"):
        concat_video([source, "absent.mp4"], tmp_path / "c.mp4")


ODD = [
    "-i.mp4",
    "a b.mp4",
    'it\'s "q".mp4',
    "new\nline.mp4",
    "ünï.mp4",
    "a;touch x.mp4",
    "$(touch x).mp4",
    "c:d.mp4",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_file_names_mean_nothing(source, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, name)
    convert_video(name, f"out {name}", vcodec="copy")
    concat_video([name, name], f"-joined {name}", **QUIET)
    assert len(numbers(f"out {name}")) == 60
    assert len(numbers(f"-joined {name}")) == 120
    assert names(tmp_path) == sorted([name, f"out {name}", f"-joined {name}"])


def test_a_failure_says_what_ffmpeg_said_and_leaves_nothing(source, tmp_path, capfd):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(FFmpegError, match=r"(?s)ffmpeg failed with exit status \d+.*Invalid data found"):
        convert_video(tmp_path / "broken.mp4", tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"old")
    with pytest.raises(FFmpegError, match="nosuchcodec"):
        convert_video(source, tmp_path / "b.mp4", vcodec="nosuchcodec")
    assert (tmp_path / "b.mp4").read_bytes() == b"old"
    assert names(tmp_path) == ["b.mp4", "broken.mp4"]
    assert "nosuchcodec" in capfd.readouterr().err
    with pytest.raises(FileNotFoundError, match="Video file not found: absent"):
        convert_video("absent.mp4", tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="log_level must be one of"):
        convert_video(source, tmp_path / "a.mp4", log_level="loud")


def test_no_permission_to_write(source, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(FFmpegError, match="Permission denied"):
        convert_video(source, tmp_path / "a.mp4")


def test_an_interrupt_stops_ffmpeg_and_leaves_nothing(source, tmp_path, monkeypatch):
    started = []

    def interrupt(process, bar):
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(ffmpeg, "_relay", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_video(source, tmp_path / "a.mp4", pre_options="-re -stream_loop -1")
    assert started[0].returncode is not None
    assert names(tmp_path) == []


def test_ffmpeg_is_found_or_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    if importlib.util.find_spec("imageio_ffmpeg"):
        assert os.access(ffmpeg.find_ffmpeg(), os.X_OK)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(RuntimeError, match=r"apt-get install ffmpeg.*pip install cv-video\[ffmpeg\]"):
        ffmpeg.find_ffmpeg()


def test_what_is_no_file_is_written_to_and_a_link_is_followed(source, tmp_path):
    """As root, ``-f null /dev/null`` must not put a file in the place of the device."""
    if os.path.exists("/dev/null"):  # noqa: PTH110
        before = os.stat("/dev/null")  # noqa: PTH116
        convert_video(source, "/dev/null", f="null")
        assert os.stat("/dev/null").st_rdev == before.st_rdev != 0  # noqa: PTH116
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "data").write_bytes(b"old")
    (folder / "data").chmod(0o640)
    (tmp_path / "a.mp4").symlink_to(folder / "data")
    convert_video(source, tmp_path / "a.mp4", vcodec="copy")
    assert (tmp_path / "a.mp4").is_symlink()
    assert numbers(folder / "data") == list(range(60))
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o640
    assert names(folder) == ["data"]
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.mp4"):
        convert_video(source, tmp_path / "b.mp4", vcodec="copy")
