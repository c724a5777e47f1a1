"""A wrapper that tells ``collate`` and ``scatter`` how to treat a value."""

from __future__ import annotations

from typing import Any

import torch


class DataContainer:
    """Carries a value through the data loader with instructions for batching it.

    Without it, tensors of a batch must have equal shapes and everything else must be a number. With it,
    images of different sizes are padded and stacked, boxes stay a list with one tensor per image, and
    meta data stays on the CPU as it is.

    Args:
        data: the value.
        stack: stack the batch into one tensor per device, padding where shapes differ.
        padding_value: what padding is filled with.
        cpu_only: leave the value alone and on the CPU (meta data).
        pad_dims: how many trailing dimensions may differ and are padded: 1, 2 or 3; None allows none.

    Raises:
        AssertionError: ``pad_dims`` is anything else.
    """

    def __init__(
        self,
        data: Any,
        stack: bool = False,
        padding_value: float = 0,
        cpu_only: bool = False,
        pad_dims: int | None = 2,
    ) -> None:
        if pad_dims not in (None, 1, 2, 3):
            raise AssertionError(f"pad_dims must be None, 1, 2 or 3, got {pad_dims!r}")
        self._data = data
        self._stack = stack
        self._padding_value = padding_value
        self._cpu_only = cpu_only
        self._pad_dims = pad_dims

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r})"

    def __len__(self) -> int:
        return len(self._data)

    @property
    def data(self) -> Any:
        """The value."""
        return self._data

    @property
    def datatype(self) -> type | str:
        """The tensor's type string (``'torch.FloatTensor'``), or the class of anything else."""
        if isinstance(self.data, torch.Tensor):
            return str(self.data.type())
        return type(self.data)

    @property
    def cpu_only(self) -> bool:
        """Whether the value stays on the CPU as it is."""
        return self._cpu_only

    @property
    def stack(self) -> bool:
        """Whether the batch is stacked into one tensor."""
        return self._stack

    @property
    def padding_value(self) -> float:
        """What padding is filled with."""
        return self._padding_value

    @property
    def pad_dims(self) -> int | None:
        """How many trailing dimensions are padded."""
        return self._pad_dims

    def size(self, *args: Any, **kwargs: Any) -> Any:
        """``data.size(...)``.

        Raises:
            AttributeError: the value is not a tensor.
        """
        return self._tensor("size").size(*args, **kwargs)

    def dim(self) -> int:
        """``data.dim()``.

        Raises:
            AttributeError: the value is not a tensor.
        """
        return self._tensor("dim").dim()

    def _tensor(self, member: str) -> torch.Tensor:
        if not isinstance(self.data, torch.Tensor):
            raise AttributeError(f"{type(self).__name__} has no attribute {member} for type {self.datatype}")
        return self.data
