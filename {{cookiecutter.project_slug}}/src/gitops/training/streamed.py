"""Rows that stay in their parquet file: batches are made of a few row groups at a time, which a thread reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from gitops.core import artifacts
from gitops.training import processes
from gitops.training.lanes import Chunk, Lanes, Piece
from gitops.training.rows import Batch, Encode, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Chunks that are read before they are needed.
AHEAD = 2

#: Rows of whole batches that are put together at once, which costs less than each batch alone.
TOGETHER = 4096

Item = TypeVar("Item")

#: The chunks of each lane that have been read and not been used up.
Held = dict[int, deque[tuple[Chunk, Batch]]]


@dataclass(frozen=True)
class Streamed:
    """Rows of a file that is too large for memory: all, or those for which `mask` [rows of the file] is true.

    What is kept is a few row groups, and for a mask a byte for each row.
    """

    path: Path
    columns: list[str]
    encode: Encode
    device: torch.device
    mask: NDArray[np.bool_] | None = None

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(str(self.path))

    @cached_property
    def _starts(self) -> list[int]:
        """The row of the file with which each row group begins, and at the end that after its last."""
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return [0, *np.cumsum(sizes).tolist()]

    @cached_property
    def _sizes(self) -> list[int]:
        """How many rows of each row group are taken."""
        if self.mask is None:
            return np.diff(self._starts).tolist()
        return [int(self.mask[start:stop].sum()) for start, stop in pairwise(self._starts)]

    @cached_property
    def _taken(self) -> list[int]:
        """The row groups of which rows are taken."""
        return [group for group, size in enumerate(self._sizes) if size]

    def __len__(self) -> int:
        return sum(self._sizes)

    @property
    def target(self) -> Tensor:
        """See Rows: it is read, one row group after the other."""
        return torch.cat([self._whole(group).target for group in self._taken])

    @property
    def groups(self) -> NDArray[np.int64]:
        """See Rows: they are read."""
        column: NDArray[np.int64] = self._file.read([artifacts.GROUP], use_threads=False).column(0).to_numpy()
        return column if self.mask is None else column[self.mask]

    def chosen(self, mask: NDArray[np.bool_]) -> Streamed:
        """See Rows."""
        whole = np.ones(self._starts[-1], bool) if self.mask is None else self.mask.copy()
        whole[whole] = mask
        return replace(self, mask=whole)

    def whole(self) -> Batch:
        """Return all rows, on the CPU. They are encoded by row groups: as one, they would be in memory four times."""
        return Batch(*map(torch.cat, zip(*map(self._whole, self._taken), strict=True)))

    def parts(self, rows: int, *, shared: bool = False) -> Iterator[Batch]:
        """See Rows."""
        rank, world = (processes.rank(), processes.world()) if shared else (0, 1)
        for batch in _ahead(self._whole, self._taken[rank::world]):
            for start in range(0, len(batch.target), rows):
                yield batch.at(slice(start, start + rows)).to(self.device)

    def steps(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Step]:
        """See Rows: the order is by `seed` alone (lanes.py); what precedes `first` is not read."""
        lanes = Lanes(self._sizes, batch_size, [seed % 2**64], processes.rank(), processes.world())
        waiting = deque(lanes.chunks(first))
        read = _ahead(self._shuffled, list(waiting))
        held: Held = {lane: deque() for lane in lanes.mine}
        none = self._hold(held, waiting, read)
        together, last = max(1, TOGETHER // batch_size), -(-lanes.rows // batch_size)
        for start in range(first, last, together):
            stop = min(start + together, last)
            while waiting and waiting[0].step < stop:
                self._hold(held, waiting, read)
            taken = np.array([[lanes.taken(lane, step) for step in range(start, stop + 1)] for lane in lanes.mine])
            ends = zip(lanes.mine, taken[:, 0].tolist(), taken[:, -1].tolist(), strict=True)
            pieces = [piece for lane, *its in ends for piece in _take(held[lane], *its)] or [none]
            # By step, and in a step by lane.
            counts = np.diff(taken)
            steps = np.repeat(np.tile(np.arange(stop - start), len(taken)), counts.flatten())
            order = torch.from_numpy(steps.argsort(kind="stable"))
            batch = Batch(*map(torch.cat, zip(*pieces, strict=True))).at(order).to(self.device)
            for step, part in enumerate(batch.split(counts.sum(axis=0).tolist()), start):
                yield Step(part, min(batch_size, lanes.rows - step * batch_size) / lanes.world)

    @staticmethod
    def _hold(held: Held, waiting: deque[Chunk], read: Iterator[Batch]) -> Batch:
        """Take the next chunk, and return none of its rows."""
        chunk, batch = waiting.popleft(), next(read)
        held[chunk.lane].append((chunk, batch))
        return batch.at(slice(0))

    def _whole(self, group: int) -> Batch:
        return self._read([Piece(group, 0, self._sizes[group])])

    def _shuffled(self, chunk: Chunk) -> Batch:
        order = chunk.order()
        # By numpy, in this thread alone: PyTorch would take the cores from the training.
        return Batch(*(torch.from_numpy(part.numpy()[order]) for part in self._read(chunk.pieces)))

    def _read(self, pieces: Sequence[Piece]) -> Batch:
        """Return the rows of some pieces, encoded, on the CPU."""
        tables = []
        for piece in pieces:
            table = self._file.read_row_group(piece.group, columns=self.columns, use_threads=False)
            if self.mask is not None:
                start, stop = self._starts[piece.group : piece.group + 2]
                table = table.filter(pa.array(self.mask[start:stop]))
            tables.append(table.slice(piece.start, piece.stop - piece.start))
        return self.encode(pa.concat_tables(tables).to_pandas(use_threads=False))


def _take(held: deque[tuple[Chunk, Batch]], start: int, stop: int) -> Iterator[Batch]:
    """Yield the rows `start` to `stop` of a lane out of the chunks that are held of it; one that is used up goes."""
    while start < stop:
        chunk, batch = held[0]
        end = min(stop, chunk.stop)
        yield batch.at(slice(start - chunk.first, end - chunk.first))
        if end == chunk.stop:
            held.popleft()
        start = end


def _ahead(read: Callable[[Item], Batch], items: Sequence[Item]) -> Iterator[Batch]:
    """Yield `read` of each item; a thread reads AHEAD of them while the ones before are used."""
    coming = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(read, item) for item in islice(coming, AHEAD))
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(read, item) for item in islice(coming, 1))
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
