"""load and dump: formats, sources, faults."""

import gzip
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cv.fileio as fileio
from cv.fileio import CompressionError, ParseError
from cv.fileio.handlers import json_handler
from cv.fileio.io import file_handlers

FORMATS = ["json", "yaml", "yml", "pickle", "pkl"]
DATA = {"name": "größe", "values": [1, 2.5, None, True], "nested": {"a": []}}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_round_trip_through_paths(tmp_path, file_format, suffix):
    if suffix == ".zst" and sys.version_info < (3, 14):
        pytest.importorskip("zstandard", reason="the zstandard package is not installed")
    for path in (tmp_path / f"a.{file_format}{suffix}", str(tmp_path / f"b.{file_format}{suffix}")):
        assert fileio.dump(DATA, path) is True
        assert fileio.load(path) == DATA
        assert fileio.load(path, file_format=file_format) == DATA
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("file_format", FORMATS)
def test_round_trip_through_strings_and_streams(tmp_path, file_format):
    text = fileio.dump(DATA, file_format=file_format)
    assert isinstance(text, bytes if file_format in ("pickle", "pkl") else str)
    assert fileio.loads(text, file_format) == DATA
    binary = io.BytesIO()
    assert fileio.dump(DATA, binary, file_format) is True
    binary.seek(0)
    assert fileio.load(binary, file_format) == DATA
    if isinstance(text, str):
        assert fileio.loads(text.encode(), file_format) == DATA
        stream = io.StringIO()
        fileio.dump(DATA, stream, file_format)
        stream.seek(0)
        assert fileio.load(stream, file_format) == DATA
    with tempfile.NamedTemporaryFile(suffix=f".{file_format}", dir=tmp_path) as file:
        fileio.dump(DATA, file)  # the format from the stream's own name
        file.seek(0)
        assert fileio.load(file) == DATA


@given(plain)
def test_json_round_trip_property(obj):
    assert fileio.loads(fileio.dump(obj, file_format="json"), "json") == obj


@given(plain)
def test_yaml_round_trip_property(obj):
    assert fileio.loads(fileio.dump(obj, file_format="yaml"), "yaml") == obj


@given(plain)
def test_the_fast_parser_and_the_standard_library_agree(obj):
    pytest.importorskip("orjson", reason="the orjson package is not installed")
    text = json.dumps(obj)
    got = fileio.loads(text, "json")
    assert got == json.loads(text)
    assert repr(got) == repr(json.loads(text)), "equal is not enough: 1 and 1.0, or a rounded integer"


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**40, 0.1, 1e308, 5e-324, 2**53 + 1]
)
def test_numbers_come_back_exactly(number):
    got = fileio.loads(json.dumps([number]), "json")[0]
    assert got == number
    assert type(got) is type(number)


def test_long_integers_are_seen_across_blocks():
    for shift in range(25):
        text = '"' + "x" * ((1 << 20) - shift) + '"'
        assert fileio.loads(f"[{text}, {2**64 + 1}]", "json")[1] == 2**64 + 1


def test_json_takes_nan_and_infinity_as_python_writes_them():
    text = fileio.dump([float("inf"), float("nan")], file_format="json")
    got = fileio.loads(text, "json")
    assert got[0] == float("inf")
    assert got[1] != got[1]


def test_json_takes_sets_ranges_and_numpy():
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    obj = {
        "set": {3},
        "range": range(3),
        "float32": np.float32(0.5),
        "int64": np.int64(7),
        "bool": np.bool_(True),
        "array": np.arange(6).reshape(2, 3),
        "empty": np.zeros((0, 4)),
    }
    want = {
        "set": [3],
        "range": [0, 1, 2],
        "float32": 0.5,
        "int64": 7,
        "bool": True,
        "array": [[0, 1, 2], [3, 4, 5]],
        "empty": [],
    }
    assert fileio.loads(fileio.dump(obj, file_format="json"), "json") == want
    del obj["set"], want["set"]
    assert fileio.loads(fileio.dump(obj, file_format="yaml"), "yaml") == want


def test_what_json_cannot_say():
    with pytest.raises(TypeError, match=r"builtins\.object has no JSON form"):
        fileio.dump(object(), file_format="json")
    assert fileio.dump({1j}, file_format="json", default=str) == '"{1j}"'


