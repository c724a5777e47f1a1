"""Renamed arguments."""

import inspect

import pytest

from cv.utils import CvDeprecationWarning, deprecated_api_warning


@deprecated_api_warning({"num": "count", "filter": "mode"})
def take(count: int = 1, mode: str = "same", *, extra: int = 0) -> tuple[int, str, int]:
    """Take some."""
    return count, mode, extra


def test_new_names_pass_silently() -> None:
    assert take(3, mode="a", extra=2) == (3, "a", 2)


def test_old_names_are_renamed_with_a_warning_at_the_caller() -> None:
    with pytest.warns(
        CvDeprecationWarning, match='"num" is deprecated in `take`, please use "count" instead'
    ) as caught:
        assert take(num=3) == (3, "same", 0)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="please use") as caught:
        assert take(num=3, filter="full", extra=1) == (3, "full", 1)  # type: ignore[call-arg]
    assert len(caught) == 2


def test_both_names() -> None:
    for call in (lambda: take(num=1, count=2), lambda: take(2, num=1)):  # type: ignore[call-arg, misc]
        with pytest.raises(
            AssertionError, match="'num' is the deprecated name of 'count', but both were given"
        ):
            call()


def test_methods_are_named_with_their_class() -> None:
    class Crop:
        @deprecated_api_warning({"ratio": "scale"}, cls_name="Crop")
        def __init__(self, scale: float) -> None:
            self.scale = scale

    with pytest.warns(UserWarning, match=r'"ratio" is deprecated in `Crop\.__init__`'):
        assert Crop(ratio=0.5).scale == 0.5  # type: ignore[call-arg]
    with pytest.raises(AssertionError, match="both were given"):
        Crop(0.5, ratio=0.5)  # type: ignore[call-arg]


def test_two_old_names_of_one_new_name() -> None:
    @deprecated_api_warning({"a": "c", "b": "c"})
    def function(c: int) -> int:
        return c

    with pytest.raises(AssertionError, match="both"), pytest.warns(CvDeprecationWarning, match='"a" is'):
        function(a=1, b=2)  # type: ignore[call-arg]


def test_the_function_keeps_its_face() -> None:
    assert take.__name__ == "take"
    assert take.__doc__ == "Take some."
    assert list(inspect.signature(take).parameters) == ["count", "mode", "extra"]
