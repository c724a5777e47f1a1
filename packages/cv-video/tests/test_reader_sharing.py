"""One reader in several threads and processes, and copies of it."""

import copy
import importlib.util
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cv.video import VideoError, VideoReader
from cv_testing.numbered_videos import number_of

HAS_AV = importlib.util.find_spec("av") is not None
BACKENDS = [
    "opencv",
    pytest.param("av", marks=pytest.mark.skipif(not HAS_AV, reason="PyAV is not installed (cv-video[av])")),
]


@pytest.fixture(params=BACKENDS)
def reader(request, video):
    with VideoReader(video("h264-bframes.mp4"), cache_capacity=3, backend=request.param) as reader:
        yield reader


@pytest.mark.parametrize("duplicate", [lambda it: pickle.loads(pickle.dumps(it)), copy.copy, copy.deepcopy])
def test_a_copy_goes_on_by_itself(reader, duplicate):
    assert number_of(reader[41]) == 41
    with duplicate(reader) as other:
        assert other.position == 42
        assert other.current_frame() is None
        assert number_of(other.read()) == 42
        assert number_of(other[7]) == 7
        assert len(other) == 60
        assert number_of(reader.read()) == 42
        assert number_of(reader.current_frame()) == 42
        reader.close()
        assert number_of(other.read()) == 8


def test_a_copy_of_a_closed_reader_is_closed(reader):
    reader.close()
    other = pickle.loads(pickle.dumps(reader))
    assert not other.opened
    with pytest.raises(VideoError, match="closed"):
        other.read()


def test_threads_take_turns(reader):
    def look(seed):
        rng = random.Random(seed)
        for _ in range(30):
            number = rng.randrange(60)
            assert number_of(reader[number]) == number

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(look, range(4)):
            pass


def test_threads_share_what_read_gives(reader):
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda _: reader.read(), range(60)))
    assert sorted(number_of(frame) for frame in frames) == list(range(60))


FORK = """
import os, sys
from cv.video import VideoReader
from cv_testing.numbered_videos import number_of
reader = VideoReader(sys.argv[1], backend=sys.argv[2])
assert number_of(reader[30]) == 30
assert reader.vcap.isOpened()
child = os.fork()
assert reader.position == 31
for number in (31, 5, 6, 59, 40):
    assert number_of(reader[number]) == number
if len(sys.argv) > 3:
    reader.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("close", [[], ["close"]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_both_processes_read_on_after_a_fork(video, backend, close):
    """The child leaves through the interpreter's own exit, where everything is let go of."""
    path = str(video("h264-bframes.mp4"))
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, path, backend, *close],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "both\n"