def test_json_arguments_pass_through():
    assert fileio.dump({"b": 1, "a": 2}, file_format="json", indent=1, sort_keys=True) == (
        '{\n "a": 2,\n "b": 1\n}'
    )
    assert fileio.loads("[1.5]", "json", parse_float=str) == ["1.5"]


def test_yaml_writes_plain_data_of_subclasses():
    class Text(str):
        __slots__ = ()

    obj = OrderedDict(z=(1, 2), a=Text("x"), path=PurePosixPath("/data"), r=range(2))
    assert fileio.dump(obj, file_format="yaml") == "z:\n- 1\n- 2\na: x\npath: /data\nr:\n- 0\n- 1\n"
    assert fileio.dump({"b": 1, "a": 2}, file_format="yaml", sort_keys=True) == "a: 2\nb: 1\n"
    with pytest.raises(yaml.YAMLError):
        fileio.dump(object(), file_format="yaml")


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/tuple [1]"],
)
def test_yaml_is_safe(text):
    with pytest.raises(ParseError, match="could not determine a constructor"):
        fileio.loads(text, "yaml")


def test_yaml_merge_keys_are_merged():
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], z: 5}\nd: {<<: *b, y: 6}\n"
    loaded = fileio.loads(text, "yaml")
    assert loaded["c"] == {"x": 1, "y": 2, "z": 5}
    assert loaded["d"] == {"y": 6, "z": 4}


@pytest.mark.parametrize(
    "text",
    [
        "x0: &x0 {k: 1}\n" + "".join(f"x{i}: &x{i} {{<<: [*x{i - 1}, *x{i - 1}]}}\n" for i in range(1, 60)),
        "a: &a {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\nb:\n" + "- {<<: *a}\n" * 2000,
        "a: &a {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\nb: {<<: [" + "*a, " * 2000 + "]}",
    ],
    ids=["exponential", "mappings", "one mapping"],
)
def test_a_short_yaml_of_merge_keys_cannot_stand_for_a_huge_value(text):
    with pytest.raises(ParseError, match=r"merge keys \(<<\) add up to more than 1000000 keys"):
        fileio.loads(text, "yaml")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, "- " * 100_000 + "1", "{a: " * 3000 + "1" + "}" * 3000],
    ids=["brackets", "dashes", "braces"],
)
def test_yaml_nested_too_deep(text):
    with pytest.raises(ParseError, match="nested more than 2000 deep"):
        fileio.loads(text, "yaml")


def test_yaml_nested_deep_enough():
    value = fileio.loads("[" * 2000 + "]" * 2000, "yaml")
    for _ in range(1999):
        (value,) = value
    assert value == []


def test_yaml_loader_may_be_named():
    assert fileio.loads("a: 1", "yaml", Loader=yaml.BaseLoader) == {"a": "1"}


def test_dump_needs_a_file_or_a_format():
    with pytest.raises(ValueError, match="file_format must be given"):
        fileio.dump(1)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.json.bz2", ".json"])
