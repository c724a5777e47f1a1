"""Objects of a Ceph cluster, through the S3 interface of its RADOS gateway (or of any S3 service)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cv.fileio.errors import missing_extra

from .base import RemoteBackend, StrPath, check_listing, names_below


class CephBackend(RemoteBackend):
    """Paths are ``s3://bucket/key``.

    Credentials, region and endpoint come from the arguments or, as for every AWS tool, from the
    environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL`` …) and
    ``~/.aws``. The connection is made at first use, once in each process.

    Args:
        path_mapping: Prefixes of paths and what to put in their place, such as
            ``{'data/coco': 's3://datasets/coco'}``; the longest prefix that fits is used.
        endpoint_url: The gateway, such as ``'https://rgw.example.org'``.
        access_key: Access key id.
        secret_key: Secret access key.
        region_name: Region; a RADOS gateway takes any.
        client_config: Options for ``botocore.config.Config`` (timeouts, retries, proxies …).

    Raises:
        ImportError: ``boto3`` is not installed.
        FileNotFoundError: The bucket or key is not there.
        PermissionError: The credentials are missing or do not suffice.
        ConnectionError: The gateway cannot be reached.
    """

    def __init__(
        self,
        path_mapping: Mapping[str, str] | None = None,
        *,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        region_name: str | None = None,
        client_config: Mapping[str, Any] | None = None,
    ) -> None:
        if path_mapping is not None and not isinstance(path_mapping, Mapping):
            raise TypeError(f"path_mapping must be a dict or None, got {type(path_mapping).__name__}")
        _boto()
        self.path_mapping = dict(path_mapping or {})
        self._options = {
            "endpoint_url": endpoint_url,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "region_name": region_name,
        }
        self._config = {"connect_timeout": 10, "read_timeout": 30, **(client_config or {})}
        self._client: tuple[int, Any] | None = None

    def get(self, filepath: StrPath) -> bytes:
        """Read an object."""
        bucket, key = self._locate(filepath)
        with self._connection(filepath) as client:
            return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def put(self, obj: bytes, filepath: StrPath) -> None:
        """Write an object; S3 shows it only when it is complete."""
        bucket, key = self._locate(filepath)
        with self._connection(filepath) as client:
            client.put_object(Bucket=bucket, Key=key, Body=bytes(obj))

    def remove(self, filepath: StrPath) -> None:
        """Delete an object."""
        bucket, key = self._locate(filepath)
        with self._connection(filepath) as client:
            client.head_object(Bucket=bucket, Key=key)  # S3 deletes what is not there without a word
            client.delete_object(Bucket=bucket, Key=key)

    def exists(self, filepath: StrPath) -> bool:
        """Whether there is an object of this name, or objects below it."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath: StrPath) -> bool:
        """Whether there is an object of this name."""
        bucket, key = self._locate(filepath)
        if not key:
            return False
        try:
            with self._connection(filepath) as client:
                client.head_object(Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, filepath: StrPath) -> bool:
        """Whether there are objects below this name."""
        bucket, key = self._locate(filepath)
        prefix = f"{key.rstrip('/')}/" if key else ""
        try:
            with self._connection(filepath) as client:
                found = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return bool(found.get("KeyCount"))

    def list_dir_or_file(
        self,
        dir_path: StrPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names below a prefix, taking ``/`` in keys as the separator."""
        check_listing(list_dir, suffix)
        bucket, key = self._locate(dir_path)
        prefix = f"{key.rstrip('/')}/" if key else ""
        with self._connection(dir_path) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [item["Key"][len(prefix) :] for page in pages for item in page.get("Contents", ())]
        return iter(names_below(iter(keys), list_dir, list_file, suffix, recursive))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def _locate(self, filepath: StrPath) -> tuple[str, str]:
        """Bucket and key of a path, after the mapping."""
        path = os.fspath(filepath)
        prefixes = [prefix for prefix in self.path_mapping if path.startswith(prefix)]
        if prefixes:
            prefix = max(prefixes, key=len)
            path = self.path_mapping[prefix] + path[len(prefix) :]
        scheme, separator, rest = path.partition(":/")  # Path makes s3:/bucket of s3://bucket
        bucket, _, key = rest.lstrip("/").partition("/")
        if scheme != "s3" or not separator or not bucket:
            raise ValueError(f"filepath must be s3://bucket/key after path_mapping, got {path!r}")
        return bucket, key

    @contextmanager
    def _connection(self, filepath: StrPath) -> Iterator[Any]:
        boto3, config, errors = _boto()
        if self._client is None or self._client[0] != os.getpid():
            session = boto3.session.Session()
            settings = config.Config(**self._config)
            self._client = (os.getpid(), session.client("s3", config=settings, **self._options))
        path = os.fspath(filepath)
        try:
            yield self._client[1]
        except errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            kind: type[OSError] = OSError
            if code in ("NoSuchKey", "NoSuchBucket", "404"):
                kind = FileNotFoundError
            elif code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401", "403"):
                kind = PermissionError
            raise kind(f"{path}: {error}") from error
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
            raise PermissionError(f"{path}: {error}") from error
        except (errors.ConnectTimeoutError, errors.ReadTimeoutError) as error:
            raise TimeoutError(f"{path}: {error}") from error
        except errors.BotoCoreError as error:
            raise ConnectionError(f"{path}: {error}") from error


class PetrelBackend(CephBackend):
    """The name under which code for clusters with the Petrel client asks for S3 storage.

    Args:
        path_mapping: As for :class:`CephBackend`.
        enable_mc: Taken for the sake of such code, and of no effect: there is no memcached in between.
        **kwargs: As for :class:`CephBackend`.
    """

    def __init__(
        self, path_mapping: Mapping[str, str] | None = None, enable_mc: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(path_mapping, **kwargs)
        self.enable_mc = enable_mc


def _boto() -> tuple[Any, Any, Any]:
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ImportError as error:
        raise missing_extra("boto3", "s3", "the ceph backend") from error
    return boto3, botocore.config, botocore.exceptions
