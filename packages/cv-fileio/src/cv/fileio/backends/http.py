"""Files behind http and https URLs, with a timeout, bounded retries and resumed downloads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .base import RemoteBackend, StrPath

_CHUNK = 1 << 20


class HTTPBackend(RemoteBackend):
    """Read over HTTP(S).

    A connection that is refused, lost, silent for ``timeout`` seconds or cut short, and the answers 408,
    425, 429 and 5xx, are tried again after ``backoff``, ``2 · backoff``, ``4 · backoff`` … seconds (or
    what ``Retry-After`` asks, up to a minute). A download that broke off continues where it stopped if
    the server can (``Range`` with ``If-Range``, RFC 9110 sections 13.1.5 and 14). Redirects are followed
    to http and https only. The proxy variables of the environment are honoured.

    Args:
        timeout: Seconds without a byte before an attempt counts as failed.
        retries: How often to try again after the first attempt.
        backoff: Seconds before the first new attempt.
        headers: Sent with each request, such as ``{'Authorization': 'Bearer …'}``. They are not
            forwarded to another host by a redirect.

    Raises:
        FileNotFoundError: 404 and 410.
        PermissionError: 401 and 403.
        TimeoutError: No answer in time, after all attempts.
        ConnectionError: The connection failed or broke, after all attempts.
        urllib.error.HTTPError: Any other refusal; an ``OSError``.
    """

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        backoff: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        if retries < 0:
            raise ValueError(f"retries must not be negative, got {retries}")
        if backoff < 0:
            raise ValueError(f"backoff must not be negative, got {backoff}")
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.headers = {"User-Agent": "cv-fileio", **(headers or {})}

    def get(self, filepath: StrPath) -> bytes:
        """Download a URL."""
        import io

        buffer = io.BytesIO()
        self.download(filepath, buffer)
        return buffer.getvalue()

    def exists(self, filepath: StrPath) -> bool:
        """Whether the server has the URL (a ``HEAD`` request answers)."""
        try:
            self._retry(lambda: self._open(_url(filepath), "HEAD").close(), _url(filepath))
        except FileNotFoundError:
            return False
        return True

    def isfile(self, filepath: StrPath) -> bool:
        """The same as :meth:`exists`: HTTP knows no folders."""
        return self.exists(filepath)

    @contextmanager
    def get_local_path(self, filepath: StrPath) -> Iterator[str]:
        """Download to a temporary file, without holding the content in memory; removed at the end."""
        import tempfile
        from urllib.parse import urlsplit

        url = _url(filepath)
        suffix = os.path.splitext(urlsplit(url).path)[1]  # noqa: PTH122
        descriptor, path = tempfile.mkstemp(suffix=suffix, prefix="cv-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                self.download(url, file)
            yield path
        finally:
            with suppress(FileNotFoundError):
                Path(path).unlink()

    def download(
        self,
        filepath: StrPath,
        file: IO[bytes],
        *,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        """Write the content of a URL to a file, piece by piece.

        Args:
            filepath: The URL.
            file: A file that is open for writing, empty, and can seek.
            progress: Called after each piece as ``progress(received, total)``, in bytes; ``total`` is None
                if the server does not say. After a broken attempt ``received`` may be less than before.
        """
        url = _url(filepath)
        validator: str | None = None  # what names this version of the content

        def attempt() -> None:
            nonlocal validator
            from http.client import IncompleteRead

            start = file.tell()
            if start and not validator:
                start = 0
            ranged = {"Range": f"bytes={start}-", "If-Range": validator} if start and validator else {}
            with self._open(url, "GET", ranged) as response:
                if not (response.status == 206 and _range_start(response) == start):
                    start = 0  # the whole content: the server cannot resume, or it changed meanwhile
                file.seek(start)
                file.truncate()
                validator = _validator(response)
                expected = response.length
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    if progress is not None:
                        progress(file.tell(), None if expected is None else start + expected)
                if expected is not None and file.tell() - start < expected:
                    raise IncompleteRead(b"", expected - (file.tell() - start))

        self._retry(attempt, url)

    def _retry(self, attempt: Any, url: str) -> None:
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError

        for number in range(self.retries + 1):
            delay = self.backoff * 2**number
            failure: OSError
            try:
                attempt()
            except HTTPError as error:
                error.close()
                failure = _explain(error, url)
                if not (error.code >= 500 or error.code in (408, 425, 429)) or error.code == 501:
                    raise failure from (error if failure is not error else None)
                delay = max(delay, _retry_after(error))
            except TimeoutError as error:
                failure = TimeoutError(f"{url}: no answer within {self.timeout} s")
                failure.__cause__ = error
            except URLError as error:
                if isinstance(error.reason, TimeoutError):
                    failure = TimeoutError(f"{url}: no answer within {self.timeout} s")
                elif isinstance(error.reason, OSError):
                    failure = ConnectionError(f"{url}: {error.reason}")
                else:  # an unknown scheme, a redirect to one: trying again changes nothing
                    raise
                failure.__cause__ = error
            except (HTTPException, ConnectionError) as error:  # cut off in the middle, garbage
                detail = str(error) or type(error).__name__
                failure = ConnectionError(f"{url}: the connection was lost: {detail}")
                failure.__cause__ = error
            else:
                return
            if number == self.retries:
                raise failure
            time.sleep(delay)

    def _open(self, url: str, method: str, headers: Mapping[str, str] | None = None) -> Any:
        from urllib.request import Request

        request = Request(url, method=method)
        for name, value in {**(headers or {})}.items():
            request.add_header(name, value)
        for name, value in self.headers.items():
            # "Unredirected": a token for this host is nothing another host should see.
            request.add_unredirected_header(name, value)
        return _opener().open(request, timeout=self.timeout)


def _opener() -> Any:
    """urllib's opener without ftp, file and data URLs, to which a redirect could otherwise lead."""
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _url(filepath: StrPath) -> str:
    """The URL as text; ``Path`` makes ``http:/host`` of ``http://host``, which is undone."""
    url = os.fspath(filepath)
    scheme, separator, rest = url.partition(":/")
    if scheme.lower() not in ("http", "https") or not separator:
        raise ValueError(f"filepath must be an http:// or https:// URL, got {url!r}")
    return f"{scheme}://{rest.lstrip('/')}"


def _validator(response: Any) -> str | None:
    """A strong ETag, else the date: only these may guard a resumed download."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    date = response.headers.get("Last-Modified")
    return str(date) if date and not etag else None


def _range_start(response: Any) -> int | None:
    value = response.headers.get("Content-Range", "")
    first = value.removeprefix("bytes ").split("-")[0]
    return int(first) if first.isdigit() else None


def _retry_after(error: Any) -> float:
    value = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(value), 60.0) if value.isdigit() else 0.0


def _explain(error: Any, url: str) -> OSError:
    if error.code in (404, 410):
        return FileNotFoundError(f"{url}: {error.code} {error.reason}")
    if error.code in (401, 403):
        return PermissionError(f"{url}: {error.code} {error.reason}")
    result: OSError = error
    return result
