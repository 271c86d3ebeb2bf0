"""How the splits lie in parquet: in row groups of about the same size in memory, which training reads one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core import artifacts
from gitops.tabular import dtypes

#: Bytes of a row group's values in memory, and the most rows that it has.
BYTES, ROWS = 2**24, 2**20


def rows_of_group(table: pa.Table) -> int:
    """Return how many rows like those of `table` a row group has: 1 to ROWS, in memory about BYTES."""
    return max(1, min(ROWS, int(BYTES * table.num_rows // max(1, table.nbytes))))


class Writer:
    """Writes the rows of a split, which come in parts, to a parquet file; pandas reads what `dtypes.series` returns."""

    def __init__(self, path: Path) -> None:
        """Open the file with the first part, and measure row groups by the first that has rows."""
        self.path, self.rows = path, 0
        self._waiting: list[pa.Table] = []
        self._group = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what waits, and close the file."""
        if self._waiting and error is None:
            self._write(pa.concat_tables(self._waiting))
        if self._writer is not None:
            self._writer.close()

    def add(self, part: pa.Table) -> None:
        """Take some rows, and write those that fill a row group."""
        if not self._group and part.num_rows:
            self._group = rows_of_group(part)
        if self._writer is None:
            texts = [field.name for field in part.schema if pa.types.is_string(field.type)]
            # A dictionary of a number's values is tried in vain for the most part, and costs half of the time.
            schema = part.schema.with_metadata(pandas_metadata(part))
            self._writer = pq.ParquetWriter(str(self.path), schema, use_dictionary=texts or False)
        self.rows += part.num_rows
        self._waiting.append(part)
        waiting = sum(each.num_rows for each in self._waiting)
        if self._group and waiting >= self._group:
            whole = waiting // self._group * self._group
            found = pa.concat_tables(self._waiting)
            self._write(found.slice(0, whole))
            self._waiting = [found.slice(whole).combine_chunks()]

    def _write(self, rows: pa.Table) -> None:
        if rows.num_rows and self._writer is not None:
            self._writer.write_table(rows, row_group_size=self._group)


class Stored:
    """A split of a table that is read in parts: in a parquet file, which `write` moves to its place."""

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory[str]) -> None:
        """Take the file; the temporary folder around it is deleted when no split needs it any more."""
        self.path, self._folder = path, folder
        self._file = pq.ParquetFile(str(path))  # open: each time the footer of a thousand columns would be read anew
        self.names, self.rows = self._file.schema_arrow.names, self._file.metadata.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, whole."""
        return self._file.read(columns=[name], use_threads=False)[name]


def write(path: Path, split: pd.DataFrame | Stored) -> None:
    """Write a split without its index, whole or not at all."""
    if isinstance(split, Stored):
        path.parent.mkdir(parents=True, exist_ok=True)
        split.path.replace(path)
        return
    table = pa.Table.from_pandas(split, preserve_index=False)
    # Texts of which this split has none would have no type.
    columns = [column.cast(pa.string()) if pa.types.is_null(column.type) else column for column in table.columns]
    with artifacts.replacing(path) as temporary, Writer(temporary) as writer:
        writer.add(pa.table(columns, names=table.column_names))


def pandas_metadata(table: pa.Table) -> dict[bytes, bytes]:
    """Return what a parquet file says to pandas of its columns, of which a boolean one may have missing values."""
    sample = table.slice(0, 1)
    frame = pd.DataFrame({name: dtypes.series(sample[name]) for name in sample.column_names})
    metadata: dict[bytes, bytes] = pa.Schema.from_pandas(frame, preserve_index=False).metadata
    return metadata
