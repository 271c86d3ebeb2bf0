"""Parquet files read and written a part of the rows at a time, so that memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core import artifacts

if TYPE_CHECKING:
    import pandas as pd

#: Bytes of a part's values, 8 a cell.
PART = 16 << 20

#: Rows that a part has a multiple of, if it has as many: what a model takes at once is then full.
FULL = 8192


def rows_of(columns: int) -> int:
    """Return the number of rows of a part of a table with so many columns."""
    rows = max(1, PART // (8 * max(1, columns)))
    return rows - rows % FULL if rows > FULL else rows


def read(path: Path) -> Iterator[pd.DataFrame]:
    """Yield the rows of a parquet file as frames, in their order and with the types of artifacts.read_parquet.

    A file without rows gives one frame without rows. Raises OSError or ValueError where it is no such file.
    """
    with pq.ParquetFile(str(path)) as file:
        schema, empty = file.schema_arrow, file.metadata.num_rows == 0
        if empty:
            yield schema.empty_table().to_pandas()
        for batch in file.iter_batches(rows_of(len(schema))):
            yield pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata).to_pandas()


@contextmanager
def writing(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that adds the rows of a frame to the parquet file `path`, which is whole or not there at all.

    The first frame gives the columns and their types. Raises KeyError or ValueError for a frame without them.
    """
    with artifacts.replacing(path) as temporary:
        writer: pq.ParquetWriter | None = None

        def write(frame: pd.DataFrame) -> None:
            nonlocal writer
            table = pa.Table.from_pandas(frame, writer.schema if writer else None, preserve_index=False)
            writer = writer or pq.ParquetWriter(str(temporary), table.schema)
            writer.write_table(table)

        try:
            yield write
        finally:
            if writer:
                writer.close()
