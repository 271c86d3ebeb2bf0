"""The table as far as it can be read, for a page of what `prepare` refuses.

`prepare` ends at its first error. Here each column is typed by itself: one that has none of the dtypes is kept as text,
with its error, so that a person sees all that is wrong at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import load, parts, streamed, table
from gitops.tabular.load import Loaded
from gitops.tabular.parquet_files import ParquetFiles


@dataclass(frozen=True)
class Raw:
    """What was written: `problems` by column, and how many of the table's rows, the first ones, were read."""

    problems: dict[str, str]
    read: int
    rows: int


def write(data: Data, path: Path) -> Raw:
    """Write the columns of the table that data.drop does not leave out to `path`, a parquet file.

    Raises ProjectError where the table cannot be read at all.
    """
    table.check_query(data)
    loaded, rows = _loaded(data)
    columns: dict[str, pa.ChunkedArray] = {}
    problems: dict[str, str] = {}
    for name in [*loaded.columns]:
        values = loaded.columns[name]
        column = loaded.column(name)
        if name in data.left_out:
            continue
        try:
            columns[name] = table.whole(column, data)
        except ProjectError as error:
            problems[name] = str(error)
            try:
                columns[name] = values.cast(pa.string())
            except pa.ArrowException:  # a list or a structure, say
                continue
    if not columns:
        raise ProjectError(f"{data.path} has no column that can be shown")
    found = pa.table(columns)
    with artifacts.replacing(path) as temporary:
        pq.write_table(found, str(temporary))
    return Raw(problems, found.num_rows, rows)


def _loaded(data: Data) -> tuple[Loaded, int]:
    """Return the table and how many rows it has; of a large parquet table as many of the first rows as memory takes."""
    if data.path.endswith(".csv"):
        whole = load.table(data)
        return whole, sum(rows for _, rows in whole.files)
    files = ParquetFiles(parts.files(data), "data.path", data.path)
    if files.size <= streamed.BUDGET:
        return load.table(data), files.rows
    load.check_names(files.schema.names, {*data.left_out}, files.problem)
    rows = max(1, files.rows * streamed.BUDGET // files.size)
    first = next(files.batches([*range(len(files.schema))], rows))
    columns = {name: pa.chunked_array([array]) for name, array in zip(first.schema.names, first.columns, strict=True)}
    return Loaded(columns, data.path, None, ()), files.rows
