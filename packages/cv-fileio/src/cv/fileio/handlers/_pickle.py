"""The half of the pickle handler that needs the pickle module: imported at the first pickle."""

from __future__ import annotations

import pickle
from typing import IO, Any

from cv.fileio.errors import ParseError

from .base import stream_name


class PickleParseError(ParseError, pickle.UnpicklingError, EOFError):
    """A damaged or empty pickle; also a ``pickle.UnpicklingError`` and an ``EOFError``."""


def read_pickle(file: IO[Any], **kwargs: Any) -> Any:
    """Read one object; ``kwargs`` are those of :func:`pickle.load`.

    Raises:
        PickleParseError: The file is empty, cut off or no pickle.
    """
    try:
        return pickle.load(file, **kwargs)
    except EOFError as error:
        reason = "the file is empty or ends in the middle of the pickle"
        raise PickleParseError(reason, stream_name(file)) from error
    except pickle.UnpicklingError as error:
        raise PickleParseError(str(error), stream_name(file)) from error
