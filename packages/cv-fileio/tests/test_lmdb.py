"""The lmdb backend against real databases."""

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from cv.fileio import FileClient, LmdbBackend, dump, list_from_file, load

lmdb = pytest.importorskip("lmdb", reason="the lmdb package is not installed")

FILES = {
    "a.jpg": b"\x00a",
    "b.txt": b"b\r\nb\n",
    "sub/c.txt": b"c",
    "sub/deep/d.jpg": b"d",
    "ö": b"",
    ".h": b"",
}


@pytest.fixture(params=["folder", "file"])
def database(request, tmp_path):
    path = tmp_path / "data.lmdb"
    subdir = request.param == "folder"
    with lmdb.open(str(path), subdir=subdir, map_size=1 << 20) as db, db.begin(write=True) as transaction:
        for name, content in FILES.items():
            transaction.put(name.encode(), content)
    return path


def test_read(database):
    client = FileClient("lmdb", db_path=database)
    assert client.client.db_path == str(database)
    for name, content in FILES.items():
        assert client.get(name) == content
        assert client.get(Path(name)) == content
    assert client.get_text("b.txt") == "b\r\nb\n"
    assert list_from_file("b.txt", file_client_args={"backend": "lmdb", "db_path": database}) == ["b", "b"]
    with client.get_local_path("sub/c.txt") as path:
        assert Path(path).read_bytes() == b"c"
    client.client.close()
    assert client.get("a.jpg") == FILES["a.jpg"], "opened again"


def test_several_clients_of_one_database(database):
    first, second = LmdbBackend(database), LmdbBackend(database)
    assert first.get("a.jpg") == second.get("a.jpg")
    assert first._opened is second._opened
    first.close()
    assert second.get("a.jpg") == FILES["a.jpg"]
    writer = LmdbBackend(database, readonly=False)
    with pytest.raises(PermissionError, match="is open in this process with readonly=True"):
        writer.put(b"", "new")
    second.close()
    writer.put(b"1", "new")
    assert first.get("new") == b"1"


def test_wrong_key(database):
    client = FileClient("lmdb", db_path=database)
    with pytest.raises(FileNotFoundError, match=r"no key 'absent' in .*data\.lmdb"):
        client.get("absent")
    with pytest.raises(FileNotFoundError):
        client.get_text("sub")


def test_exists_and_list(database):
    client = FileClient("lmdb", db_path=database)
    assert (client.exists("a.jpg"), client.isfile("a.jpg"), client.isdir("a.jpg")) == (True, True, False)
    assert (client.exists("sub/"), client.isfile("sub"), client.isdir("sub")) == (True, False, True)
    assert (client.exists("su"), client.isdir("su")) == (False, False)
    assert list(client.list_dir_or_file("")) == ["a.jpg", "b.txt", "sub", "ö"]
    assert list(client.list_dir_or_file("sub", recursive=True)) == ["c.txt", "deep", "deep/d.jpg"]
    assert list(client.list_dir_or_file("sub", list_file=False)) == ["deep"]
    found = client.list_dir_or_file("", list_dir=False, recursive=True, suffix=".jpg")
    assert list(found) == ["a.jpg", "sub/deep/d.jpg"]


def test_write(tmp_path):
    path = tmp_path / "new.lmdb"
    client = FileClient("lmdb", db_path=path, readonly=False, map_size=1 << 20)
    client.put(b"1", "a")
    client.put_text("ö", "b")
    client.put(b"2", "a")
    assert (client.get("a"), client.get_text("b")) == (b"2", "ö")
    client.remove("a")
    assert not client.exists("a")
    with pytest.raises(FileNotFoundError):
        client.remove("a")
    with pytest.raises(OSError, match="is full: pass a larger map_size"):
        client.put(b"x" * (2 << 20), "big")
    assert not client.exists("big"), "a write that fails leaves nothing"
    client.client.close()
    args = {"backend": "lmdb", "db_path": path, "readonly": False, "map_size": 1 << 20}
    dump({"k": 1}, "d.json.gz", file_client_args=args)
    assert load("d.json.gz", file_client_args=args) == {"k": 1}


def test_readonly_refuses_to_write(database):
    client = FileClient("lmdb", db_path=database)
    for call in (lambda: client.put(b"", "a"), lambda: client.remove("a.jpg")):
        with pytest.raises(PermissionError, match="readonly=True"):
            call()


def test_no_database(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"db_path does not exist: .*absent"):
        FileClient("lmdb", db_path=tmp_path / "absent")
    (tmp_path / "garbage").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match="garbage"):
        FileClient("lmdb", db_path=tmp_path / "garbage").get("a")


def test_no_permission(unprivileged_folder):
    path = unprivileged_folder / "data.lmdb"
    with lmdb.open(str(path), map_size=1 << 20):
        pass
    path.chmod(0)
    try:
        with pytest.raises(OSError, match=r"(?i)permission denied"):
            FileClient("lmdb", db_path=path, subdir=True).get("a")
    finally:
        path.chmod(0o700)


def _read(client, name):
    return os.getpid(), client.get(name)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_workers_after_use_in_the_parent(database, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    client = FileClient("lmdb", db_path=database)
    assert client.get("a.jpg") == FILES["a.jpg"]
    assert pickle.loads(pickle.dumps(client)).client.db_path == str(database)
    with multiprocessing.get_context(method).Pool(2) as pool:
        got = pool.starmap(_read, [(client, name) for name in FILES])
    assert [content for _, content in got] == list(FILES.values())
    assert os.getpid() not in {pid for pid, _ in got}


def test_a_forked_process_does_not_use_the_parents_handle(database):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    client = LmdbBackend(database)
    client.get("a.jpg")

    def check():
        assert client.get("a.jpg") == FILES["a.jpg"]
        assert client._opened.pid == os.getpid()

    child = multiprocessing.get_context("fork").Process(target=check)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert client.get("a.jpg") == FILES["a.jpg"]
