"""The tables that `make batch` writes, CSV or parquet, here or in a cloud: aside, and then renamed."""

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

#: Rows that are written to a parquet file at once.
ROW_GROUP = 65_536


def rejected(address: str) -> str:
    """Return where the rows that did not fit go: beside OUTPUT."""
    end = suffix("OUTPUT", address)
    return f"{address.removesuffix(end)}.rejected{end}"


@contextmanager
def writing(address: str, schema: pa.Schema, *, if_empty: bool = True) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that appends rows to a file, which takes the place of `address` when the block ends well.

    Without rows there will be no file at `address`, unless `if_empty`.
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
            writer = _Parquet(stream, schema) if suffix("OUTPUT", address) == PARQUET else _Csv(stream, schema)
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
                if filesystem.exists(temporary):  # a bucket that lets write and not delete
                    raise ProjectError(f"OUTPUT is {address!r}, where {temporary} cannot be deleted")
            else:
                filesystem.rm_file(temporary)
                if filesystem.exists(path):
                    filesystem.rm_file(path)
    except BaseException:
        for step in undo:
            with suppress(Exception):  # what went wrong before is what counts
                step()
        raise


class _Csv:
    """Rows as CSV."""

    def __init__(self, stream: Any, schema: pa.Schema) -> None:
        self.rows = 0
        self.writer = pacsv.CSVWriter(stream, schema, write_options=pacsv.WriteOptions(quoting_header="needed"))

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.rows += batch.num_rows
        self.writer.write_batch(batch)

    def close(self) -> None:
        """Write what waits, and the end."""
        self.writer.close()

    abandon = close


class _Parquet:
    """Rows as parquet, in row groups of a size that other programs read well."""

    def __init__(self, stream: Any, schema: pa.Schema) -> None:
        self.rows = 0
        self.waiting: list[pa.RecordBatch] = []
        self.writer = pq.ParquetWriter(stream, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.rows += batch.num_rows
        self.waiting.append(batch)
        if sum(part.num_rows for part in self.waiting) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self.writer.write_table(pa.Table.from_batches(self.waiting, self.writer.schema))
        self.waiting = []

    def close(self) -> None:
        """Write what waits, and the end."""
        if self.waiting:
            self._flush()
        self.writer.close()

    def abandon(self) -> None:
        """Leave the file without what waits."""
        self.writer.close()
