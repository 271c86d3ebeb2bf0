"""The table that `make batch` reads, CSV or parquet, here or in a cloud, in parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gitops.core.addresses import PARQUET, arrow_filesystem, locate, reached, suffix
from gitops.core.artifacts import ProjectError
from gitops.tabular.arrow import Array

#: Bytes of a CSV file, and rows of a parquet file, that are read at once: with these a model of 30 columns is busiest.
CSV_BLOCK = 2**22
PARQUET_ROWS = 8192


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
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library has errors of its own, and so has each kind of file
        raise ProjectError(f"INPUT: {path} is no readable table ({error})") from error
