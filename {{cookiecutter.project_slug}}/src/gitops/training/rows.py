"""The rows of a split as tensors: batches to learn from, in another order each epoch, and parts to be scored.

A split that fits is held in memory; of a larger one, row groups are read when they are needed (streamed.py). Several
processes get the batches that one would: each its part of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from gitops.training import processes

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


class Batch(NamedTuple):
    """`numbers` [rows, N], `categories` [rows, C] and `target` [rows]: class index (int64) or value (float32)."""

    numbers: Tensor
    categories: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return it on a device."""
        return Batch(*(part.to(device) for part in self))

    def at(self, rows: Tensor | slice) -> Batch:
        """Return some of the rows: those with these places."""
        return Batch(self.numbers[rows], self.categories[rows], self.target[rows])

    def split(self, counts: list[int]) -> Iterator[Batch]:
        """Yield its rows, so many at a time."""
        yield from map(Batch, *(part.split(counts) for part in self))


class Step(NamedTuple):
    """One step of the optimiser: this process's rows of a batch, none perhaps, and the rows of all divided by the
    number of processes. A loss that is the sum over `batch` divided by `rows` has the whole batch's mean as its mean
    over the processes, which is what DistributedDataParallel makes of the gradients.
    """

    batch: Batch
    rows: float


#: Makes a batch of a frame with the columns of the split.
Encode = Callable[["pd.DataFrame"], Batch]


class Rows(Protocol):
    """The rows of a split, or some of them."""

    @property
    def device(self) -> torch.device:
        """Where batches and parts are."""

    @property
    def target(self) -> Tensor:
        """The target of every row, [rows], on the CPU."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """The group of each row, [rows]: rows that share one belong together."""

    def __len__(self) -> int: ...

    def steps(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Return the steps of an epoch from `first` on: every row once, in an order that `seed` and, in memory, the
        state of PyTorch's generator decide.
        """

    def parts(self, rows: int, *, shared: bool = False) -> Iterator[Batch]:
        """Yield all rows in the split's order, at most `rows` at once; if `shared`, this process's share of them."""

    def chosen(self, mask: NDArray[np.bool_]) -> Rows:
        """Return those rows for which `mask` [rows] is true."""


@dataclass(frozen=True)
class InMemory:
    """Rows that are held as tensors, on the device that computes."""

    batch: Batch
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.batch.target)

    @property
    def device(self) -> torch.device:
        """See Rows."""
        return self.batch.target.device

    @property
    def target(self) -> Tensor:
        """See Rows."""
        return self.batch.target.cpu()

    def steps(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Step]:
        """See Rows: the order is drawn at once, from PyTorch's generator alone."""
        order = torch.randperm(len(self)).to(self.device)
        return self._steps(order.split(batch_size)[first:])

    def _steps(self, batches: tuple[Tensor, ...]) -> Iterator[Step]:
        rank, world = processes.rank(), processes.world()
        for rows in batches:
            yield Step(self.batch.at(rows[rank::world]), len(rows) / world)

    def parts(self, rows: int, *, shared: bool = False) -> Iterator[Batch]:
        """See Rows."""
        rank, world = (processes.rank(), processes.world()) if shared else (0, 1)
        for start in range(rank * rows, len(self), world * rows):
            yield self.batch.at(slice(start, start + rows))

    def chosen(self, mask: NDArray[np.bool_]) -> InMemory:
        """See Rows."""
        return InMemory(self.batch.at(torch.from_numpy(mask.nonzero()[0]).to(self.device)), self.groups[mask])
