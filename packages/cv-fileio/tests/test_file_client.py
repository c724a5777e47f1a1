"""FileClient: choosing and registering backends; the disk backend; what all backends share."""

import io
import pickle
from pathlib import Path

import pytest

from cv.fileio import BaseStorageBackend, FileClient, HardDiskBackend, HTTPBackend

BACKENDS = ["disk", "http", "lmdb", "memcached", "ceph", "petrel", "fsspec"]


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(FileClient, "_backends", dict(FileClient._backends))
    monkeypatch.setattr(FileClient, "_prefixes", dict(FileClient._prefixes))


class Toy(BaseStorageBackend):
    """In the style of existing code: paths only, no encoding."""

    def get(self, filepath):
        return b"content of " + str(filepath).encode()

    def get_text(self, filepath):
        return f"text of {filepath}"


def test_default_is_disk():
    client = FileClient()
    assert client.backend == "disk"
    assert isinstance(client.client, HardDiskBackend)


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"must be one of {', '.join(BACKENDS)}, got 'tape'"):
        FileClient("tape")


@pytest.mark.usefixtures("clean_registry")
def test_register_by_call_and_as_decorator():
    FileClient.register_backend("toy", Toy)
    client = FileClient("toy")
    assert client.get("a") == b"content of a"
    assert client.get_text("a") == "text of a"

    @FileClient.register_backend("other", prefixes=["toy", "toys"])
    class Other(Toy):
        pass

    assert Other is not None
    assert isinstance(FileClient(prefix="toys").client, Other)
    assert FileClient.infer_client(uri="toy://a/b").backend == "other"


@pytest.mark.usefixtures("clean_registry")
def test_register_refusals():
    with pytest.raises(TypeError, match="name must be a str, got int"):
        FileClient.register_backend(1, Toy)
    with pytest.raises(TypeError, match="backend must be a class, got Toy"):
        FileClient.register_backend("toy", Toy())
    with pytest.raises(TypeError, match="must be a subclass of BaseStorageBackend, got int"):
        FileClient.register_backend("toy", int)
    FileClient.register_backend("toy", Toy)
    with pytest.raises(KeyError, match="'toy' is registered already"):
        FileClient.register_backend("toy", Toy)
    with pytest.raises(KeyError, match="'toy' is registered already"):

        @FileClient.register_backend("toy")
        class Other(Toy):
            pass

    with pytest.raises(KeyError, match="prefix 'http' belongs to backend 'http'"):
        FileClient.register_backend("mine", Toy, prefixes="http")
    FileClient.register_backend("toy", HardDiskBackend, force=True)
    assert isinstance(FileClient("toy").client, HardDiskBackend)
    FileClient.register_backend("http", Toy, force=True, prefixes="http")
    assert isinstance(FileClient(prefix="http").client, Toy)


def test_an_incomplete_backend_cannot_be_made():
    class Half(BaseStorageBackend):
        def get(self, filepath):
            return b""

    with pytest.raises(TypeError, match="get_text"):
        Half()


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("a/b.txt", None),
        ("/a/b.txt", None),
        ("C:\\a\\b.txt", None),
        ("C:/a/b.txt", None),
        ("a:b", None),
        ("odd:/name", None),
        (Path("https://x.org/a"), "https"),
        ("https://x.org/a", "https"),
        ("HTTP://x.org/a", "http"),
        ("s3://bucket/key", "s3"),
        ("git+ssh://a", "git+ssh"),
        ("", None),
    ],
)
def test_parse_uri_prefix(uri, prefix):
    assert FileClient.parse_uri_prefix(uri) == prefix


def test_infer_client(tmp_path):
    assert FileClient.infer_client(uri=tmp_path).backend == "disk"
    assert FileClient.infer_client(uri="file:///a").backend == "disk"
    assert FileClient.infer_client(uri="https://a/b").backend == "http"
    client = FileClient.infer_client({"backend": "http", "timeout": 3})
    assert isinstance(client.client, HTTPBackend)
    assert client.client.timeout == 3
    with pytest.raises(ValueError, match="got None for both"):
        FileClient.infer_client()
    with pytest.raises(ValueError, match="got 'nosuch'"):
        FileClient(prefix="nosuch")


