"""Load a table as columns of Arrow: of text from CSV, of types from parquet, or from a frame of a database.

Columns have different names, and each has one, unless data.drop leaves them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv, Data
from gitops.tabular import csv_checks, csv_file, parts
from gitops.tabular.raw_column import Column

#: How pandas names an index without a name, as a column of a parquet file and in the header of a CSV file.
INDEX = re.compile(r"__index_level_\d+__")
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


def file(path: Path, setting: str, data: Data) -> Loaded:
    """Return the table in the file `path`, which `setting` names; the columns of CSV are texts. Raises ProjectError.

    Columns that are left out by data.drop may have no name or that of another one, where `path` is data.path.
    """
    problem = f"{setting} is {str(path)!r}"
    if not path.exists():
        raise ProjectError(f"{problem}: there is no such file; `dvc pull` gets it, or correct {setting}")
    drop = {*data.left_out} if setting == "data.path" else set()
    if path.suffix == ".parquet":
        found = read_parquet(path, problem)
        names, columns = found.column_names, found.columns
    else:
        names, columns = csv_file.read(path, data.csv, problem)
        if "" not in drop:
            csv_checks.check_trailing(names, columns, data.csv, problem)
    _check_names(names, drop, problem)
    text = path.suffix != ".parquet"
    return Loaded(dict(zip(names, columns, strict=True)), str(path), data.csv if text else None, text)


def whole(data: Data) -> Loaded:
    """Return the table of data.path with the rows that retrainings have appended to it. Raises ProjectError."""
    first, *others = (file(Path(path), "data.path", data) for path in parts.files(data))
    for other in others:
        if {*first.columns} != {*other.columns}:
            raise ProjectError(f"{other.path} has other columns than {first.path}, to which its rows are appended")
        for name, values in first.columns.items():
            first.columns[name] = _joined(values, other.columns[name])
    return first


def _joined(older: pa.ChunkedArray, newer: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of two files' columns as one: a dictionary's decoded, whole numbers as floats beside those."""
    both = [part.cast(part.type.value_type) if pa.types.is_dictionary(part.type) else part for part in (older, newer)]
    types = {part.type for part in both}
    if len(types) > 1:
        both = [part.cast(pa.float64()) for part in both]
    return pa.chunked_array([chunk for part in both for chunk in part.chunks], both[0].type)


def read_parquet(path: Path, problem: str) -> pa.Table:
    """Return a parquet file's columns. An index of pandas' is one of them if it has a name. Raises ProjectError."""
    try:
        # No file object, for the reason in artifacts.read_parquet.
        with pq.ParquetFile(str(path)) as file:
            found = file.read()
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise ProjectError(f"{problem}: not a readable parquet table ({error})") from error
    if not found.num_rows:
        raise ProjectError(f"{problem}: the table has no rows")
    for index in (found.schema.pandas_metadata or {}).get("index_columns", []):
        if isinstance(index, dict) and index.get("kind") == "range" and index.get("name"):
            numbers = np.arange(index["start"], index["stop"], index["step"])
            found = found.append_column(str(index["name"]), pa.array(numbers))
    found = found.select([at for at, name in enumerate(found.column_names) if not INDEX.fullmatch(name)])
    return found.rename_columns([name.strip() for name in found.column_names]).replace_schema_metadata()


def frame(table: pd.DataFrame, data: Data) -> Loaded:
    """Return a table of pandas'. An index is a column if it has a name. Raises ProjectError."""
    named = [name for name in table.index.names if name is not None]
    table = table.reset_index(named) if named else table
    names = [str(name).strip() for name in table.columns]
    problem = f"the table that was read from {data.path}"
    if table.empty:
        raise ProjectError(f"{problem} has no rows")
    _check_names(names, {*data.left_out}, problem)
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


def _check_names(names: list[str], drop: set[str], problem: str) -> None:
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
