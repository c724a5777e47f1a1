"""Checks, casts and cuts of sequences, and n-tuples from single values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

__all__ = [
    "concat_list",
    "is_list_of",
    "is_seq_of",
    "is_str",
    "is_tuple_of",
    "iter_cast",
    "list_cast",
    "slice_list",
    "to_1tuple",
    "to_2tuple",
    "to_3tuple",
    "to_4tuple",
    "to_ntuple",
    "tuple_cast",
]

_T = TypeVar("_T")
_R = TypeVar("_R")


def is_str(x: object) -> bool:
    """Whether the input is a str."""
    return isinstance(x, str)


@overload
def iter_cast(inputs: Iterable[Any], dst_type: Callable[[Any], _T]) -> Iterator[_T]: ...
@overload
def iter_cast(inputs: Iterable[Any], dst_type: Callable[[Any], _T], return_type: None) -> Iterator[_T]: ...
@overload
def iter_cast(
    inputs: Iterable[Any], dst_type: Callable[[Any], Any], return_type: Callable[[Iterable[Any]], _R]
) -> _R: ...
def iter_cast(
    inputs: Iterable[Any],
    dst_type: Callable[[Any], Any],
    return_type: Callable[[Iterable[Any]], Any] | None = None,
) -> Any:
    """Cast the elements of an iterable.

    Args:
        inputs: The elements.
        dst_type: The type each is cast to.
        return_type: The type of the result, ``list`` for one. Default: an iterator that casts on the way.

    Returns:
        The cast elements, as ``return_type`` or an iterator.

    Raises:
        TypeError: ``inputs`` is not iterable or ``dst_type`` not a type.
    """
    if not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be an iterable object, got {type(inputs)}")
    if not isinstance(dst_type, type):
        raise TypeError(f'"dst_type" must be a valid type, got {type(dst_type)}')
    cast = map(dst_type, inputs)
    return cast if return_type is None else return_type(cast)


def list_cast(inputs: Iterable[Any], dst_type: Callable[[Any], _T]) -> list[_T]:
    """Cast the elements of an iterable into a list of some type; see :func:`iter_cast`."""
    return iter_cast(inputs, dst_type, list)


def tuple_cast(inputs: Iterable[Any], dst_type: Callable[[Any], _T]) -> tuple[_T, ...]:
    """Cast the elements of an iterable into a tuple of some type; see :func:`iter_cast`."""
    return iter_cast(inputs, dst_type, tuple)


def is_seq_of(
    seq: object, expected_type: type | tuple[type, ...], seq_type: type | tuple[type, ...] | None = None
) -> bool:
    """Whether this is a sequence whose elements are all of some type.

    Args:
        seq: The thing to check.
        expected_type: Type of the elements, or several of which each element has one.
        seq_type: Type of the sequence. Default: any sequence.

    Returns:
        True for a sequence of that kind, an empty one included.
    """
    if not isinstance(seq, Sequence if seq_type is None else seq_type):
        return False
    return all(isinstance(item, expected_type) for item in seq)  # type: ignore[attr-defined]


def is_list_of(seq: object, expected_type: type | tuple[type, ...]) -> bool:
    """Whether this is a list whose elements are all of some type."""
    return is_seq_of(seq, expected_type, seq_type=list)


def is_tuple_of(seq: object, expected_type: type | tuple[type, ...]) -> bool:
    """Whether this is a tuple whose elements are all of some type."""
    return is_seq_of(seq, expected_type, seq_type=tuple)


def slice_list(in_list: list[_T], lens: int | list[int]) -> list[list[_T]]:
    """Cut a list into consecutive lists of given lengths.

    Args:
        in_list: The list.
        lens: The length of each piece, or one length for all.

    Returns:
        The pieces, in order.

    Raises:
        TypeError: ``lens`` is neither an int nor a list of ints.
        ValueError: The lengths do not add up to the list, or one is negative, or the one length does not
            divide it.
    """
    if isinstance(lens, int):
        if lens <= 0 or len(in_list) % lens != 0:
            raise ValueError(f"lens must divide the length of the list, got {lens} for {len(in_list)}")
        lens = [lens] * (len(in_list) // lens)
    if not is_list_of(lens, int):
        raise TypeError(f'"lens" must be an integer or a list of integers, got {lens!r}')
    if sum(lens) != len(in_list) or any(n < 0 for n in lens):
        raise ValueError(f"sum of lens and list length does not match: {sum(lens)} != {len(in_list)}")
    rest = iter(in_list)
    return [list(itertools.islice(rest, n)) for n in lens]


def concat_list(in_list: Iterable[Iterable[_T]]) -> list[_T]:
    """Join a list of lists into one list, one level deep."""
    return list(itertools.chain.from_iterable(in_list))


def to_ntuple(n: int) -> Callable[[Any], Any]:
    """Make a function that repeats a single value ``n`` times and passes an iterable through.

    Example:
        >>> to_2tuple = to_ntuple(2)
        >>> to_2tuple(3), to_2tuple((3, 5))
        ((3, 3), (3, 5))
    """

    def parse(x: Any) -> Any:
        """Give an iterable back as it is, and repeat anything else."""
        return x if isinstance(x, Iterable) else (x,) * n

    return parse


to_1tuple = to_ntuple(1)
to_2tuple = to_ntuple(2)
to_3tuple = to_ntuple(3)
to_4tuple = to_ntuple(4)
