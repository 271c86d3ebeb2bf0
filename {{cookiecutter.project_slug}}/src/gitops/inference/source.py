"""The input table of `make batch`: CSV or parquet, local or in a cloud, read in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gitops.core.addresses import PARQUET, arrow_filesystem, locate, reached, suffix
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.inference import parts
from gitops.inference.parts import Part
from gitops.tabular import cells, csv_checks, csv_file, csv_rows
from gitops.tabular.arrow import Array
from gitops.tabular.parts import refuse_others

#: Size of a chunk: bytes of a CSV file, rows of a parquet file. These gave the highest throughput for 30 columns.
CSV_BLOCK = 2**22
PARQUET_ROWS = 8192

#: Lines of a CSV file that are not rows: row number in the table, and why.
Malformed = list[tuple[int, str]]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a table.

    `rows` are their numbers in it, from 0; `malformed` are the lines of CSV between them that are not rows. In a part
    of a table they count in `file`, which is named from the folder that holds all of them.
    """

    rows: Array  # int64, [rows of batch]
    batch: pa.RecordBatch
    malformed: Malformed
    file: str = ""


class Source:
    """The table INPUT: one file, or the files of a folder or pattern in order of their names, with equal columns."""

    def __init__(self, address: str, csv: Csv = cells.DEFAULT, part: Part | None = None) -> None:
        """Read the files' headers. Raises ProjectError where there is no such table, or it cannot be read.

        `csv`: how CSV is written, as `cells.csv_of` returns it for the model's schema. `part`: read its files alone, of
        which there may be none.
        """
        self.address = address
        self.csv = csv
        self.part = part
        self._written: dict[str, tuple[str, bool]] = {}  # of each CSV file, its encoding and csv_rows.padded
        self.filesystem, path = locate("INPUT", address)
        with reached("INPUT", address):
            self.files = self._paths(path)  # all of the table's
        self.paths = self.files[part.index :: part.count] if part else self.files
        self.single = self.files == [path]
        self._root = parts.root(path.rpartition("/")[0] if self.single else path)
        self.suffix = suffix("INPUT", self.files[0])
        self.arrow = arrow_filesystem(self.filesystem)
        headers = {path: self._header(path) for path in dict.fromkeys([self.files[0], *self.paths])}
        self.schema, _ = headers[self.files[0]]
        for path, (schema, _) in headers.items():
            if not schema.equals(self.schema):
                raise ProjectError(f"INPUT is {address!r}: {path} has other columns or types than {self.files[0]}")
        counts = [headers[path][1] for path in self.paths]
        #: None: unknown, as for CSV.
        self.rows = None if None in counts else sum(count or 0 for count in counts)

    def contains(self, output: str) -> bool:
        """Tell whether writing to `output` would replace an input file or add one."""
        filesystem, path = locate("OUTPUT", output)
        folders = {parent for parent, _, _ in (name.rpartition("/") for name in self.files)}
        inside = not self.single and path.rpartition("/")[0] in folders
        return type(filesystem) is type(self.filesystem) and (path in self.files or inside)

    def _paths(self, path: str) -> list[str]:
        if "*" not in path and not self.filesystem.isfile(path):
            folder = path.rstrip("/")
            refuse_others(f"INPUT is {self.address!r}", folder, self.filesystem.find(folder))
            path = f"{folder}/*{PARQUET}"
        found = sorted(self.filesystem.glob(path)) if "*" in path else [path]
        # By convention a name that begins with a dot or an underscore is unfinished, or metadata.
        paths = [str(name) for name in found if PurePosixPath(name).name[0] not in "._"]
        if not paths:
            raise ProjectError(f"INPUT is {self.address!r}: there is no such file, and no folder with parquet files")
        return paths

    def _header(self, path: str) -> tuple[pa.Schema, int | None]:
        """Return the columns of a file and how many rows it has, None where only reading it tells."""
        if suffix("INPUT", path) != self.suffix:
            raise ProjectError(f"INPUT is {self.address!r}: {path} and {self.files[0]} have different formats")
        rows: int | None = None
        with _readable(path):
            if self.suffix == PARQUET:
                with self._open_parquet(path) as file:
                    rows = file.metadata.num_rows
                    schema = file.schema_arrow.remove_metadata()
            else:
                with self.arrow.open_input_stream(path, compression="detect") as stream:
                    start = stream.read(csv_checks.START)
                name = csv_rows.encoding(start, self.csv, f"INPUT: {path}")
                self._written[path] = name, csv_rows.padded(start, self.csv, name)
                with self._open_csv(path, []) as reader:
                    schema = reader.schema
        names = [name.strip() for name in schema.names]
        csv_checks.check_delimiter(names, self.csv, f"INPUT: {path}")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ProjectError(f"{path}: columns {repeated} appear more than once; rename them")
        return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)]), rows

    def chunks(self) -> Iterator[Chunk]:
        """Read the table. Raises ProjectError where a file is broken."""
        first = 0
        for path in self.paths:
            first = 0 if self.part else first
            end = first
            with _readable(path):
                for chunk in self._parquet(path, first) if self.suffix == PARQUET else self._csv(path, first):
                    yield replace(chunk, file=path.removeprefix(self._root)) if self.part else chunk
                    end = max([end, *(chunk.rows[-1:] + 1), *(row + 1 for row, _ in chunk.malformed)])
            first = end

    def _parquet(self, path: str, first: int) -> Iterator[Chunk]:
        with self._open_parquet(path) as file:
            # Without threads and read-ahead, memory does not depend on the size of the file's row groups.
            for batch in file.iter_batches(PARQUET_ROWS, use_threads=False):
                yield Chunk(np.arange(first, first + batch.num_rows), batch.rename_columns(self.schema.names), [])
                first += batch.num_rows

    def _csv(self, path: str, first: int) -> Iterator[Chunk]:
        malformed: Malformed = []
        last = ""
        with self._open_csv(path, malformed, first) as reader:
            for batch in reader:
                last = batch.column(batch.num_columns - 1)[-1].as_py() if batch.num_rows else last
                skipped = np.array([row for row, _ in malformed], dtype="int64")
                rows = np.setdiff1d(np.arange(first, first + batch.num_rows + len(skipped)), skipped)[: batch.num_rows]
                first = int(rows[-1]) + 1 if len(rows) else first
                before = sum(row < first for row, _ in malformed)
                yield Chunk(rows, batch.rename_columns(self.schema.names), malformed[:before])
                del malformed[:before]
        if last.endswith(("\n", "\r")) and csv_checks.open_quote(last, self._end(path), self._written[path][0]):
            raise ProjectError(f"INPUT: {path}: a quote in its last row is not closed")
        yield Chunk(np.arange(0), pa.RecordBatch.from_pylist([], self.schema), malformed)

    def _end(self, path: str) -> bytes:
        """Return the last bytes of a CSV file."""
        end = b""
        with self.arrow.open_input_stream(path, compression="detect") as stream:
            while block := stream.read(CSV_BLOCK):
                end = (end + block)[-8:]
        return end

    def _open_parquet(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.arrow.open_input_file(path), pre_buffer=False, buffer_size=2**20)

    def _open_csv(self, path: str, malformed: Malformed, first: int = 0) -> pacsv.CSVStreamingReader:
        """Return a reader of blocks of text, whose first row has the number `first`.

        Lines with too few or too many cells are added to `malformed`, also those of blocks that are read ahead.
        """

        def skip(line: pacsv.InvalidRow) -> str:
            reason = f"{line.actual_columns} cells where {line.expected_columns} are expected"
            malformed.append((first + line.number - 2, reason))
            return "skip"

        stream = self.arrow.open_input_stream(path, compression="detect")
        return csv_file.opened(stream, self.csv, *self._written[path], skip, CSV_BLOCK)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library and each format has errors of its own
        raise ProjectError(f"INPUT: {path} is not a readable table ({error})") from error
