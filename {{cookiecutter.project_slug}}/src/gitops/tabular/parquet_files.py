"""The parquet files that are a table: one, those of a folder, or those that a pattern matches, local or in a cloud.

They have equal columns. Their rows follow each other in the order of the files' names. Nothing is read but the files'
footers until columns or batches are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from gitops.core.addresses import PARQUET, arrow_filesystem, locate, reached
from gitops.core.artifacts import ProjectError
from gitops.tabular import parts

#: How pandas names an index without a name, as a column of a parquet file: it is no column of the table.
INDEX = re.compile(r"__index_level_\d+__")

#: Bytes of a file that are read at once for each column.
BUFFER = 2**20

#: Bytes that a text takes beside its characters: its object in Python.
TEXT = 64

#: Rows that are read at once where columns are wanted whole.
ROWS = 2**18


@dataclass(frozen=True)
class File:
    """A parquet file's footer and columns, and its index of pandas' if that is a range with a name."""

    path: str
    footer: pq.FileMetaData
    schema: pa.Schema
    index: tuple[str, int, int] | None  # name, first number, step

    @cached_property
    def places(self) -> list[int]:
        """The positions of the table's columns in the file."""
        return [at for at, name in enumerate(self.schema.names) if not INDEX.fullmatch(name)]

    @cached_property
    def columns(self) -> pa.Schema:
        """The table's columns: names are stripped, and an index that is a range comes last."""
        fields = [self.schema.field(place) for place in self.places]
        fields += [pa.field(self.index[0], pa.int64())] if self.index else []
        return pa.schema([field.with_name(field.name.strip()) for field in fields])


