"""The http backend against a real server, with the faults real servers have."""

import io
import json
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from cv.fileio import FileClient, HTTPBackend, list_from_file, load
from cv.fileio.backends import http as http_module

CONTENT = bytes(range(256)) * 8000  # 2 MB: more than one read and more than a socket's buffer


class Handler(BaseHTTPRequestHandler):
    """One path per behaviour; the server counts what it is asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.server.requests.append(self)
        self.answer(200 if self.path == "/plain" else 404)

    def do_GET(self):
        self.server.requests.append(self)
        count = sum(request.path == self.path for request in self.server.requests)
        getattr(self, "get_" + self.path.strip("/").split("/")[0].split("?")[0].replace(".", "_"))(count)

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self, body, sent, **headers):
        """Announce the whole body, send a part, hang up."""
        self.close_connection = True
        self.send_response(200)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body[:sent])

    def get_plain(self, count):
        self.answer(200, CONTENT)

    def get_data_json(self, count):
        self.answer(200, b'{"a": 1}')

    def get_lines_txt(self, count):
        self.answer(200, b"a\r\nb\n")

    def get_latin(self, count):
        self.answer(200, b"ok\n\xf6")

    def get_empty(self, count):
        self.answer(200)

    def get_chunked(self, count):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(CONTENT), 700_001):
            piece = CONTENT[start : start + 700_001]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def get_brokenchunks(self, count):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (5, b"hello"))

    def get_redirect(self, count):
        self.answer(302, Location="/plain")

    def get_elsewhere(self, count):
        self.answer(302, Location=self.server.other + "/headers")

    def get_loop(self, count):
        self.answer(302, Location="/loop")

    def get_tofile(self, count):
        self.answer(302, Location="file:///etc/hostname")

    def get_toftp(self, count):
        self.answer(302, Location="ftp://127.0.0.1/a")

    def get_headers(self, count):
        self.answer(200, json.dumps(dict(self.headers)).encode())

    def get_flaky(self, count):
        self.answer(500 if count <= 2 else 200, b"finally")

    def get_busy(self, count):
        if count == 1:
            self.answer(429, Retry_After="1")
        else:
            self.answer(200, b"ok")

    def get_status(self, count):
        self.answer(int(self.path.rsplit("/", 1)[1]), b"why")

    def get_stalled(self, count):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.server.stop.wait(20)
        self.close_connection = True

    def get_silent(self, count):
        self.server.stop.wait(20)
        self.close_connection = True

    def get_truncated(self, count):
        self.cut(CONTENT, 1000)

    def get_resume(self, count):
        """Break off each answer after 900 kB, but honour ranges."""
        etag = '"v1"'
        first = self.headers.get("Range")
        if first is None:
            self.cut(CONTENT, 900_000, ETag=etag, Accept_Ranges="bytes")
            return
        assert self.headers["If-Range"] == etag
        start = int(first.removeprefix("bytes=").rstrip("-"))
        self.close_connection = True
        self.send_response(206)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 900_000])

    def get_changed(self, count):
        """The content changes between the attempts: the second answer is whole and new."""
        if count == 1:
            self.cut(CONTENT, 900_000, ETag='"v1"')
        else:
            self.answer(200, b"new content", ETag='"v2"')

    def get_weak(self, count):
        """A weak validator must not be used to put halves together."""
        assert self.headers.get("Range") is None
        if count == 1:
            self.cut(CONTENT, 900_000, ETag='W/"v1"', Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT")
        else:
            self.answer(200, CONTENT)


def _serve():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.stop = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    return server, thread


@pytest.fixture
def server():
    server, thread = _serve()
    other, other_thread = _serve()
    server.other = other.url.replace("127.0.0.1", "localhost")
    server.other_requests = other.requests
    yield server
    for each, its_thread in ((server, thread), (other, other_thread)):
        each.stop.set()
        each.shutdown()
        its_thread.join()
        each.server_close()


@pytest.fixture
def client():
    return FileClient("http", timeout=1.0, retries=3, backoff=0.0)


@pytest.fixture
def naps(monkeypatch):
    """What the backend would sleep, without sleeping."""
    slept = []
    monkeypatch.setattr(http_module.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("path", ["/plain", "/redirect", "/chunked", "/plain?x=1"])
def test_get(server, client, path):
    assert client.get(server.url + path) == CONTENT


def test_text_lists_and_load(server, client):
    assert client.get(server.url + "/empty") == b""
    assert load(server.url + "/data.json") == {"a": 1}
    assert load(server.url + "/data.json?token=a.b#part") == {"a": 1}
    assert list_from_file(server.url + "/lines.txt", prefix="x") == ["xa", "xb"]
    assert client.get_text(server.url + "/latin", encoding="latin-1") == "ok\nö"
    with pytest.raises(UnicodeDecodeError, match=r"in http://.*/latin, line 2"):
        client.get_text(server.url + "/latin")


def test_a_path_object_works(server, client):
    assert client.get(Path(server.url) / "data.json") == b'{"a": 1}'
    assert load(Path(server.url) / "data.json") == {"a": 1}


def test_get_local_path(server, client):
    with client.get_local_path(server.url + "/data.json?x=1.png") as path:
        assert path.endswith(".json")
        assert Path(path).read_bytes() == b'{"a": 1}'
    assert not Path(path).exists()
    with pytest.raises(FileNotFoundError), client.get_local_path(server.url + "/status/404"):
        pass


def test_exists(server, client):
    assert client.exists(server.url + "/plain")
    assert client.isfile(server.url + "/plain")
    assert not client.exists(server.url + "/absent")
    assert [request.command for request in server.requests] == ["HEAD"] * 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FileNotFoundError), (410, FileNotFoundError), (403, PermissionError), (401, PermissionError)],
)
def test_refusals_are_not_repeated(server, client, status, kind):
    with pytest.raises(kind, match=f"{server.url}/status/{status}: {status}") as caught:
        client.get(f"{server.url}/status/{status}")
    assert isinstance(caught.value.__cause__, HTTPError)
    assert len(server.requests) == 1


def test_other_refusals(server, client):
    with pytest.raises(HTTPError) as caught:
        client.get(server.url + "/status/418")
    assert caught.value.code == 418
    assert len(server.requests) == 1


def test_500_then_success(server, client):
    assert client.get(server.url + "/flaky") == b"finally"
    assert len(server.requests) == 3


def test_500_for_good(server, client):
    with pytest.raises(HTTPError) as caught:
        client.get(server.url + "/status/503")
    assert caught.value.code == 503
    assert len(server.requests) == 4, "the first attempt and three more"
    server.requests.clear()
    with pytest.raises(HTTPError):
        FileClient("http", retries=0).get(server.url + "/status/503")
    assert len(server.requests) == 1


def test_back_off(server, naps):
    with pytest.raises(HTTPError):
        FileClient("http", retries=4, backoff=0.5).get(server.url + "/status/500")
    assert naps == [0.5, 1.0, 2.0, 4.0]
    naps.clear()
    assert FileClient("http", backoff=0.1).get(server.url + "/busy") == b"ok"
    assert naps == [1.0], "as Retry-After asks"


@pytest.mark.parametrize("path", ["/stalled", "/silent"])
def test_a_stalled_answer_ends_in_a_timeout(server, path):
    client = FileClient("http", timeout=0.2, retries=1, backoff=0.0)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=f"{path}: no answer within 0.2 s"):
        client.get(server.url + path)
    assert time.monotonic() - start < 15, "the server itself would stall for 20 s"
    assert len(server.requests) == 2


@pytest.mark.parametrize("path", ["/truncated", "/brokenchunks"])
def test_a_truncated_answer_is_never_taken_for_whole(server, client, path):
    with pytest.raises(ConnectionError, match="the connection was lost"):
        client.get(server.url + path)
    assert len(server.requests) == 4


def test_a_broken_download_continues_where_it_stopped(server, client):
    assert client.get(server.url + "/resume") == CONTENT
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, "bytes=900000-", "bytes=1800000-"]
    server.requests.clear()
    with client.get_local_path(server.url + "/resume") as path:
        assert Path(path).read_bytes() == CONTENT


def test_download_tells_how_far_it_is(server):
    for path in ("/plain", "/chunked"):
        told = []
        file = io.BytesIO()
        HTTPBackend().download(server.url + path, file, progress=lambda *args, told=told: told.append(args))
        assert file.getvalue() == CONTENT
        done = [received for received, _ in told]
        assert done == sorted(set(done))
        assert done[-1] == len(CONTENT)
        assert {total for _, total in told} == {None if path == "/chunked" else len(CONTENT)}


def test_halves_of_different_versions_are_not_put_together(server, client):
    assert client.get(server.url + "/changed") == b"new content"
    assert client.get(server.url + "/weak") == CONTENT


def test_no_server():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = FileClient("http", retries=1, backoff=0.0)
    with pytest.raises(ConnectionError, match=f"http://127.0.0.1:{port}/a: .*refused"):
        client.get(f"http://127.0.0.1:{port}/a")


def test_redirects_stay_on_http(server, client):
    for path in ("/tofile", "/toftp"):
        with pytest.raises(OSError, match=r"(?i)redirect|unknown url type"):
            client.get(server.url + path)
    with pytest.raises(HTTPError, match="infinite loop"):
        client.get(server.url + "/loop")


def test_headers_are_sent_but_not_to_another_host(server):
    client = FileClient("http", headers={"Authorization": "Bearer secret"})
    sent = json.loads(client.get(server.url + "/headers"))
    assert sent["Authorization"] == "Bearer secret"
    assert sent["User-Agent"] == "cv-fileio"
    sent = json.loads(client.get(server.url + "/elsewhere"))
    assert "Authorization" not in sent
    assert len(server.other_requests) == 1


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://a/b", "a.txt", "/a", "http", "https:x"])
def test_other_urls_are_refused(client, url):
    with pytest.raises(ValueError, match="must be an http:// or https:// URL"):
        client.get(url)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"timeout": 0}, "timeout must be positive, got 0"),
        ({"retries": -1}, "retries must not be negative, got -1"),
        ({"backoff": -0.5}, "backoff must not be negative, got -0.5"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        HTTPBackend(**arguments)
