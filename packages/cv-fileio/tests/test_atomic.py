"""atomic_write: the target holds the old content or the new one, whatever happens."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cv.fileio import atomic_write

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions, pipes and signals")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_binary_text_and_encoding(tmp_path):
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"\x00\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    with atomic_write(str(tmp_path / "b.txt"), "w") as file:
        file.write("größe\n")
    assert (tmp_path / "b.txt").read_bytes() == "größe\n".encode()
    with atomic_write(tmp_path / "c.txt", "w", encoding="latin-1", newline="\r\n") as file:
        file.write("ö\n")
    assert (tmp_path / "c.txt").read_bytes() == b"\xf6\r\n"
    assert entries(tmp_path) == ["a.bin", "b.txt", "c.txt"]


def test_target_is_untouched_until_the_block_ends(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(target, "w") as file:
        file.write("new")
        file.flush()
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(target: Path) -> None:
        with atomic_write(target, "w") as file:
            file.write("half")
            raise error("stop")

    with pytest.raises(error):
        fail(target)
    assert target.read_text() == "old"
    with pytest.raises(error):
        fail(tmp_path / "new.txt")
    assert entries(tmp_path) == ["a.txt"]


def test_the_caller_may_close_the_file(tmp_path):
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("done")
        file.close()
    assert (tmp_path / "a.txt").read_text() == "done"


def test_exclusive_refuses_an_existing_target(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_write(target, "x") as file:
        file.write("first")
    with pytest.raises(FileExistsError, match=r"a\.txt exists already"), atomic_write(target, "xb"):
        pass
    # Somebody creates the file while we write: theirs stays.
    other = tmp_path / "b.txt"
    with pytest.raises(FileExistsError), atomic_write(other, "x"):
        other.write_text("theirs")
    assert other.read_text() == "theirs"
    assert entries(tmp_path) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("mode", ["a", "r", "r+", "w+b", ""])
def test_other_modes_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match="mode must be one of"), atomic_write(tmp_path / "a", mode):
        pass


@posix
def test_permissions(tmp_path):
    old = tmp_path / "old"
    old.write_text("x")
    old.chmod(0o640)
    with atomic_write(old) as file:
        file.write(b"y")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    umask = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new") as file:
            file.write(b"y")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@posix
def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with atomic_write(link, "w") as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert entries(tmp_path / "real") == ["file"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "other")
    with atomic_write(dangling, "w") as file:
        file.write("new")
    assert (tmp_path / "real" / "other").read_text() == "new"


@posix
def test_devices_and_pipes_are_written_directly(tmp_path):
    with atomic_write(os.devnull) as file:
        file.write(b"gone")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as file:
        file.write(b"through")
    reader.join()
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_missing_folder_and_a_folder_as_target(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), atomic_write(tmp_path / "absent" / "a"):
        pass
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_write(tmp_path):
        pass


@posix
def test_a_folder_without_write_permission(unprivileged_folder):
    target = unprivileged_folder / "a"
    target.write_text("old")
    unprivileged_folder.chmod(0o500)
    with pytest.raises(PermissionError), atomic_write(target):
        pass
    assert target.read_text() == "old"


def test_long_and_odd_names(tmp_path):
    for name in ["n" * 255, "-rf", "with space", "new\nline", "ünïcode", "'quoted\""]:
        with atomic_write(tmp_path / name, "w") as file:
            file.write(name)
        assert (tmp_path / name).read_text() == name
    assert len(entries(tmp_path)) == 6


DISK_FULL = """
import resource, signal, sys
from cv.fileio import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_write(sys.argv[1]) as file:
        file.write(b"x" * 100_000)
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@posix
def test_no_space_left(tmp_path):
    """A file size limit makes the kernel refuse the write, as a full disk does."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(target)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OSError")
    assert target.read_bytes() == b"old"
    assert entries(tmp_path) == ["a"]


KILLED = """
import sys, time
from cv.fileio import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@posix
def test_killed_while_writing(tmp_path):
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.glob("*.json")) == [target], "what is left must not look like a result"


def test_readers_never_see_half_a_file(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"0" * 200_000)
    stop = time.monotonic() + 0.5
    seen = set()

    def read() -> None:
        while time.monotonic() < stop:
            content = target.read_bytes()
            seen.add((len(content), len(set(content))))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    number = 0
    while time.monotonic() < stop:
        number += 1
        with atomic_write(target) as file:
            for _ in range(4):
                file.write(bytes([number % 251]) * 50_000)
    for thread in readers:
        thread.join()
    assert seen == {(200_000, 1)}
