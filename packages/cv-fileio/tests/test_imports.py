"""What `import cv.fileio` may load, and what it says when an extra is missing."""

import subprocess
import sys

import pytest

HEAVY = "numpy cv2 torch yaml pickle lmdb pymemcache boto3 fsspec orjson zstandard urllib.request http ssl"


def run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_import_is_light_and_silent():
    code = f"import sys, cv.fileio; print([m for m in {HEAVY.split()} if m in sys.modules])"
    assert run(code) == "[]\n"


@pytest.mark.parametrize(
    ("module", "call", "text"),
    [
        (
            "lmdb",
            "FileClient('lmdb', db_path='.')",
            "the lmdb backend needs lmdb: pip install cv-fileio[lmdb]",
        ),
        (
            "pymemcache",
            "FileClient('memcached', server_list_cfg='localhost:1')",
            "the memcached backend needs pymemcache: pip install cv-fileio[memcached]",
        ),
        ("boto3", "FileClient('ceph')", "the ceph backend needs boto3: pip install cv-fileio[s3]"),
        ("fsspec", "FileClient('fsspec')", "the fsspec backend needs fsspec: pip install cv-fileio[fsspec]"),
    ],
)
def test_missing_extras_are_named(module, call, text):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from cv.fileio import FileClient\n"
        f"try: {call}\n"
        "except ImportError as error: print(error)"
    )
    assert run(code) == text + "\n"


def test_unknown_prefix_without_fsspec_names_the_extra():
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from cv.fileio import FileClient\n"
        "try: FileClient(prefix='s3')\n"
        "except ValueError as error: print(error)"
    )
    assert "cv-fileio[fsspec]" in run(code)
