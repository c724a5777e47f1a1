"""The ceph backend, which speaks S3, against a local S3 server (moto)."""

import pickle
import warnings
from pathlib import Path

import pytest

from cv.fileio import CephBackend, FileClient, PetrelBackend, dump, list_from_file, load

boto3 = pytest.importorskip("boto3", reason="the boto3 package is not installed")
pytest.importorskip("flask", reason="moto's server needs flask")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of moto's own dependencies
    moto_server = pytest.importorskip("moto.server", reason="the moto package is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

FILES = {"a.jpg": b"\x00a", "b.txt": "ö\nb".encode(), "sub/c.txt": b"c", "sub/deep/d.jpg": b"d"}


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def options(endpoint, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = {"endpoint_url": endpoint, "access_key": "k", "secret_key": "s", "region_name": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="data")
    for name, content in FILES.items():
        client.put_object(Bucket="data", Key=f"set/{name}", Body=content)
    yield options
    for item in client.list_objects_v2(Bucket="data").get("Contents", ()):
        client.delete_object(Bucket="data", Key=item["Key"])
    client.delete_bucket(Bucket="data")
    client.close()


@pytest.mark.parametrize("backend", ["ceph", "petrel"])
def test_read_and_write(options, backend):
    client = FileClient(backend, **options)
    for name, content in FILES.items():
        assert client.get(f"s3://data/set/{name}") == content
        assert client.get(Path("s3://data/set") / name) == content
    assert client.get_text("s3://data/set/b.txt") == "ö\nb"
    client.put(b"\x00" * 100_000, "s3://data/new/with space ö")
    assert client.get("s3://data/new/with space ö") == b"\x00" * 100_000
    client.put_text("ö", "s3://data/new/t")
    assert client.get("s3://data/new/t") == "ö".encode()
    client.remove("s3://data/new/t")
    assert not client.exists("s3://data/new/t")
    with client.get_local_path("s3://data/set/a.jpg") as path:
        assert path.endswith(".jpg")
        assert Path(path).read_bytes() == FILES["a.jpg"]
    assert not Path(path).exists()


def test_load_dump_and_lists(options):
    args = {"backend": "ceph", **options}
    dump({"a": 1}, "s3://data/x.json.gz", file_client_args=args)
    assert load("s3://data/x.json.gz", file_client_args=args) == {"a": 1}
    assert list_from_file("s3://data/set/b.txt", file_client_args=args) == ["ö", "b"]


def test_exists_and_list(options):
    client = FileClient("ceph", **options)
    assert (client.exists("s3://data/set"), client.isdir("s3://data/set/")) == (True, True)
    assert (client.isfile("s3://data/set"), client.isfile("s3://data/set/a.jpg")) == (False, True)
    assert (client.isdir("s3://data"), client.isfile("s3://data"), client.isdir("s3://none")) == (
        True,
        False,
        False,
    )
    assert not client.exists("s3://data/se")
    assert list(client.list_dir_or_file("s3://data/set")) == ["a.jpg", "b.txt", "sub"]
    found = client.list_dir_or_file("s3://data/set", list_dir=False, recursive=True, suffix=".jpg")
    assert list(found) == ["a.jpg", "sub/deep/d.jpg"]
    assert list(client.list_dir_or_file("s3://data", list_file=False, recursive=True)) == [
        "set",
        "set/sub",
        "set/sub/deep",
    ]
    assert client.join_path("s3://data/set", "sub", "c.txt") == "s3://data/set/sub/c.txt"


def test_listing_goes_over_all_pages(options, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    client = FileClient("ceph", **options)
    names = [f"{number:02}" for number in range(10)]
    for name in names:
        client.put(b"", f"s3://data/many/{name}")
    assert list(client.list_dir_or_file("s3://data/many")) == names
    monkeypatch.delenv("MOTO_S3_DEFAULT_MAX_KEYS")  # the clean-up wants all names at once


def test_path_mapping(options):
    mapping = {"data/": "s3://data/", "data/coco": "s3://data/set", "s3://old": "s3://data/set"}
    client = FileClient("petrel", path_mapping=mapping, enable_mc=False, **options)
    assert client.get("data/set/a.jpg") == FILES["a.jpg"]
    assert client.get("data/coco/a.jpg") == FILES["a.jpg"], "the longest prefix counts"
    assert client.get("s3://old/a.jpg") == FILES["a.jpg"]
    with pytest.raises(ValueError, match=r"must be s3://bucket/key after path_mapping, got 'x/data/a'"):
        client.get("x/data/a")
    with pytest.raises(TypeError, match="path_mapping must be a dict or None, got str"):
        CephBackend("s3://a")


def test_faults(options):
    client = FileClient("ceph", **options)
    for operation in (client.get, client.get_text, client.remove):
        for path in ("s3://data/absent", "s3://nobucket/a"):
            with pytest.raises(FileNotFoundError, match=path):
                operation(path)
    fast = {"connect_timeout": 1, "retries": {"max_attempts": 1}}
    nobody = FileClient("ceph", **{**options, "endpoint_url": "http://127.0.0.1:9"}, client_config=fast)
    with pytest.raises(ConnectionError, match="s3://data/a"):
        nobody.get("s3://data/a")
    anonymous = FileClient("ceph", endpoint_url=options["endpoint_url"], region_name="us-east-1")
    with pytest.raises(PermissionError, match="credentials"):
        anonymous.get("s3://data/a")


def test_pickle(options):
    client = FileClient("ceph", **options)
    client.get("s3://data/set/a.jpg")
    copy = pickle.loads(pickle.dumps(client))
    assert copy.get("s3://data/set/a.jpg") == FILES["a.jpg"]
    assert isinstance(PetrelBackend(enable_mc=True), CephBackend)