def test_unknown_suffix_lists_the_known_ones(tmp_path, name):
    for call in (lambda: fileio.load(tmp_path / name), lambda: fileio.dump(1, tmp_path / name)):
        with pytest.raises(TypeError, match=r"known are json, pickle, pkl, yaml, yml.*\.gz, \.xz, \.zst"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_and_things_that_are_no_file():
    with pytest.raises(TypeError, match="unsupported format 'txt'"):
        fileio.loads("", "txt")
    with pytest.raises(TypeError, match="unsupported format None"):
        fileio.load(type("Stream", (), {"read": lambda self: ""})())
    with pytest.raises(TypeError, match="file must be a path or an open file, got int"):
        fileio.load(5)
    with pytest.raises(TypeError, match="file open for writing, got int"):
        fileio.dump(1, 5, "json")
    with pytest.raises(TypeError, match="content must be bytes for the binary format 'pkl'"):
        fileio.loads("x", "pkl")


MALFORMED = [
    ("a.json", b'{"a": 1,\n "b" 2}', 2, 6, json.JSONDecodeError),
    ("a.json", b"", 1, 1, json.JSONDecodeError),
    ("a.json", b" \n", 1, 1, json.JSONDecodeError),
    ("a.json", b"[1,\n2,\n3", 3, 2, json.JSONDecodeError),
    ("a.json", b"[1] x", 1, 5, json.JSONDecodeError),
    ("a.yaml", b"a: 1\nb: [1, 2\nc: 3", 3, 2, yaml.YAMLError),
    ("a.yaml", b"a: 1\n\tb: 2\n", 2, 1, yaml.YAMLError),
    ("a.yaml", b"a: 1\nb: \x01", 2, 4, yaml.YAMLError),
]


@pytest.mark.parametrize("fast", [True, False], ids=["orjson", "stdlib"])
@pytest.mark.parametrize(("name", "content", "line", "column", "kind"), MALFORMED)
def test_malformed_text_says_where(tmp_path, monkeypatch, name, content, line, column, kind, fast):
    if not fast:
        monkeypatch.setattr(json_handler, "_orjson_loads", lambda: None)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ParseError) as caught:
        fileio.load(path)
    error = caught.value
    assert isinstance(error, kind)
    assert (error.filename, error.line, error.column) == (str(path), line, column)
    assert str(error).startswith(f"{path}, line {line}, column {column}: ")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.line) == (type(error), str(error), line)
    with pytest.raises(ParseError, match=f"<string>, line {line}"):
        fileio.loads(content, path.suffix[1:])
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ParseError, match=f"gz, line {line}"):
        fileio.load(tmp_path / f"{name}.gz")


def test_an_empty_yaml_file_is_none(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    assert fileio.load(tmp_path / "a.yaml") is None


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps(list(range(1000)))[:-50]])
def test_a_damaged_pickle_names_the_file(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(ParseError, match=r"a\.pkl") as caught:
        fileio.load(path)
    assert isinstance(caught.value, pickle.UnpicklingError)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.json.gz"])
def test_text_that_is_not_utf8_says_where(tmp_path, name):
    path = tmp_path / name
    content = b'{"a":\n "\xff"}'
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UnicodeDecodeError, match=rf"in .*{name}, line 2"):
        fileio.load(path)