class ParquetFiles:
    """The files at some addresses. `schema` has their columns, of which pandas' index is one if it has a name."""

    def __init__(self, addresses: Sequence[str], setting: str, named: str | None = None) -> None:
        """Read the footers. Raises ProjectError where there is no file, one cannot be read, or columns differ.

        Each address is of a file or folder, or a pattern of files. `setting` names the first, or what `named` says.
        """
        self.problem = f"{setting} is {named or addresses[0]!r}"
        found = [self._found(address, setting) for address in addresses]
        self.arrow = found[0][0]
        self.files = [self._footer(path) for _, paths in found for path in paths]
        self.rows = sum(file.footer.num_rows for file in self.files)
        first = self.files[0]
        self.schema = first.columns
        for file in self.files[1:]:
            agreed = _agreed(self.schema, file.columns)
            if agreed is None:
                raise ProjectError(f"{self.problem}: {file.path} has other columns or types than {first.path}")
            self.schema = agreed
        if not self.rows:
            raise ProjectError(f"{self.problem}: the table has no rows")
        self._unique = len({*first.schema.names}) == len(first.schema)

    @cached_property
    def size(self) -> int:
        """The bytes of the table's values in memory, about."""
        texts = 0
        for footer in (file.footer for file in self.files):
            columns = [at for at in range(footer.num_columns) if footer.schema.column(at).physical_type == "BYTE_ARRAY"]
            groups = [footer.row_group(at) for at in range(footer.num_row_groups)] if columns else []
            texts += sum(group.column(at).total_uncompressed_size for group in groups for at in columns)
        return int(texts + self.rows * sum(_width(field.type) for field in self.schema))

    def table(self) -> pa.Table:
        """Return all columns, whole."""
        return pa.Table.from_batches(self.batches([*range(len(self.schema))], ROWS), self.schema)

    def column(self, at: int) -> pa.ChunkedArray:
        """Return the column at a position in `schema`, whole."""
        batches = [batch.column(0) for batch in self.batches([at], ROWS)]
        return pa.chunked_array(batches, self.schema.field(at).type)

    def batches(self, columns: Sequence[int], rows: int) -> Iterator[pa.RecordBatch]:
        """Read the columns at these positions in `schema`, up to `rows` rows at once. Raises ProjectError."""
        schema = pa.schema([self.schema.field(at) for at in columns])
        for file in self.files:
            every = file.schema.names
            names = [every[file.places[at]] for at in columns if at < len(file.places)]
            start = 0
            with _readable(self.problem), self._opened(file.path) as reader:
                # Without threads and read-ahead, memory does not depend on the size of the file's row groups.
                for batch in reader.iter_batches(rows, columns=names if self._unique else None, use_threads=False):
                    yield pa.RecordBatch.from_arrays(self._arrays(batch, file, columns, start), schema=schema)
                    start += batch.num_rows

    def _arrays(self, batch: pa.RecordBatch, file: File, columns: Sequence[int], start: int) -> list[pa.Array]:
        """Return the columns at some positions out of a batch that begins at the file's row `start`."""
        found, names = batch.columns, file.schema.names
        by_name = dict(zip(batch.schema.names, found, strict=True))
        arrays = []
        for at in columns:
            if at < len(file.places):
                place = file.places[at]
                array = by_name[names[place]] if self._unique else found[place]
            else:
                _, first, step = file.index or ("", 0, 1)
                array = pa.array(np.arange(start, start + batch.num_rows) * step + first)
            type_ = self.schema.field(at).type
            arrays.append(array if array.type == type_ else array.cast(type_))
        return arrays

    def _opened(self, path: str) -> pq.ParquetFile:
        # Arrow opens the file, not Python, for the reason in artifacts.read_parquet.
        return pq.ParquetFile(self.arrow.open_input_file(path), pre_buffer=False, buffer_size=BUFFER)

    def _footer(self, path: str) -> File:
        with _readable(self.problem), self._opened(path) as reader:
            footer, schema = reader.metadata, reader.schema_arrow
        index = None
        for each in (schema.pandas_metadata or {}).get("index_columns", []):
            if isinstance(each, dict) and each.get("kind") == "range" and each.get("name"):
                index = str(each["name"]), each["start"], each["step"]
        return File(path, footer, schema.remove_metadata(), index)

    def _found(self, address: str, setting: str) -> tuple[pafs.FileSystem, list[str]]:
        """Return the file system of an address, and the files there in the order of their names."""
        if "://" in address:
            filesystem, path = locate(setting, address)
            with reached(setting, address):
                if "*" not in path and not filesystem.isfile(path):
                    parts.refuse_others(self.problem, path.rstrip("/"), filesystem.find(path.rstrip("/")))
                    path = f"{path.rstrip('/')}/*{PARQUET}"
                found = [str(name) for name in filesystem.glob(path)] if "*" in path else [path]
            arrow = arrow_filesystem(filesystem)
        else:
            path = f"{address.rstrip('/')}/*{PARQUET}" if Path(address).is_dir() else address
            found = glob(path, recursive=True) if "*" in path else [path] if Path(path).exists() else []
            arrow = pafs.LocalFileSystem()
        # What is written before a pattern's first folder that varies may have any name.
        fixed = len((path.partition("*")[0] if "*" in path else path).rpartition("/")[0])
        paths = sorted(each for each in found if parts.counts(each[fixed:]))
        if not paths:
            what = f"no file matches {path!r}" if "*" in path else "there is no such file"
            raise ProjectError(f"{self.problem}: {what}; `dvc pull` gets it, or correct {setting}")
        return arrow, paths


def _agreed(first: pa.Schema, other: pa.Schema) -> pa.Schema | None:
    """Return the columns of two files; None where they differ by more than whole numbers in place of others.

    A request may have a fraction where the table has whole numbers only: the part that appends it holds floats.
    """
    fields = []
    for one, two in zip(first, other, strict=False):
        floats = [type_ for type_ in (one.type, two.type) if pa.types.is_float64(type_)]
        widened = len(floats) == 1 and (pa.types.is_integer(one.type) or pa.types.is_integer(two.type))
        if one.type != two.type and not widened:
            return None
        fields.append(one.with_type(pa.float64()) if widened else one)
    return pa.schema(fields) if first.names == other.names else None


@contextmanager
def _readable(problem: str) -> Iterator[None]:
    try:
        yield
    except (ProjectError, GeneratorExit):
        raise
    except Exception as error:  # each cloud's library has errors of its own beside pyarrow's
        raise ProjectError(f"{problem}: not a readable parquet table ({error})") from error


def _width(type_: pa.DataType) -> int:
    try:
        return max(1, int(type_.bit_width) // 8)
    except ValueError:  # a text, or what is no column of a table
        return TEXT
