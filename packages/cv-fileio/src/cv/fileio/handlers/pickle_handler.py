"""Python's pickle: any object, for files you wrote yourself.

Reading a pickle can run whatever code its writer put into it: load only files from sources you trust.
"""

from __future__ import annotations

from typing import IO, Any, ClassVar

from .base import BaseFileHandler


class PickleHandler(BaseFileHandler):
    """Pickle, with Python's default protocol unless ``protocol`` is given."""

    str_like: ClassVar[bool] = False

    def load_from_fileobj(self, file: IO[Any], **kwargs: Any) -> Any:
        """Read one object from a binary stream; ``kwargs`` are those of :func:`pickle.load`."""
        from ._pickle import read_pickle

        return read_pickle(file, **kwargs)

    def dump_to_fileobj(self, obj: Any, file: IO[Any], **kwargs: Any) -> None:
        """Write to a binary stream; ``kwargs`` are those of :func:`pickle.dump`."""
        import pickle

        pickle.dump(obj, file, **kwargs)

    def dump_to_str(self, obj: Any, **kwargs: Any) -> bytes:
        """The pickle as bytes; ``kwargs`` are those of :func:`pickle.dumps`."""
        import pickle

        return pickle.dumps(obj, **kwargs)
