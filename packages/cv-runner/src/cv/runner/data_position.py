"""Where in the data a run is, so that it can go on with exactly the next batch.

A pass over a ``DataLoader`` is determined by the generators' states at its start (they seed the shuffle
and the workers) and its number of batches so far. So that is what a checkpoint holds. To come back, the
states are restored, the pass is started again and that many batches are drawn and dropped: samplers,
workers and augmentations end up where they were, whatever their kind. A loader with ``state_dict`` and
``load_state_dict`` (torchdata's ``StatefulDataLoader``) is asked for its own position instead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from cv.runner.rng import capture_rng, restore_rng


class DataPass(Iterator[Any]):
    """One pass over a loader that knows its position.

    Args:
        loader: the loader; anything iterable.
        position: where to start, as :meth:`position` returned it; the beginning by default.
        logger: told when a long way has to be drawn again.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        position: dict[str, Any] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.loader = loader
        self.batches = 0
        if position is None:
            self._start = {"rng": capture_rng(cuda=False), "generators": _generator_states(loader)}
            self._iterator = iter(loader)
        else:
            self._go_to(position, logger)

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch in self._iterator:
                self.batches += 1
                yield batch
        except Exception as error:
            self._name_samples(error)
            raise

    def __next__(self) -> Any:
        for batch in self:
            return batch
        raise StopIteration

    def position(self) -> dict[str, Any]:
        """Batches drawn in this pass, and what it takes to draw them again."""
        state: dict[str, Any] = {"batches": self.batches, **self._start}
        if _is_stateful(self.loader):
            state["loader"] = self.loader.state_dict()  # type: ignore[attr-defined] # checked by _is_stateful
        return state

    def _go_to(self, position: dict[str, Any], logger: logging.Logger | None) -> None:
        self._start = {"rng": position["rng"], "generators": position["generators"]}
        restore_rng(self._start["rng"])
        _set_generator_states(self.loader, self._start["generators"])
        if "loader" in position and _is_stateful(self.loader):
            self.loader.load_state_dict(position["loader"])  # type: ignore[attr-defined]
            self._iterator = iter(self.loader)
            self.batches = position["batches"]
            return
        if getattr(self.loader, "persistent_workers", False) and logger is not None:
            logger.warning(
                "The data loader keeps its workers over epochs (persistent_workers=True): random "
                "augmentations in them cannot continue exactly where they were. The order of samples does."
            )
        self._iterator = iter(self.loader)
        if position["batches"] > 100 and logger is not None:
            logger.info("Drawing %d batches again to get to the position in the data.", position["batches"])
        while self.batches < position["batches"]:
            try:
                next(self)
            except StopIteration:
                raise RuntimeError(
                    f"the data loader ended after {self.batches} batches, but the checkpoint was saved "
                    f"after {position['batches']} of this epoch: are these the same data and batch size?"
                ) from None

    def _name_samples(self, error: Exception) -> None:
        """Add to an exception which samples were being loaded."""
        samples = describe_samples(self.loader, self._start, self.batches)
        message = f"while loading batch {self.batches} (counted from 0) of this pass{samples}"
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(message)
        logging.getLogger(__name__).error("%s %s", type(error).__name__, message)


def describe_samples(loader: Any, start: dict[str, Any], batch: int) -> str:
    """The sample indices of a batch (and, with workers, of those prepared behind it), for a message.

    They are drawn again from a copy of the pass's start; empty where the loader has no batch sampler.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    if batch_sampler is None or _is_stateful(loader):
        return ""
    now, generators = capture_rng(cuda=False), _generator_states(loader)
    try:
        restore_rng(start["rng"])
        _set_generator_states(loader, start["generators"])
        # What the loader draws first, to seed its workers.
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        ahead = max(loader.num_workers * (loader.prefetch_factor or 0), 1)
        wanted = [list(b) for i, b in zip(range(batch + ahead), batch_sampler, strict=False) if i >= batch]
    except Exception:  # this is help for another error: never in its way
        return ""
    finally:
        restore_rng(now)
        _set_generator_states(loader, generators)
    if not wanted:
        return ""
    text = f", samples {wanted[0]}"
    if len(wanted) > 1:
        text += f"; workers may have been at those of the next {len(wanted) - 1} batches: {wanted[1:]}"
    return text


def _is_stateful(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _generators(loader: Any) -> dict[str, torch.Generator]:
    """The generators of its own that a loader or its sampler was given."""
    if not isinstance(loader, DataLoader):
        return {}
    owners = {"loader": loader, "sampler": loader.sampler, "batch_sampler": loader.batch_sampler}
    found = {name: getattr(owner, "generator", None) for name, owner in owners.items()}
    return {name: g for name, g in found.items() if isinstance(g, torch.Generator)}


def _generator_states(loader: Any) -> dict[str, torch.Tensor]:
    return {name: generator.get_state() for name, generator in _generators(loader).items()}


def _set_generator_states(loader: Any, states: dict[str, torch.Tensor]) -> None:
    for name, generator in _generators(loader).items():
        if name in states:
            generator.set_state(states[name].cpu())
