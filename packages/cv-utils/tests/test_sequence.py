"""Checks, casts and cuts of sequences."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv.utils import (
    concat_list,
    is_list_of,
    is_seq_of,
    is_str,
    is_tuple_of,
    iter_cast,
    list_cast,
    slice_list,
    to_1tuple,
    to_2tuple,
    to_3tuple,
    to_4tuple,
    to_ntuple,
    tuple_cast,
)


def test_is_str() -> None:
    assert is_str("")
    assert not is_str(b"")
    assert not is_str(None)


def test_casts() -> None:
    assert list_cast(["1", "2"], int) == [1, 2]
    assert tuple_cast(("1", 2.5), float) == (1.0, 2.5)
    assert iter_cast([1, 1], str, set) == {"1"}
    lazy = iter_cast(itertools.count(), str)
    assert isinstance(lazy, Iterator)
    assert next(lazy) == "0"
    assert list_cast("12", int) == [1, 2]


@pytest.mark.parametrize(("inputs", "kind"), [(1, int), (None, int), ([1], "int"), ([1], int.__add__)])
def test_bad_casts(inputs: Any, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"inputs must be an iterable|dst_type"):
        iter_cast(inputs, kind)


def test_is_seq_of() -> None:
    assert is_seq_of([1, 2], int)
    assert is_seq_of((1, "a"), (int, str))
    assert is_seq_of("ab", str)
    assert is_seq_of([], int)
    assert not is_seq_of([1, "a"], int)
    assert not is_seq_of({1}, int)  # no sequence
    assert not is_seq_of(1, int)
    assert is_seq_of({1}, int, seq_type=set)
    assert is_list_of([1.0], float)
    assert not is_list_of((1.0,), float)
    assert is_tuple_of((1.0,), float)
    assert not is_tuple_of([1.0], float)


@given(st.lists(st.lists(st.integers(), max_size=5)))
def test_slice_undoes_concat(pieces: list[list[int]]) -> None:
    joined = concat_list(pieces)
    assert joined == [item for piece in pieces for item in piece]
    assert slice_list(joined, [len(piece) for piece in pieces]) == pieces


def test_slice_by_one_length() -> None:
    assert slice_list([1, 2, 3, 4], 2) == [[1, 2], [3, 4]]
    assert slice_list([], 3) == []


@pytest.mark.parametrize(
    ("lens", "error"),
    [
        ([1, 2], ValueError),
        ([5, -1], ValueError),
        (3, ValueError),
        (0, ValueError),
        ([1.0, 3.0], TypeError),
        ("4", TypeError),
    ],
)
def test_bad_slices(lens: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="lens"):
        slice_list([1, 2, 3, 4], lens)


@pytest.mark.parametrize(
    ("to_tuple", "n"), [(to_1tuple, 1), (to_2tuple, 2), (to_3tuple, 3), (to_4tuple, 4), (to_ntuple(7), 7)]
)
def test_n_tuples(to_tuple: Any, n: int) -> None:
    assert to_tuple(3) == (3,) * n
    assert to_tuple(None) == (None,) * n
    given = (1, 2, 3, 4, 5)
    assert to_tuple(given) is given
