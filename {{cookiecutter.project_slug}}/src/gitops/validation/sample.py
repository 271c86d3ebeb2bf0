"""The rows that Deepchecks gets of a table that is too large for it.

Its checks work on pandas frames, and some of them on one column or one row after another: its time and memory grow with
rows and columns, and beyond some size more rows show nothing new. Which rows it gets hangs on their numbers alone, so
that it is the same rows each time, whatever their order in the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.artifacts import ROW

if TYPE_CHECKING:
    import pyarrow as pa

#: Cells, rows times columns, of each of the two tables that Deepchecks gets at most.
CELLS = 5_000_000

#: Bytes of decoded values, 8 a cell, that are read at a time.
PART = 16 << 20

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """The rows of a table that are looked at: all whose hash is at most `largest`; None where that is all `total`."""

    total: int
    rows: int
    largest: np.uint64 | None

    def of(self, numbers: Array) -> Array:
        """Tell which of the rows with these numbers (int64) are in the sample, bool [rows]."""
        if self.largest is None:
            return np.ones(len(numbers), dtype=bool)
        return np.asarray(mix(numbers.astype(np.uint64)) <= self.largest)


def choose(paths: list[Path], columns: int) -> Sample:
    """Return the sample of a table of so many columns in the files `paths`. Raises OSError or ValueError as `parts`."""
    numbers = np.concatenate([part.column(0).to_numpy() for path in paths for part in parts(path, [ROW])])
    rows = max(1, CELLS // columns)
    if len(numbers) <= rows:
        return Sample(len(numbers), len(numbers), None)
    hashes = mix(numbers.astype(np.uint64))
    return Sample(len(numbers), rows, np.partition(hashes, rows - 1)[rows - 1])


def mix(numbers: Array) -> Array:
    """Return hashes of numbers (uint64), different for different numbers: the finaliser of SplitMix64 (Steele et al.,
    2014, "Fast splittable pseudorandom number generators").
    """
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


def parts(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of a parquet file, in this order, a part of the rows at a time.

    Raises OSError where there is no such file, and ValueError (pyarrow's ArrowInvalid is one) where it is not one or
    lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(str(path)) as file:
        schema = file.schema_arrow
        if lacking := [name for name in columns if name not in schema.names]:
            raise ValueError(f"no column {lacking[0]!r}")
        for batch in file.iter_batches(max(1, PART // (8 * len(columns))), columns=columns):
            yield pa.Table.from_batches([batch]).select(columns).replace_schema_metadata(schema.metadata)
