"""The order of rows in an epoch over a file that does not fit into memory, as arithmetic: nothing is read here.

The row groups are put into another order each epoch, and their rows, one after the other, are dealt to lanes of equal
length. Each batch takes its part of every lane, so it mixes as many places of the file as there are lanes. Within a
lane, rows are shuffled in a buffer of BUFFER row groups. Processes own lanes: with 1, 2, 4 or 8 of them the batches
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Lanes, of one process or of all together; more only where there are more processes, or they do not divide it.
LANES = 8

#: Row groups that are shuffled together.
BUFFER = 2


@dataclass(frozen=True)
class Piece:
    """The rows `start` to `stop` of a row group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """Rows of a lane that are read and shuffled together: `first` is the lane's row with which it begins, `step` the
    step that needs one of them first.
    """

    lane: int
    step: int
    first: int
    pieces: list[Piece]
    seed: list[int]

    @property
    def stop(self) -> int:
        """The lane's row with which it ends."""
        return self.first + sum(piece.stop - piece.start for piece in self.pieces)

    def order(self) -> NDArray[Any]:
        """Return the order of its rows."""
        return np.random.default_rng(self.seed).permutation(self.stop - self.first)


@dataclass(frozen=True)
class Lanes:
    """The lanes of `rank` among `world` processes, for an epoch over row groups of so many rows, `sizes`.

    The first n rows of an epoch are, of lane l of L, its first (n + l) // L rows, which add up to n.
    """

    sizes: Sequence[int]
    batch_size: int
    seed: list[int]
    rank: int
    world: int

    @cached_property
    def rows(self) -> int:
        """Rows of all lanes."""
        return sum(self.sizes)

    @property
    def count(self) -> int:
        """Lanes of all processes: a multiple of their number."""
        return -(-LANES // self.world) * self.world

    @property
    def mine(self) -> range:
        """The lanes of this process."""
        return range(self.rank, self.count, self.world)

    def taken(self, lane: int, step: int) -> int:
        """Return how many rows of a lane are in the batches before `step`."""
        return (min(step * self.batch_size, self.rows) + lane) // self.count

    def chunks(self, first: int = 0) -> list[Chunk]:
        """Return what this process needs from step `first` on, in the order in which steps, and in a step the lanes,
        need it: of each lane its last chunk at least.
        """
        groups = np.random.default_rng(self.seed).permutation(len(self.sizes))
        edges = np.concatenate([[0], np.cumsum(np.asarray(self.sizes)[groups])])
        found = [chunk for lane in self.mine for chunk in self._chunks(lane, first, groups, edges)]
        return sorted(found, key=lambda chunk: (chunk.step, chunk.lane, chunk.first))

    def _chunks(self, lane: int, first: int, groups: NDArray[Any], edges: NDArray[Any]) -> list[Chunk]:
        begin = sum((self.rows + before) // self.count for before in range(lane))
        end = begin + (self.rows + lane) // self.count
        pieces = []
        for at in range(int(np.searchsorted(edges, begin, "right")) - 1, int(np.searchsorted(edges, end))):
            start, stop = max(begin, int(edges[at])), min(end, int(edges[at + 1]))
            if start < stop:
                pieces.append(Piece(int(groups[at]), start - int(edges[at]), stop - int(edges[at])))
        # The first chunks differ in length, also among the lanes of one process, whatever the number of processes: not
        # all lanes need another chunk at the same step.
        cuts = [0, *range(1 + lane.bit_count() % BUFFER, len(pieces), BUFFER), len(pieces)]
        chunks, row = [], 0
        for left, right in pairwise(cuts):
            step = max(0, -(-((row + 1) * self.count - lane) // self.batch_size) - 1)
            chunk = Chunk(lane, max(step, first), row, pieces[left:right], [*self.seed, lane, row])
            row = chunk.stop
            if row > self.taken(lane, first) or right == len(pieces):
                chunks.append(chunk)
        return chunks
