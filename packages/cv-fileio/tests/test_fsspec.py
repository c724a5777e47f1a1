"""The fsspec backend on file systems that fsspec itself brings."""

import pickle
import zipfile
from pathlib import Path

import pytest

from cv.fileio import FileClient, dump, list_from_file, load

fsspec = pytest.importorskip("fsspec", reason="the fsspec package is not installed")


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    for name in ["a.jpg", "b.txt", "sub/c.txt", "sub/deep/d.jpg", ".hidden"]:
        system.pipe_file(f"/set/{name}", name.encode())
    yield "memory://set"
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_chosen_by_prefix(memory):
    client = FileClient(prefix="memory")
    assert client.backend == "fsspec"
    assert client.get(f"{memory}/a.jpg") == b"a.jpg"
    assert FileClient.infer_client(uri=f"{memory}/a.jpg").get_text(f"{memory}/a.jpg") == "a.jpg"
    assert FileClient("fsspec").get(f"{memory}/sub/c.txt") == b"sub/c.txt", "the path says the protocol"
    assert client.get(Path(memory) / "a.jpg") == b"a.jpg"


def test_operations(memory):
    client = FileClient("fsspec", protocol="memory")
    client.put_text("ö", f"{memory}/new/t.txt")
    assert client.get(f"{memory}/new/t.txt") == "ö".encode()
    assert (client.exists(memory), client.isdir(memory), client.isfile(memory)) == (True, True, False)
    assert client.isfile(f"{memory}/a.jpg")
    client.remove(f"{memory}/new/t.txt")
    assert not client.exists(f"{memory}/new/t.txt")
    with pytest.raises(FileNotFoundError):
        client.get(f"{memory}/absent")
    with client.get_local_path(f"{memory}/a.jpg") as path:
        assert Path(path).read_bytes() == b"a.jpg"
    assert pickle.loads(pickle.dumps(client)).get(f"{memory}/a.jpg") == b"a.jpg"


def test_listing(memory):
    client = FileClient(prefix="memory")
    assert list(client.list_dir_or_file(memory)) == ["a.jpg", "b.txt", "sub"]
    assert list(client.list_dir_or_file(memory, list_dir=False)) == ["a.jpg", "b.txt"]
    assert list(client.list_dir_or_file(memory, recursive=True)) == [
        "a.jpg",
        "b.txt",
        "sub",
        "sub/c.txt",
        "sub/deep",
        "sub/deep/d.jpg",
    ]
    found = client.list_dir_or_file(memory, list_dir=False, recursive=True, suffix=".txt")
    assert list(found) == ["b.txt", "sub/c.txt"]


def test_load_dump_and_lists_by_uri(memory):
    dump({"a": 1}, f"{memory}/x.yaml.xz")
    assert load(f"{memory}/x.yaml.xz") == {"a": 1}
    assert list_from_file(f"{memory}/b.txt") == ["b.txt"]


def test_a_file_inside_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner/names.txt", "one\ntwo\n")
    client = FileClient("fsspec", protocol="zip", fo=str(tmp_path / "a.zip"))
    assert client.get_text("zip://inner/names.txt") == "one\ntwo\n"
    assert list(client.list_dir_or_file("zip://inner")) == ["names.txt"]


def test_unknown_protocol():
    with pytest.raises(ValueError, match="nosuch"):
        FileClient("fsspec", protocol="nosuch")
    with pytest.raises(ValueError, match="nosuch"):
        FileClient("fsspec").get("nosuch://a")
