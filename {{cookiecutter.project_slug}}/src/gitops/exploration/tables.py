"""A split in parquet, of which one column at a time, or some rows, are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

#: Bytes of the values, 8 a cell, of the rows that are read at once.
PART = 16 << 20


class Split:
    """The rows of one file."""

    def __init__(self, name: str, path: Path) -> None:
        """Open it. Raises OSError, or ValueError (pyarrow's ArrowInvalid is one)."""
        self.name = name
        self._file = pq.ParquetFile(str(path))
        self.rows: int = self._file.metadata.num_rows
        self.names: list[str] = self._file.schema_arrow.names

    def type(self, name: str) -> pa.DataType:
        """Return the type of a column."""
        return self._file.schema_arrow.field(name).type

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, whole."""
        return self._file.read(columns=[name])[name]

    def parts(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows, part by part in their order."""
        for batch in self._file.iter_batches(max(1, PART // (8 * max(1, len(names)))), columns=[*names]):
            yield pa.Table.from_batches([batch]).select([*names])

    def sample(self, names: Sequence[str], rows: int, seed: int = 0) -> pd.DataFrame:
        """Return some columns of at most `rows` rows, drawn without replacement, in the table's order."""
        chosen = np.arange(self.rows)
        if self.rows > rows:
            chosen = np.sort(np.random.default_rng(seed).choice(self.rows, rows, replace=False))
        found, start = [], 0
        for part in self.parts(names):
            first, last = np.searchsorted(chosen, [start, start + part.num_rows])
            found.append(part.take(pa.array(chosen[first:last] - start)))
            start += part.num_rows
        empty = self._file.schema_arrow.empty_table().select([*names])
        frame: pd.DataFrame = pa.concat_tables([empty, *found]).to_pandas()
        return frame.reset_index(drop=True)
