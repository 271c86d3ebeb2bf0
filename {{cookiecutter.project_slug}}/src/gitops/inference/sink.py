"""The tables that `make batch` writes: CSV or parquet, local or in a cloud, under a hidden name until complete."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from gitops.core.addresses import PARQUET, arrow_filesystem, locate, reached, suffix
from gitops.core.artifacts import ProjectError

#: Rows that are written at once: in parquet a row group, of a size that other programs read well.
ROW_GROUP = 65_536


def rejected(address: str) -> str:
    """Return the address of the rejected rows: beside OUTPUT."""
    end = suffix("OUTPUT", address)
    return f"{address.removesuffix(end)}.rejected{end}"


@contextmanager
def writing(address: str, schema: pa.Schema, *, if_empty: bool = True) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that appends rows to a file, which replaces `address` when the block ends well.

    Without rows there is no file at `address` afterwards, unless `if_empty`. Raises ProjectError naming OUTPUT where
    the file cannot be written; `address` then holds what it held before.
    """
    filesystem, path = locate("OUTPUT", address)
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{uuid.uuid4().hex}-{name}"
    undo: list[Callable[[], object]] = [lambda: filesystem.rm_file(temporary)]
    try:
        with reached("OUTPUT", address):
            if isinstance(filesystem, LocalFileSystem):
                filesystem.makedirs(folder, exist_ok=True)
            stream = arrow_filesystem(filesystem).open_output_stream(temporary, compression="detect")
            undo.insert(0, stream.close)
            writer = _Writer(stream, schema, parquet=suffix("OUTPUT", address) == PARQUET)
            undo.insert(0, writer.abandon)

        def write(batch: pa.RecordBatch) -> None:
            with reached("OUTPUT", address):
                writer.write(batch)

        yield write
        with reached("OUTPUT", address):
            writer.close()
            stream.close()
            if writer.rows or if_empty:
                filesystem.mv(temporary, path)
                if filesystem.exists(temporary):  # a bucket that allows writing but not deleting
                    raise ProjectError(f"OUTPUT is {address!r}, where {temporary} cannot be deleted")
            else:
                filesystem.rm_file(temporary)
                if filesystem.exists(path):
                    filesystem.rm_file(path)
    except BaseException:
        for step in undo:
            with suppress(Exception):  # the first error is the one to report
                step()
        raise


class _Writer:
    """Writes batches of rows as CSV or parquet, ROW_GROUP rows at a time."""

    def __init__(self, stream: Any, schema: pa.Schema, *, parquet: bool) -> None:
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        if parquet:
            self._writer = pq.ParquetWriter(stream, schema)
        else:
            self._writer = pacsv.CSVWriter(stream, schema, write_options=pacsv.WriteOptions(quoting_header="needed"))

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.rows += batch.num_rows
        self._waiting.append(batch)
        if sum(waiting.num_rows for waiting in self._waiting) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting = []

    def close(self) -> None:
        """Write the waiting rows and the end of the file."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """End the file without the waiting rows."""
        self._writer.close()
