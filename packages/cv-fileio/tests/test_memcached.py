"""The memcached backend against real servers, started here."""

import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from cv.fileio import FileClient, MemcachedBackend, dump, load

pytest.importorskip("pymemcache", reason="the pymemcache package is not installed")
BINARY = shutil.which("memcached")
if BINARY is None:
    pytest.skip("no memcached server on the path (apt-get install memcached)", allow_module_level=True)


def start_server():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BINARY, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64", "-u", "nobody"]
    process = subprocess.Popen(command)
    for _ in range(500):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"127.0.0.1:{port}"
        assert process.poll() is None, "memcached ended at once"
        time.sleep(0.01)
    raise AssertionError("memcached did not open its port")


@pytest.fixture
def servers():
    running = [start_server(), start_server()]
    yield running
    for process, _ in running:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture
def client(servers):
    client = FileClient("memcached", server_list_cfg=[servers[0][1]], client_cfg={"timeout": 5.0})
    yield client
    client.client.close()


NAMES = [
    "a.jpg",
    "folder/with space.jpg",
    "line\nbreak",
    "größe.txt",
    "long/" * 100,
    "x" * 250,
    "x" * 251,
    "\x7f",
]


def test_round_trip(client):
    for number, name in enumerate(NAMES):
        assert not client.exists(name)
        client.put(bytes([number, 255, 0]), name)
    for number, name in enumerate(NAMES):
        assert client.get(name) == bytes([number, 255, 0])
        assert client.isfile(name)
    client.put_text("ö\r\n", Path("a.jpg"))
    assert client.get_text("a.jpg") == "ö\r\n"
    with client.get_local_path("a.jpg") as path:
        assert Path(path).read_bytes() == "ö\r\n".encode()
    client.remove("a.jpg")
    assert not client.exists("a.jpg")


def test_wrong_key(client, servers):
    for operation in (client.get, client.get_text, client.remove):
        with pytest.raises(FileNotFoundError, match=f"no key 'absent' on {servers[0][1]}"):
            operation("absent")


def test_keys_are_shared_between_servers(servers):
    addresses = [address for _, address in servers]
    both = MemcachedBackend(addresses)
    for number in range(50):
        both.put(str(number).encode(), f"key{number}")
    alone = [MemcachedBackend(address) for address in addresses]
    counts = [sum(one.exists(f"key{number}") for number in range(50)) for one in alone]
    assert sum(counts) == 50
    assert min(counts) > 0
    for backend in (both, *alone):
        backend.close()


def test_configuration_files(servers, tmp_path):
    (tmp_path / "servers.conf").write_text(f"# ours\n{servers[0][1]}  # first\n\n{servers[1][1]}\n")
    dump({"timeout": 3.0}, tmp_path / "client.yaml")
    args = {
        "backend": "memcached",
        "server_list_cfg": str(tmp_path / "servers.conf"),
        "client_cfg": str(tmp_path / "client.yaml"),
    }
    dump([1, 2], "list.json", file_client_args=args)
    assert load("list.json", file_client_args=args) == [1, 2]
    backend = MemcachedBackend(args["server_list_cfg"], args["client_cfg"])
    assert backend.servers == [address for _, address in servers]
    assert backend._options["timeout"] == 3.0


def test_a_value_that_is_too_large(client):
    with pytest.raises(OSError, match="too large"):
        client.put(b"x" * (2 << 20), "big")
    client.put(b"small", "big")
    assert client.get("big") == b"small", "the connection goes on"


def test_the_server_dies(client, servers):
    client.put(b"1", "a")
    process, address = servers[0]
    process.kill()
    process.wait()
    for _ in range(2):
        with pytest.raises(ConnectionError, match=f"memcached at {address}"):
            client.get("a")


def test_the_server_hangs(servers):
    process, address = servers[0]
    client = FileClient("memcached", server_list_cfg=address, client_cfg={"timeout": 0.2})
    client.put(b"1", "a")
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # until it has stopped: it may still answer before
    with pytest.raises(TimeoutError, match=f"memcached at {address} did not answer in time"):
        client.get("a")
    process.send_signal(signal.SIGCONT)
    client.client.close()
    assert client.get("a") == b"1"
    client.client.close()


def _read(client, name):
    return client.get(name)


def test_in_forked_workers_after_use_in_the_parent(client):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    for number in range(20):
        client.put(str(number).encode(), f"k{number}")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        got = pool.starmap(_read, [(client, f"k{number}") for number in range(20)])
    assert got == [str(number).encode() for number in range(20)]
    assert client.get("k1") == b"1"
    assert pickle.loads(pickle.dumps(client)).client.servers == client.client.servers


def test_bad_configuration(tmp_path):
    with pytest.raises(ValueError, match="must name at least one server"):
        MemcachedBackend([])
    with pytest.raises(ValueError, match="must be 'host:port' or a socket path, got 'host'"):
        MemcachedBackend(["host"])
    with pytest.raises(FileNotFoundError, match="neither a file nor 'host:port'"):
        MemcachedBackend(str(tmp_path / "absent"))
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(TypeError, match="client_cfg must hold a mapping, got list"):
        MemcachedBackend(["h:1"], tmp_path / "c.json")
