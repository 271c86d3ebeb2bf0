"""Load a table as columns of Arrow: of text from CSV, of types from parquet, or from a frame of a database.

Columns have different names, and each has one, unless data.drop leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv, Data
from gitops.tabular import csv_checks, csv_file, parts
from gitops.tabular.parquet_files import ParquetFiles
from gitops.tabular.raw_column import Column

#: How pandas names an index without a name in the header of a CSV file.
UNNAMED = re.compile(r"(Unnamed: \d+)?")


@dataclass(frozen=True)
class Loaded:
    """A table as it was read; `typed` takes its columns out one by one, so that memory holds each once."""

    columns: dict[str, pa.ChunkedArray]
    path: str
    csv: Csv | None  # the notation of texts that are to be typed; None: texts are texts
    files: tuple[tuple[str, int], ...]  # CSV files, in which rows have lines, and how many rows each has

    def column(self, name: str) -> Column:
        """Return a column with what errors say of it, and remove it here."""
        return Column(name, self.columns.pop(name), self.path, self.csv, self.files)


def table(data: Data) -> Loaded:
    """Return the table of `data.path` with the rows that retrainings have appended, whole. Raises ProjectError."""
    return files(parts.files(data), "data.path", data)


def file(path: str | Path, setting: str, data: Data) -> Loaded:
    """Return the table at `path`, which `setting` names; the columns of CSV are texts. Raises ProjectError.

    Columns that are left out by data.drop may have no name or that of another one, where `path` is data.path.
    """
    return files([str(path)], setting, data)


def files(paths: Sequence[str], setting: str, data: Data) -> Loaded:
    """Return the same of a table in several files of one format, which `setting` names."""
    named = data.path if setting == "data.path" else paths[0]  # a folder, say, and not its first file
    problem = f"{setting} is {named!r}"
    drop = {*data.left_out} if setting == "data.path" else set()
    if not paths[0].endswith(".csv"):
        found = ParquetFiles(paths, setting, named)
        check_names(found.schema.names, drop, problem)
        whole = found.table()
        return Loaded(dict(zip(whole.column_names, whole.columns, strict=True)), named, None, ())
    names, columns, lengths = _csv(paths, setting, data)
    if "" not in drop:
        csv_checks.check_trailing(names, columns, data.csv, problem)
    check_names(names, drop, problem)
    return Loaded(dict(zip(names, columns, strict=True)), paths[0], data.csv, tuple(zip(paths, lengths, strict=True)))


def _csv(paths: Sequence[str], setting: str, data: Data) -> tuple[list[str], list[pa.ChunkedArray], list[int]]:
    """Return the names of CSV files' columns, these columns of text, and the number of rows of each file."""
    tables: list[tuple[list[str], list[pa.ChunkedArray]]] = []
    for path in paths:
        if not Path(path).exists():
            raise ProjectError(
                f"{setting} is {path!r}: there is no such file; `dvc pull` gets it, or correct {setting}"
            )
        tables.append(csv_file.read(Path(path), data.csv, f"{setting} is {path!r}"))
        if tables[-1][0] != tables[0][0]:
            raise ProjectError(f"{setting} is {paths[0]!r}: {path} has other columns")
    together = zip(*(columns for _, columns in tables), strict=True)
    whole = [pa.chunked_array([chunk for part in column for chunk in part.chunks], pa.string()) for column in together]
    return tables[0][0], whole, [len(columns[0]) for _, columns in tables]


def read_parquet(path: Path, problem: str) -> pa.Table:
    """Return a parquet file's columns. An index of pandas' is one of them if it has a name. Raises ProjectError."""
    return ParquetFiles([str(path)], problem.partition(" is ")[0]).table()


def frame(table: pd.DataFrame, data: Data) -> Loaded:
    """Return a table of pandas'. An index is a column if it has a name. Raises ProjectError."""
    named = [name for name in table.index.names if name is not None]
    table = table.reset_index(named) if named else table
    names = [str(name).strip() for name in table.columns]
    problem = f"the table that was read from {data.path}"
    if table.empty:
        raise ProjectError(f"{problem} has no rows")
    check_names(names, {*data.left_out}, problem)
    columns = {}
    for at, name in enumerate(names):
        if name in data.left_out:
            columns[name] = pa.chunked_array([pa.nulls(len(table))])
            continue
        try:
            array = pa.Array.from_pandas(table.iloc[:, at])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            types = sorted({type(value).__name__ for value in table.iloc[:, at].dropna()})
            raise ProjectError(
                f"{problem}: column {name!r} holds values of the types {', '.join(types)}: make them one type of "
                "number, text, boolean or date, or add it to data.drop"
            ) from None
        columns[name] = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    return Loaded(columns, data.path, data.csv if data.path.endswith(".csv") else None, ())


def check_names(names: list[str], drop: set[str], problem: str) -> None:
    """Raise ProjectError where a column has no name or that of another one, unless it is one of `drop`."""
    for position, name in enumerate(names, start=1):
        if name in drop:
            continue
        if UNNAMED.fullmatch(name):
            what = f"is {name!r}, an index that was written along" if name else "has no name"
            raise ProjectError(f"{problem}: column {position} {what}: name it, or add {name!r} to data.drop")
        if name in names[: position - 1]:
            raise ProjectError(
                f"{problem}: columns {names.index(name) + 1} and {position} are both called {name!r}: name one "
                f"otherwise, or add {name!r} to data.drop, which leaves out both"
            )
