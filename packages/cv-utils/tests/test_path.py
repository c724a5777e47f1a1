"""Files and folders."""

import threading
from pathlib import Path
from typing import Any

import pytest

from cv.utils import check_file_exist, fopen, is_filepath, mkdir_or_exist, scandir, symlink


def test_is_filepath() -> None:
    assert is_filepath("a")
    assert is_filepath(Path("a"))
    assert not is_filepath(1)
    assert not is_filepath(b"a")


def test_fopen(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with fopen(file, "w", encoding="utf-8") as writer:
        writer.write("ä")
    with fopen(str(file), encoding="utf-8") as reader:
        assert reader.read() == "ä"
    with pytest.raises(ValueError, match="should be a string or a Path, got <class 'int'>"):
        fopen(1)  # type: ignore[arg-type]


def test_check_file_exist(tmp_path: Path) -> None:
    check_file_exist(__file__)
    with pytest.raises(FileNotFoundError, match=r'file ".*none" does not exist'):
        check_file_exist(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no .*!"):
        check_file_exist(tmp_path, msg_tmpl="no {}!")  # a folder is no file


def test_mkdir_or_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir_or_exist(tmp_path / "a" / "b")
    mkdir_or_exist(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    mkdir_or_exist("")
    monkeypatch.setenv("HOME", str(tmp_path))
    mkdir_or_exist("~/c")
    assert (tmp_path / "c").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        mkdir_or_exist(tmp_path / "file")


def test_symlink(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    symlink("one", link)
    assert link.read_text() == "one"
    symlink("two", str(link))
    assert link.readlink() == Path("two")
    with pytest.raises(FileExistsError):
        symlink("one", link, overwrite=False)
    (tmp_path / "two").unlink()  # a dangling link is replaced too
    symlink("one", link)
    assert link.read_text() == "one"
    assert sorted(tmp_path.iterdir()) == [link, tmp_path / "one"]


def test_symlink_leaves_a_folder_and_no_rubbish(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        symlink("one", tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_there_is_a_link_at_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    link = tmp_path / "latest"
    symlink("one", link)
    gone = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not link.exists():
                gone.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(500):
        symlink(("one", "two")[i % 2], link)
    done.set()
    watcher.join()
    assert not gone


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.bin", "1.json", "3.TXT", ".hidden", "sub/2.json", "sub/deep/1.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def test_scandir(tree: Path) -> None:
    flat = ["1.json", "3.TXT", "a.bin", "b.txt"]
    assert list(scandir(tree)) == flat
    assert list(scandir(str(tree))) == flat
    everything = [*flat, str(Path("sub/2.json")), str(Path("sub/deep/1.txt"))]
    assert list(scandir(tree, recursive=True)) == everything
    assert list(scandir(tree, ".txt")) == ["b.txt"]
    assert list(scandir(tree, ".txt", case_sensitive=False)) == ["3.TXT", "b.txt"]
    assert list(scandir(tree, (".TXT", ".bin"), case_sensitive=False)) == ["3.TXT", "a.bin", "b.txt"]
    assert list(scandir(tree, (".json", ".txt"), recursive=True)) == [
        "1.json", "b.txt", str(Path("sub/2.json")), str(Path("sub/deep/1.txt")),
    ]  # fmt: skip
    assert list(scandir(tree, ".none")) == []


def test_scandir_follows_links_but_not_in_circles(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "again").symlink_to(tree / "sub")
    found = list(scandir(tree, ".json", recursive=True))
    assert found == ["1.json", str(Path("again/2.json")), str(Path("sub/2.json"))]


@pytest.mark.parametrize(("path", "suffix"), [(1, None), (b".", None), (".", 1), (".", [".txt"])])
def test_scandir_checks_its_arguments_at_the_call(path: Any, suffix: Any) -> None:
    with pytest.raises(TypeError, match=r"dir_path|suffix"):
        scandir(path, suffix)


def test_scandir_of_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(scandir(tmp_path / "none"))
