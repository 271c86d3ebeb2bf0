"""Load a table as columns of Arrow: of text from CSV, of types from parquet, or from a frame of a database.

Columns have different names, and each has one, unless data.drop leaves them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv, Data
from gitops.tabular import csv_checks, csv_file
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
    in_file: bool  # whether `path` is a CSV file, in which rows have lines

    def column(self, name: str) -> Column:
        """Return a column with what errors say of it, and remove it here."""
        return Column(name, self.columns.pop(name), self.path, self.csv, self.in_file)


def table(data: Data) -> Loaded:
    """Return the table of `data.path`, whole. Raises ProjectError."""
    return file(data.path, "data.path", data)


def file(path: str | Path, setting: str, data: Data) -> Loaded:
    """Return the table at `path`, which `setting` names; the columns of CSV are texts. Raises ProjectError.

    Columns that are left out by data.drop may have no name or that of another one, where `path` is data.path.
    """
    path = str(path)
    problem = f"{setting} is {path!r}"
    drop = {*data.left_out} if setting == "data.path" else set()
    if not path.endswith(".csv"):
        files = ParquetFiles([path], setting)
        check_names(files.schema.names, drop, problem)
        found = files.table()
        return Loaded(dict(zip(found.column_names, found.columns, strict=True)), path, None, in_file=False)
    if not Path(path).exists():
        raise ProjectError(f"{problem}: there is no such file; `dvc pull` gets it, or correct {setting}")
    names, columns = csv_file.read(Path(path), data.csv, problem)
    if "" not in drop:
        csv_checks.check_trailing(names, columns, data.csv, problem)
    check_names(names, drop, problem)
    return Loaded(dict(zip(names, columns, strict=True)), path, data.csv, in_file=True)


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
    return Loaded(columns, data.path, data.csv if data.path.endswith(".csv") else None, in_file=False)


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
