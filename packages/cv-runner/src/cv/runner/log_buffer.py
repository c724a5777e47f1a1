"""What the loop wrote since the last log line, and its averages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from operator import mul
from typing import Any

import torch


class LogBuffer:
    """Collects values per iteration; loggers read their averages from ``output``.

    Attributes:
        val_history: per name, one value per iteration.
        n_history: per name, the number of samples each value stands for.
        output: what loggers write: averages, and whatever hooks put there directly.
        ready: whether ``output`` holds something to log.
        max_history: how many of the latest values per name are kept; None keeps all.
    """

    def __init__(self, *, max_history: int | None = None) -> None:
        self.val_history: OrderedDict[str, list[float]] = OrderedDict()
        self.n_history: OrderedDict[str, list[int]] = OrderedDict()
        self.output: OrderedDict[str, Any] = OrderedDict()
        self.ready = False
        self.max_history = max_history

    def clear(self) -> None:
        """Forget everything."""
        self.val_history.clear()
        self.n_history.clear()
        self.clear_output()

    def clear_output(self) -> None:
        """Forget the averages, keep the history."""
        self.output.clear()
        self.ready = False

    def update(self, vars: Mapping[str, float], count: int = 1) -> None:  # noqa: A002 - documented name
        """Append one value per name, standing for ``count`` samples.

        Raises:
            TypeError: ``vars`` is not a dict.
        """
        if type(vars) is not dict and not isinstance(vars, Mapping):  # which takes longer
            raise TypeError(f"vars must be a dict, got {type(vars).__name__}")
        histories, counts = self.val_history, self.n_history
        for name, value in vars.items():
            if name in histories:
                histories[name].append(value)
                counts[name].append(count)
            else:
                histories[name], counts[name] = [value], [count]
        if self.max_history is not None:
            self._trim(vars)

    def add(self, name: str, value: float, count: int = 1) -> None:
        """Append one value, as :meth:`update` does, without a dict for it."""
        try:
            self.val_history[name].append(value)
            self.n_history[name].append(count)
        except KeyError:
            self.val_history[name], self.n_history[name] = [value], [count]
        if self.max_history is not None:
            self._trim((name,))

    def _trim(self, names: Iterable[str]) -> None:
        """Drop the oldest values: half of them at a time, so that an update stays cheap."""
        assert self.max_history is not None
        for name in names:
            if len(self.val_history[name]) >= 2 * self.max_history:
                del self.val_history[name][: -self.max_history]
                del self.n_history[name][: -self.max_history]

    def average(self, n: int = 0) -> None:
        """Average the latest ``n`` values (0: all) of every name, weighted by their sample counts.

        Raises:
            ValueError: ``n`` is negative.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        for name, history in self.val_history.items():
            values, counts = history[-n:], self.n_history[name][-n:]
            total = sum(counts)
            weighted = sum(map(mul, values, counts))
            self.output[name] = weighted / total if total else float("nan")
        self.ready = True

    def state_dict(self) -> dict[str, Any]:
        """History and output, as tensors and plain values, for a checkpoint."""
        return {
            "values": {
                k: torch.tensor([float(x) for x in v], dtype=torch.float64)
                for k, v in self.val_history.items()
            },
            "counts": {k: torch.tensor(v, dtype=torch.int64) for k, v in self.n_history.items()},
            "output": {k: _plain(v) for k, v in self.output.items()},
            "ready": self.ready,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace everything by what :meth:`state_dict` returned."""
        self.val_history = OrderedDict((k, v.tolist()) for k, v in state["values"].items())
        self.n_history = OrderedDict((k, v.tolist()) for k, v in state["counts"].items())
        self.output = OrderedDict(state["output"])
        self.ready = state["ready"]


def _plain(value: Any) -> Any:
    """Arrays and tensors of one element as numbers: a checkpoint holds nothing that needs code to load."""
    if hasattr(value, "item") and getattr(value, "size", 1) in (1, ()):
        return value.item()
    return value
