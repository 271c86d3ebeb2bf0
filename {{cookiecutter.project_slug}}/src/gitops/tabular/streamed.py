"""A table as its columns, or as parts of its rows: held in memory, or read from parquet each time that it is asked for.

Of a table that is too large for memory only narrow columns are held whole (keys.py). What types a column and what
splits rows is code on Arrow's and NumPy's arrays: both tables go through it, so no query engine is needed, in which
each rule would have to be written once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import dtypes, load, parts, table
from gitops.tabular.parquet_files import ParquetFiles
from gitops.tabular.raw_column import Column

#: A parquet table whose values take more bytes is read in parts.
BUDGET = 2**28

#: Bytes of the values of a part.
PART = 2**24


class Table(Protocol):
    """Columns with the types of dtypes.py, null where a value is missing."""

    names: list[str]
    rows: int

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, whole."""

    def parts(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows, part by part in their order."""


class Held:
    """A frame with the columns of table.py."""

    def __init__(self, frame: pd.DataFrame) -> None:
        """Take a frame; its index does not count."""
        found = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        self.table = pa.table([*map(_plain, found.columns)], names=found.column_names)
        self.names, self.rows = self.table.column_names, len(frame)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        return self.table[name]

    def parts(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Return the columns as one part."""
        yield self.table.select([*names])


class Streamed:
    """The parquet table of `data.path`, each time read anew."""

    def __init__(self, files: ParquetFiles, data: Data) -> None:
        """Raise ProjectError for columns that cannot be: see table.py."""
        load.check_names(files.schema.names, {*data.left_out}, files.problem)
        table.require(files.schema.names, data)
        self.files, self.data, self.rows = files, data, files.rows
        self._at = {name: at for at, name in enumerate(files.schema.names) if name not in data.left_out}
        self.names = [*self._at]
        # The dtype of some columns follows from all of their values.
        types = {name: files.schema.field(at).type for name, at in self._at.items()}
        whole = [name for name, type_ in types.items() if not table.by_type(name, type_, data)]
        self._whole = {name: self.column(name) for name in whole}

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, whole. Raises ProjectError as `table.read` does."""
        return table.whole(self._raw(name, self.files.column(self._at[name])), self.data)

    def parts(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows in parts of PART bytes. Raises ProjectError as `table.read` does."""
        rows = max(1, PART * self.rows // max(1, self.files.size))
        read = [name for name in names if name not in self._whole]
        start = 0
        with tqdm(total=self.rows, unit=" rows", desc="prepare", leave=False, disable=None) as progress:
            for batch in self.files.batches([self._at[name] for name in read], rows):
                found = dict(zip(read, self._typed(read, batch), strict=True))
                found |= {name: self._whole[name].slice(start, batch.num_rows) for name in names if name in self._whole}
                start += batch.num_rows
                yield pa.table({name: found[name] for name in names})
                progress.update(batch.num_rows)

    def _typed(self, names: list[str], batch: pa.RecordBatch) -> list[pa.ChunkedArray]:
        chunks = zip(names, batch.columns, strict=True)
        try:
            return [table.part(self._raw(name, pa.chunked_array([chunk])), self.data) for name, chunk in chunks]
        except ProjectError:
            for name in self.names:  # the error says how many of all rows are at fault, and is of the first column
                self.column(name)
            raise

    def _raw(self, name: str, values: pa.ChunkedArray) -> Column:
        return Column(name, values, self.data.path, None)


def opened(data: Data) -> pd.DataFrame | Streamed:
    """Return the table of `data.path`: as `table.read` does, or in parts where its values take more than BUDGET bytes.

    Only parquet is read in parts: the dtype of a CSV file's column follows from all of its texts. Raises ProjectError
    as `table.read` does.
    """
    table.check_query(data)
    if data.path.endswith(".csv"):
        return table.read(data)
    files = ParquetFiles(parts.files(data), "data.path", data.path)
    return Streamed(files, data) if files.size > BUDGET else table.read(data)


def held(found: pd.DataFrame | Streamed) -> Table:
    """Return a frame, or what `opened` has returned, as a table."""
    return Held(found) if isinstance(found, pd.DataFrame) else found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return an owner's column in a type of the splits: no dictionary, no null, one type of dates."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        type_ = pa.string()
    if pa.types.is_date(type_):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        return column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(dtypes.MOMENT)
    return column.cast(type_)
