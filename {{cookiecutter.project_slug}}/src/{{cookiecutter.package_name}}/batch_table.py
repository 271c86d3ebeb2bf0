"""The tables of `make batch`, CSV or parquet, here or in a cloud: read in parts, written aside and then renamed.

Addresses are fsspec's: a path, or `s3://`, `gs://`, `abfs://` and others, for which the environment must have fsspec's
library, as it has for the cloud of the DVC remote. Credentials come from where that library looks for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs as pafs

from .artifacts import ProjectError
from .batch_check import Array

PARQUET = ".parquet"
SUFFIXES = (".csv", ".csv.gz", PARQUET)

#: Bytes of a CSV file, and rows of a parquet file, that are read at once: with these a model of 30 columns is busiest.
CSV_BLOCK = 2**22
PARQUET_ROWS = 8192

#: Rows that are written to a parquet file at once.
ROW_GROUP = 65_536


@dataclass(frozen=True)
class Part:
    """Rows of a table: their numbers in it, from 0, their cells, and the lines of CSV among them that are no rows."""

    numbers: Array
    batch: pa.RecordBatch
    malformed: list[tuple[int, str]]


class Source:
    """What INPUT names: a file, or a folder or pattern of files with equal columns, in the order of their names."""

    def __init__(self, address: str) -> None:
        """Look at the files' headers. Raises ProjectError where there is no such table, or it cannot be read."""
        self.address = address
        self.filesystem, path = locate("INPUT", address)
        with reached("INPUT", address):
            self.paths = self._paths(path)
        self.single = self.paths == [path]
        self.suffix = suffix("INPUT", self.paths[0])
        self.arrow = arrow_filesystem(self.filesystem)
        self.rows: int | None = 0  # not known for CSV
        schemas = [self._header(path) for path in self.paths]
        self.schema = schemas[0]
        for path, schema in zip(self.paths, schemas, strict=True):
            if not schema.equals(self.schema):
                raise ProjectError(f"INPUT is {address!r}: {path} has other columns or types than {self.paths[0]}")

    def holds(self, output: str) -> bool:
        """Tell whether `output` would take the place of an input file, or become one."""
        filesystem, path = locate("OUTPUT", output)
        folders = {parent for parent, _, _ in (name.rpartition("/") for name in self.paths)}
        inside = not self.single and path.rpartition("/")[0] in folders
        return type(filesystem) is type(self.filesystem) and (path in self.paths or inside)

    def _paths(self, path: str) -> list[str]:
        if "*" not in path and not self.filesystem.isfile(path):
            path = f"{path.rstrip('/')}/*{PARQUET}"
        found = sorted(self.filesystem.glob(path)) if "*" in path else [path]
        # What begins with a dot or an underscore is another program's: unfinished, or about the others.
        paths = [str(name) for name in found if PurePosixPath(name).name[0] not in "._"]
        if not paths:
            raise ProjectError(f"INPUT is {self.address!r}: there is no such file, nor a parquet file in such a folder")
        return paths

    def _header(self, path: str) -> pa.Schema:
        if suffix("INPUT", path) != self.suffix:
            raise ProjectError(f"INPUT is {self.address!r}: {path} and {self.paths[0]} are of different kinds")
        with _readable(path):
            if self.suffix == PARQUET:
                with self._open_parquet(path) as file:
                    self.rows = None if self.rows is None else self.rows + file.metadata.num_rows
                    schema = file.schema_arrow.remove_metadata()
            else:
                self.rows = None
                with self._open_csv(path, []) as reader:
                    schema = reader.schema
        names = [name.strip() for name in schema.names]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ProjectError(f"{path}: columns {repeated} appear more than once; rename them")
        return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])

    def parts(self) -> Iterator[Part]:
        """Read the table. Raises ProjectError where a file is broken."""
        first = 0
        for path in self.paths:
            end = first
            with _readable(path):
                for numbers, batch, malformed in self._parquet(path) if self.suffix == PARQUET else self._csv(path):
                    lines = [(first + row, line) for row, line in malformed]
                    yield Part(first + numbers, batch.rename_columns(self.schema.names), lines)
                    end = 1 + max([end - 1, *(first + numbers[-1:]), *(row for row, _ in lines)])
            first = end

    def _parquet(self, path: str) -> Iterator[tuple[Array, pa.RecordBatch, list[tuple[int, str]]]]:
        first = 0
        with self._open_parquet(path) as file:
            # Without threads and pages read ahead, memory is the same for every size of row groups.
            for batch in file.iter_batches(PARQUET_ROWS, use_threads=False):
                yield np.arange(first, first + batch.num_rows), batch, []
                first += batch.num_rows

    def _csv(self, path: str) -> Iterator[tuple[Array, pa.RecordBatch, list[tuple[int, str]]]]:
        malformed: list[tuple[int, str]] = []
        first = 0
        with self._open_csv(path, malformed) as reader:
            for batch in reader:
                taken = np.array([row for row, _ in malformed], dtype="int64")
                numbers = np.setdiff1d(np.arange(first, first + batch.num_rows + len(taken)), taken)[: batch.num_rows]
                first = int(numbers[-1]) + 1 if len(numbers) else first
                before = sum(row < first for row, _ in malformed)
                yield numbers, batch, malformed[:before]
                del malformed[:before]
            yield np.arange(0), pa.RecordBatch.from_pylist([], reader.schema), malformed

    def _open_parquet(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.arrow.open_input_file(path), pre_buffer=False, buffer_size=2**20)

    def _open_csv(self, path: str, malformed: list[tuple[int, str]]) -> pacsv.CSVStreamingReader:
        """Return a reader of blocks of text. Lines with too few or too many cells are added to `malformed`."""

        def skip(row: pacsv.InvalidRow) -> str:
            malformed.append((row.number - 2, f"{row.actual_columns} cells where {row.expected_columns} are expected"))
            return "skip"

        return pacsv.open_csv(
            self.arrow.open_input_stream(path, compression="detect"),
            # A row's number is known only without threads; the work after this one has them.
            pacsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK),
            pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            pacsv.ConvertOptions(default_column_type=pa.string()),
        )


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


def locate(setting: str, address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an address and the path there. Raises ProjectError naming the setting."""
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        return filesystem, str(path)
    except (ImportError, ValueError, OSError) as error:
        raise ProjectError(f"{setting} is {address!r}: there is no way to it ({error})") from error


@contextmanager
def reached(setting: str, address: str) -> Iterator[None]:
    """Whatever goes wrong at an address is a ProjectError that names the setting."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library has errors of its own
        raise ProjectError(f"{setting} is {address!r}, which cannot be used: {error}") from error


def suffix(setting: str, address: str) -> str:
    """Return which of SUFFIXES the address ends in. Raises ProjectError naming the setting where it is none."""
    for known in SUFFIXES:
        if address.endswith(known):
            return known
    raise ProjectError(f"{setting} is {address!r}: a name that ends in {', '.join(SUFFIXES)} is needed")


def rejected(address: str) -> str:
    """Return where the rows that did not fit go: beside OUTPUT."""
    end = suffix("OUTPUT", address)
    return f"{address.removesuffix(end)}.rejected{end}"


def arrow_filesystem(filesystem: fsspec.AbstractFileSystem) -> pafs.FileSystem:
    """Return the file system as pyarrow takes it: its own for local files, which needs no Python to read."""
    if isinstance(filesystem, LocalFileSystem):
        return pafs.LocalFileSystem()
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # as above, and each kind of file has its own as well
        raise ProjectError(f"INPUT: {path} is no readable table ({error})") from error
