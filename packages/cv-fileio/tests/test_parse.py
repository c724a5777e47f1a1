"""list_from_file and dict_from_file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.fileio import dict_from_file, list_from_file


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("1.jpg\r\n2.jpg\n3 .jpg \n\nö.jpg".encode())
    return path


def test_lines_keep_everything_but_their_ends(names):
    assert list_from_file(names) == ["1.jpg", "2.jpg", "3 .jpg ", "", "ö.jpg"]
    assert list_from_file(str(names), prefix="a/") == ["a/1.jpg", "a/2.jpg", "a/3 .jpg ", "a/", "a/ö.jpg"]


@pytest.mark.parametrize("max_num", [-1, 0, 1, 2, 99])
@pytest.mark.parametrize("offset", [0, 1, 4, 5, 99])
def test_offset_and_limit_are_a_slice(names, offset, max_num):
    everything = list_from_file(names)
    want = everything[offset:][: max_num if max_num > 0 else None]
    assert list_from_file(names, offset=offset, max_num=max_num) == want
    args = {"backend": "disk"}
    assert list_from_file(names, "", offset, max_num, file_client_args=args) == want


def test_negative_offset(names):
    with pytest.raises(ValueError, match="offset must not be negative, got -1"):
        list_from_file(names, offset=-1)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_any_line_comes_back(tmp_path_factory, lines):
    """Only \\n and \\r end a line: not the other characters that str.splitlines splits at."""
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    assert list_from_file(path) == lines
    assert list_from_file(path, file_client_args={"backend": "disk"}) == lines


def test_an_empty_file(tmp_path):
    (tmp_path / "a").touch()
    assert list_from_file(tmp_path / "a") == []
    assert dict_from_file(tmp_path / "a") == {}


@pytest.mark.parametrize("args", [None, {"backend": "disk"}])
def test_encoding(tmp_path, args):
    path = tmp_path / "a.txt"
    path.write_bytes("a\nö\n".encode("latin-1"))
    assert list_from_file(path, encoding="latin-1", file_client_args=args) == ["a", "ö"]
    with pytest.raises(UnicodeDecodeError, match=r"in .*a\.txt, line 2"):
        list_from_file(path, file_client_args=args)
    assert dict_from_file(_write(path, b"\xf6 1"), encoding="latin-1", file_client_args=args) == {"ö": "1"}


def _write(path, content):
    path.write_bytes(content)
    return path


def test_dict(tmp_path):
    path = _write(tmp_path / "a.txt", b"1 cat\n2 dog cow\r\n\n3\tpanda  \n1 tiger\n")
    assert dict_from_file(path) == {"1": "tiger", "2": ["dog", "cow"], "3": "panda"}
    assert dict_from_file(path, key_type=int) == {1: "tiger", 2: ["dog", "cow"], 3: "panda"}
    assert dict_from_file(path, int, offset=1, max_num=1) == {2: ["dog", "cow"]}
    assert dict_from_file(path, int, file_client_args={"backend": "disk"}) == dict_from_file(path, int)


def test_dict_errors_name_the_line(tmp_path):
    path = _write(tmp_path / "a.txt", b"1 cat\nx dog\n3\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: bad key 'x'"):
        dict_from_file(path, int)
    with pytest.raises(ValueError, match=r"a\.txt, line 3: a key and a value are needed, got '3\\n'"):
        dict_from_file(path)
    with pytest.raises(ValueError, match=r"a\.txt, line 3"):
        dict_from_file(path, offset=2)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        list_from_file(tmp_path / "absent")