@pytest.mark.usefixtures("clean_registry")
def test_what_a_backend_cannot_do_is_said_and_what_follows_from_get_works():
    FileClient.register_backend("toy", Toy)
    client = FileClient("toy")
    for operation, arguments in [
        ("put", (b"", "a")),
        ("put_text", ("", "a")),
        ("remove", ("a",)),
        ("exists", ("a",)),
        ("isfile", ("a",)),
        ("isdir", ("a",)),
        ("list_dir_or_file", ("a",)),
    ]:
        with pytest.raises(io.UnsupportedOperation, match="Toy cannot do"):
            getattr(client, operation)(*arguments)
    with client.get_local_path("folder/a.jpg?x=1") as path:
        assert path.endswith(".jpg")
        assert Path(path).read_bytes() == b"content of folder/a.jpg?x=1"
    assert not Path(path).exists()
    assert client.join_path("toy://a/", "b", "/c.txt") == "toy://a/b/c.txt"


@pytest.fixture
def tree(tmp_path):
    for name in ["b.txt", "a.jpg", "sub/c.txt", "sub/deep/d.jpg", ".hidden", ".git/e.txt"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


LISTINGS = [
    ({}, ["a.jpg", "b.txt", "sub"]),
    ({"list_dir": False}, ["a.jpg", "b.txt"]),
    ({"list_file": False}, ["sub"]),
    ({"recursive": True}, ["a.jpg", "b.txt", "sub", "sub/c.txt", "sub/deep", "sub/deep/d.jpg"]),
    ({"recursive": True, "list_file": False}, ["sub", "sub/deep"]),
    ({"recursive": True, "list_dir": False, "suffix": ".txt"}, ["b.txt", "sub/c.txt"]),
    ({"list_dir": False, "suffix": (".txt", ".jpg")}, ["a.jpg", "b.txt"]),
]


@pytest.mark.parametrize(("arguments", "want"), LISTINGS)
def test_disk_listing(tree, arguments, want):
    assert list(FileClient().list_dir_or_file(tree, **arguments)) == want
    assert list(FileClient().list_dir_or_file(str(tree), **arguments)) == want


def test_listing_refusals(tree):
    with pytest.raises(TypeError, match="list_dir must be False when suffix is given"):
        FileClient().list_dir_or_file(tree, suffix=".txt")
    with pytest.raises(TypeError, match="suffix must be a str or a tuple of str, got list"):
        FileClient().list_dir_or_file(tree, list_dir=False, suffix=[".txt"])
    with pytest.raises(FileNotFoundError):
        list(FileClient().list_dir_or_file(tree / "absent"))


def test_disk(tmp_path):
    client = FileClient("disk")
    path = tmp_path / "new" / "a.bin"
    assert not client.exists(path)
    client.put(b"\x00\r\n", path)
    assert client.get(path) == client.get(str(path)) == b"\x00\r\n"
    client.put_text("ö\r\nx", path)
    assert client.get_text(path) == "ö\nx"
    client.put_text("ö", path, encoding="latin-1")
    assert client.get_text(path, encoding="latin-1") == "ö"
    with pytest.raises(UnicodeDecodeError, match=r"in .*a\.bin, line 1"):
        client.get_text(path)
    assert (client.exists(path), client.isfile(path), client.isdir(path)) == (True, True, False)
    assert (client.exists(tmp_path), client.isfile(tmp_path), client.isdir(tmp_path)) == (True, False, True)
    assert client.join_path(tmp_path, "new", "a.bin") == str(path)
    with client.get_local_path(path) as local:
        assert local == str(path)
    assert path.exists()
    assert client.get(path.as_uri()) == client.get(path)
    client.remove(path)
    for operation in (client.get, client.get_text, client.remove):
        with pytest.raises(FileNotFoundError, match=r"a\.bin"):
            operation(path)
    with pytest.raises(ValueError, match="no other host"):
        client.get("file://elsewhere/a")


def test_clients_can_be_pickled(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    client = pickle.loads(pickle.dumps(FileClient()))
    assert client.get(tmp_path / "a") == b"x"
    assert pickle.loads(pickle.dumps(FileClient("http", retries=5))).client.retries == 5