def test_json_with_a_byte_order_mark_or_as_utf16(tmp_path):
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.json").write_text('["ö"]', encoding=encoding)
        assert fileio.load(tmp_path / "a.json") == ["ö"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_damaged_compression(tmp_path, suffix):
    if suffix == ".zst" and sys.version_info < (3, 14):
        pytest.importorskip("zstandard", reason="the zstandard package is not installed")
    path = tmp_path / f"a.json{suffix}"
    fileio.dump(list(range(10_000)), path)
    content = path.read_bytes()
    fileio.dump(list(range(10_000)), path)
    assert path.read_bytes() == content, "equal content, equal file"
    path.write_bytes(content + content)  # concatenated files are one, as the tools have it
    with pytest.raises(json.JSONDecodeError, match="Extra data"):
        fileio.load(path)
    for broken in (content[:-7], content[: len(content) // 2], b"", b"no such format", content + b"x"):
        path.write_bytes(broken)
        with pytest.raises(CompressionError, match=r"a\.json"):
            fileio.load(path)


def test_a_missing_extra_is_named(tmp_path):
    if sys.version_info >= (3, 14):
        pytest.skip("Python has Zstandard itself")
    code = (
        "import sys; sys.modules['zstandard'] = None\n"
        "import cv.fileio\n"
        "try: cv.fileio.dump(1, 'a.json.zst')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a .zst file needs zstandard: pip install cv-fileio[zstd]\n"
    assert list(tmp_path.iterdir()) == []


class TextHandler(fileio.BaseFileHandler):
    """The handler of the documentation, in the style of existing code."""

    def load_from_fileobj(self, file):
        return file.read()

    def dump_to_fileobj(self, obj, file):
        file.write(str(obj))

    def dump_to_str(self, obj, **kwargs):
        return str(obj)


class BytesHandler(fileio.BaseFileHandler):
    """A binary handler in the style of existing code: it passes the mode."""

    def load_from_fileobj(self, file):
        return file.read()

    def dump_to_fileobj(self, obj, file):
        file.write(obj)

    def dump_to_str(self, obj, **kwargs):
        return obj

    def load_from_path(self, filepath, **kwargs):
        return super().load_from_path(filepath, mode="rb", **kwargs)

    def dump_to_path(self, obj, filepath, **kwargs):
        super().dump_to_path(obj, filepath, mode="wb", **kwargs)


@pytest.fixture
def clean_handlers():
    before = dict(file_handlers)
    yield
    file_handlers.clear()
    file_handlers.update(before)


@pytest.mark.usefixtures("clean_handlers")
def test_register_handler(tmp_path):
    assert fileio.register_handler("txt")(TextHandler) is TextHandler
    fileio.register_handler(["bin", "gz"])(BytesHandler)
    assert isinstance(file_handlers["txt"], TextHandler)
    fileio.dump("größe", tmp_path / "a.txt")
    assert fileio.load(tmp_path / "a.txt") == "größe"
    fileio.dump("größe", tmp_path / "a.txt.xz")
    assert fileio.load(tmp_path / "a.txt.xz") == "größe"
    fileio.dump(b"\xff\r\n", tmp_path / "a.bin")
    assert fileio.load(tmp_path / "a.bin") == b"\xff\r\n"
    fileio.dump(b"\x00", tmp_path / "a.txt.gz")  # a registered suffix is the user's
    assert (tmp_path / "a.txt.gz").read_bytes() == b"\x00"


@pytest.mark.usefixtures("clean_handlers")
def test_register_handler_refuses_other_things():
    with pytest.raises(TypeError, match="file_formats must be a str or a list of str"):
        fileio.register_handler(["txt", 1])
    with pytest.raises(TypeError, match="must be a subclass of BaseFileHandler"):
        fileio.register_handler("txt")(int)
    with pytest.raises(TypeError, match="abstract"):
        fileio.BaseFileHandler()
    assert sorted(file_handlers) == sorted(FORMATS)


def test_a_dump_that_fails_keeps_the_old_file(tmp_path):
    for name in ["a.json", "a.yaml", "a.pkl", "a.json.gz"]:
        path = tmp_path / name
        fileio.dump("old", path)
        with pytest.raises((TypeError, yaml.YAMLError, AttributeError, pickle.PicklingError)):
            fileio.dump(["x" * 100_000, (lambda: None)], path)
        assert fileio.load(path) == "old"
    assert len(list(tmp_path.iterdir())) == 4


posix = pytest.mark.skipif(os.name != "posix", reason="POSIX limits and signals")

LIMITED = """
import resource, signal, sys
import cv.fileio
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    cv.fileio.dump([str(i) * 100 for i in range(1000)], sys.argv[1])
except OSError as error:
    print("refused", error.errno)
"""


@posix
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.pkl"])
def test_a_full_disk_keeps_the_old_file(tmp_path, name):
    path = tmp_path / name
    fileio.dump("old", path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused")
    assert fileio.load(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, pickle, signal, sys
import cv.fileio

class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)

cv.fileio.dump(["x" * 1_000_000] + [Deadly()], sys.argv[1])
"""


@posix
def test_killed_in_the_middle_of_a_dump(tmp_path):
    path = tmp_path / "a.pkl"
    fileio.dump("old", path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert fileio.load(path) == "old"
    assert list(tmp_path.glob("*.pkl")) == [path]


@posix
def test_no_permission(unprivileged_folder: Path):
    path = unprivileged_folder / "a.json"
    fileio.dump("old", path)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"a\.json"):
        fileio.load(path)
    path.chmod(0o600)
    unprivileged_folder.chmod(0o500)
    with pytest.raises(PermissionError):
        fileio.dump("new", path)
    assert fileio.load(path) == "old"


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        fileio.load(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError, match="absent"):
        fileio.dump(1, tmp_path / "absent" / "a.json")


def test_through_a_client(tmp_path):
    args = {"backend": "disk"}
    path = tmp_path / "new" / "a.json.gz"
    fileio.dump(DATA, path, file_client_args=args)
    assert fileio.load(path, file_client_args=args) == DATA
    assert json.loads(gzip.decompress(path.read_bytes())) == DATA
    uri = (tmp_path / "with space.pkl").as_uri()
    fileio.dump(DATA, uri)
    assert fileio.load(uri) == DATA
    assert (tmp_path / "with space.pkl").exists()
    with pytest.raises(ValueError, match="prefix must be one of"):
        fileio.load("nosuch://a/b.json")
