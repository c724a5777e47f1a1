"""Videos from images and images from videos."""

import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cv.video import VideoError, VideoReader, frames2video
from cv_testing.numbered_videos import number_of, numbered


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), numbered(number))
    return folder


@pytest.mark.parametrize(("name", "fourcc"), [("a.avi", "XVID"), ("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_round_trip(tmp_path, images, name, fourcc):
    path = tmp_path / "new" / name
    frames2video(images, path, fps=12, fourcc=fourcc, show_progress=False)
    with VideoReader(path) as video:
        assert [number_of(frame) for frame in video] == list(range(12))
        assert video.fps == 12
        video.cvt2frames(tmp_path / "out", show_progress=False)
    for number in range(12):
        assert number_of(cv2.imread(str(tmp_path / "out" / f"{number:06d}.jpg"))) == number
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_part_and_template(tmp_path, images):
    for number in range(12):
        (images / f"{number:06d}.jpg").rename(images / f"img_{number + 1}.jpg")
    frames2video(images, tmp_path / "all.avi", filename_tmpl="img_{}.jpg", start=1, show_progress=False)
    with VideoReader(tmp_path / "all.avi") as video:
        assert [number_of(frame) for frame in video] == list(range(12)), "the last one too"
    frames2video(images, tmp_path / "a.avi", filename_tmpl="img_{}.jpg", start=3, end=7, show_progress=False)
    with VideoReader(tmp_path / "a.avi") as video:
        assert [number_of(frame) for frame in video] == [2, 3, 4, 5]


def test_progress(tmp_path, images, capsys):
    frames2video(images, tmp_path / "a.avi")
    assert "12/12" in capsys.readouterr().out
    with VideoReader(tmp_path / "a.avi") as video:
        video.cvt2frames(tmp_path / "out")
    assert "12/12" in capsys.readouterr().out


def test_frames2video_refusals(tmp_path, images):
    target = tmp_path / "a.avi"
    with pytest.raises(FileNotFoundError, match=r"start frame not found: .*000020\.jpg"):
        frames2video(images, target, start=20, end=30)
    with pytest.raises(ValueError, match=r"end must be greater than start \(5\), got 5"):
        frames2video(images, target, start=5, end=5)
    with pytest.raises(ValueError, match="fourcc must have four characters"):
        frames2video(images, target, fourcc="H")
    with pytest.raises(ValueError, match="fps must be positive"):
        frames2video(images, target, fps=0)
    with pytest.raises(ValueError, match="place for the number"):
        frames2video(images, target, filename_tmpl="a.jpg")
    (images / "000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.jpg"):
        frames2video(images, target, show_progress=False)
    cv2.imwrite(str(images / "000005.jpg"), numbered(5, width=160, height=128))
    with pytest.raises(ValueError, match=r"000005\.jpg is 160 x 128, but the first image is 112 x 64"):
        frames2video(images, target, show_progress=False)
    (images / "000005.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"000005\.jpg"):
        frames2video(images, target, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"], "nothing half-written"


def test_a_container_opencv_cannot_write(tmp_path, images, capfd):
    with pytest.raises(VideoError, match=r"OpenCV cannot write \.xyz files with fourcc 'XVID'"):
        frames2video(images, tmp_path / "a.xyz", show_progress=False)
    capfd.readouterr()


LIMITED = """
import resource, signal, sys
from cv.video import VideoReader, frames2video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    if sys.argv[1] == "join":
        frames2video(sys.argv[2], sys.argv[3], fourcc="MJPG", show_progress=False)
    else:
        VideoReader(sys.argv[2]).cvt2frames(sys.argv[3], filename_tmpl="{:06d}.bmp", show_progress=False)
except OSError as error:
    print("refused", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_disk_full(tmp_path, images):
    frames2video(images, tmp_path / "a.avi", fourcc="MJPG", show_progress=False)
    before = (tmp_path / "a.avi").read_bytes()
    for what, source, target in [
        ("join", images, tmp_path / "a.avi"),
        ("split", tmp_path / "a.avi", tmp_path / "o"),
    ]:
        command = [sys.executable, "-c", LIMITED, what, str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        assert done.stdout.startswith("refused"), done.stderr
    assert (tmp_path / "a.avi").read_bytes() == before
    assert list((tmp_path / "o").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", "images", "o"]


def test_part_of_a_video(video, tmp_path):
    with VideoReader(video("h264-bframes.mp4")) as reader:
        reader.cvt2frames(
            tmp_path, file_start=100, filename_tmpl="x{:03d}.png", start=50, max_num=4, show_progress=False
        )
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["x100.png", "x101.png", "x102.png", "x103.png"]
        for place, name in enumerate(names):
            np.testing.assert_array_equal(cv2.imread(str(tmp_path / name)), reader[50 + place])
        reader.cvt2frames(tmp_path / "rest", start=57, max_num=100, show_progress=False)
        assert len(list((tmp_path / "rest").iterdir())) == 3


def test_cvt2frames_refusals(video, tmp_path):
    with VideoReader(video("one.mp4")) as reader:
        with pytest.raises(ValueError, match=r"start must be less than the number of frames \(1\), got 1"):
            reader.cvt2frames(tmp_path, start=1)
        with pytest.raises(ValueError, match="max_num must not be negative"):
            reader.cvt2frames(tmp_path, max_num=-1)
        with pytest.raises(ValueError, match="place for the number"):
            reader.cvt2frames(tmp_path, filename_tmpl="a.jpg")
        with pytest.raises(ValueError, match="suffix of an image format"):
            reader.cvt2frames(tmp_path, filename_tmpl="{}.xyz", show_progress=False)


def test_an_interrupted_conversion_goes_on(video, tmp_path):
    with VideoReader(video("h264-bframes.mp4")) as reader:
        reader.cvt2frames(tmp_path, max_num=20, show_progress=False)
        marker = numbered(999)
        cv2.imwrite(str(tmp_path / "000003.jpg"), marker)
        reader.cvt2frames(tmp_path, show_progress=False, overwrite=False)
        assert len(list(tmp_path.iterdir())) == 60
        assert number_of(cv2.imread(str(tmp_path / "000003.jpg"))) == 999, "kept"
        assert number_of(cv2.imread(str(tmp_path / "000045.jpg"))) == 45
        reader.cvt2frames(tmp_path, show_progress=False)
        assert number_of(cv2.imread(str(tmp_path / "000003.jpg"))) == 3, "written again"


KILLED = """
import os, signal, sys, threading
from cv.video import VideoReader
threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
    VideoReader(sys.argv[1]).cvt2frames(sys.argv[2], show_progress=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_in_the_middle(video, tmp_path):
    command = [sys.executable, "-c", KILLED, str(video("h264-bframes.mp4")), str(tmp_path)]
    done = subprocess.run(command, check=False, timeout=50)
    assert done.returncode == -signal.SIGKILL
    for path in tmp_path.glob("*.jpg"):
        assert number_of(cv2.imread(str(path))) == int(path.stem), "no half image under a final name"
